"""Splits, chunks and slices, with bounds from attributes, literals and live sizes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _TwoWays(nn.Module):
    """A stem of 16 channels whose two parts go different ways."""

    def __init__(self, left: int = 8, right: int = 8):
        super().__init__()
        self.stem, self.left, self.right = conv_norm(3, 16), conv(left, 6), conv(right, 6)
        self.head = pooled_head(6)

    def joined(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.left(left) - self.right(right)))


@specimen(PICTURE, cut=("stem.0", "left"))
class SplitByAttributeList(_TwoWays):
    """Sections in a list attribute: both entries are rewritten."""

    def __init__(self):
        super().__init__(5, 11)
        self.sizes = [5, 11]

    def forward(self, x):
        return self.joined(*torch.split(self.stem(x), self.sizes, dim=1))


@specimen(PICTURE, cut=("stem.0", "left"))
class SplitByAttributeTuple(_TwoWays):
    """Sections put together in forward from two integer attributes."""

    def __init__(self):
        super().__init__(5, 11)
        self.first, self.second = 5, 11

    def forward(self, x):
        return self.joined(*self.stem(x).split((self.first, self.second), dim=1))


@specimen(PICTURE, cut=("stem.0",))
class SplitByAttributeSize(_TwoWays):
    """One integer for all parts: they stay equal."""

    def __init__(self):
        super().__init__()
        self.size = 8

    def forward(self, x):
        return self.joined(*self.stem(x).split(self.size, dim=1))


@specimen(PICTURE, cut=("left",))
class SplitByLiteral(_TwoWays):
    """Sections written as numbers in forward: nothing can rewrite them."""

    def forward(self, x):
        return self.joined(*self.stem(x).split([8, 8], dim=1))


@specimen(PICTURE, cut=("stem.0", "left"))
class SliceByAttribute(_TwoWays):
    """The bound is an attribute (MODNet's IBNorm)."""

    def __init__(self):
        super().__init__(6, 10)
        self.bound = 6

    def forward(self, x):
        x = self.stem(x)
        return self.joined(x[:, : self.bound, ...], x[:, self.bound :, ...])


@specimen(PICTURE, cut=("left",))
class SliceByLiteral(_TwoWays):
    """The bound is a number in forward: the channels before it must stay eight."""

    def forward(self, x):
        x = self.stem(x)
        return self.joined(x[:, :8], x[:, 8:])


@specimen(PICTURE, cut=("left",))
class SliceFromEnd(_TwoWays):
    """A negative literal bound counts from the other side."""

    def forward(self, x):
        x = self.stem(x)
        return self.joined(x[:, :-8], x[:, -8:])


@specimen(PICTURE, cut=("stem.0",))
class SliceByLiveSize(_TwoWays):
    """Half of whatever width there is: the halves stay equal."""

    def forward(self, x):
        x = self.stem(x)
        half = x.size(1) // 2
        return self.joined(x[:, :half], x[:, half:])


@specimen(PICTURE, cut=("stem.0",))
class NarrowByAttribute(_TwoWays):
    """`narrow` with start and length from attributes, computed."""

    def __init__(self):
        super().__init__(6, 10)
        self.bound, self.total = 6, 16

    def forward(self, x):
        x = self.stem(x)
        return self.joined(x.narrow(1, 0, self.bound), x.narrow(1, self.bound, self.total - self.bound))


@specimen(PICTURE, cut=("left",))
class EverySecondChannel(_TwoWays):
    """A stride along the channels: which ones it picks depends on the place of each."""

    def forward(self, x):
        x = self.stem(x)
        return self.joined(x[:, ::2], x[:, 1::2])


@specimen(PICTURE, cut=("stem.0", "left"))
class ChunkInTwo(_TwoWays):
    """`chunk(2)` needs no number that anyone could rewrite, but equal parts."""

    def forward(self, x):
        return self.joined(*self.stem(x).chunk(2, dim=1))


@specimen(PICTURE, cut=("stem.0",))
class ChunkInThree(nn.Module):
    """Three parts, one of them read twice and one returned to the picture's width."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = conv_norm(3, 12), conv(4, 6), conv(4, 6), pooled_head(6)

    def forward(self, x):
        first, second, third = self.stem(x).chunk(3, 1)
        return self.head(torch.relu(self.a(first + third) * self.b(second + first)))


@specimen(PICTURE)
class ChunkUneven(nn.Module):
    """Eleven channels in three chunks are 4, 4 and 3: after a cut the sizes must come out as planned."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 11), pooled_head(6)
        self.parts = nn.ModuleList([conv(4, 6), conv(4, 6), conv(3, 6)])

    def forward(self, x):
        chunks = self.stem(x).chunk(3, dim=1)
        return self.head(torch.relu(sum(part(chunk) for part, chunk in zip(self.parts, chunks, strict=True))))


@specimen(PICTURE, cut=("first.0", "bottlenecks.0", "last.0"))
class C2f(nn.Module):
    """YOLOv8's block: chunk, a growing list, concatenation; where other pruners break."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.head = conv_norm(3, 16, 1), conv_norm(32, 12, 1), pooled_head(12)
        self.bottlenecks = nn.ModuleList(conv(8, 8) for _ in range(2))

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        parts.extend(bottleneck(parts[-1]) for bottleneck in self.bottlenecks)
        return self.head(self.last(torch.cat(parts, 1)))


@specimen(PICTURE, cut=("stem.0",))
class GatedLinearUnit(nn.Module):
    """GLU multiplies one half of the channels with the gate in the other."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 16), pooled_head(8)

    def forward(self, x):
        return self.head(F.glu(self.stem(x), dim=1))


@specimen(PICTURE, cut=("left.0", "right.0"))
class PickedChannel(nn.Module):
    """One channel is picked by number, as a map; the others only feed the head."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right, self.head = conv(3, 8), conv_norm(8, 6), conv_norm(1, 6), pooled_head(6)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.left(x) * self.right(x[:, 3].unsqueeze(1)))


@specimen(PICTURE, cut=("last.0",))
class IndexedChannels(nn.Module):
    """Channels permuted by an index buffer: after a cut it would point at the wrong ones."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv(3, 8), conv_norm(8, 6), pooled_head(6)
        self.register_buffer("order", torch.tensor([7, 3, 1, 5, 0, 2, 6, 4]))

    def forward(self, x):
        return self.head(self.last(self.stem(x)[:, self.order]))


@specimen(PICTURE, cut=("stem.0",))
class UnboundGroups(nn.Module):
    """A view into (groups, width), then `unbind`: each group goes its own way."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = conv_norm(3, 16), conv(8, 6), conv(8, 6), pooled_head(6)

    def forward(self, x):
        x = self.stem(x)
        first, second = x.view(x.shape[0], 2, -1, *x.shape[2:]).unbind(1)
        return self.head(torch.relu(self.a(first) + self.b(second)))


@specimen(PICTURE, cut=("stem.0",))
class PartialConvolution(nn.Module):
    """FasterNet: a quarter of the channels is convolved, the rest passes; sizes are attributes."""

    def __init__(self):
        super().__init__()
        self.touched, self.rest = 4, 12
        self.stem, self.partial, self.head = conv_norm(3, 16), conv(4, 4), pooled_head(16)

    def forward(self, x):
        touched, rest = torch.split(self.stem(x), [self.touched, self.rest], dim=1)
        return self.head(torch.cat([self.partial(touched), rest], 1))


@specimen(PICTURE, cut=("stem.0",))
class SplitFedToSum(nn.Module):
    """Two parts of one layer are added: its channels go in pairs."""

    def __init__(self):
        super().__init__()
        self.half = 8
        self.stem, self.last, self.head = conv_norm(3, 16), conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(x[:, : self.half] + x[:, self.half :]))


@specimen(PICTURE, cut=("stem.0",))
class HalfSigmoid(nn.Module):
    """Both sides of the bound meet the same layers, and differ only by an activation: they are not interchangeable."""

    def __init__(self):
        super().__init__()
        self.bound, self.stem, self.head = 8, conv_norm(3, 16), pooled_head(16)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.cat([x[:, : self.bound].sigmoid(), x[:, self.bound :]], dim=1))


@specimen(PICTURE, cut=("stem.0",))
class HalfSigmoidByChunk(nn.Module):
    """The same with `chunk`: the halves stay equal."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 16), pooled_head(16)

    def forward(self, x):
        first, second = self.stem(x).chunk(2, dim=1)
        return self.head(torch.cat([first.sigmoid(), second], dim=1))


@specimen(PICTURE, cut=("stem",))
class MaxOut(nn.Module):
    """Maxout: the larger of two halves, laid out by a view with the attribute first."""

    def __init__(self):
        super().__init__()
        self.pieces = 2
        self.stem, self.head = conv(3, 16), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x.view(x.shape[0], self.pieces, -1, *x.shape[2:]).amax(dim=1))
