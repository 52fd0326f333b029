"""Sums: residual streams, projections, constants and what else is added to channels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


@specimen(PICTURE, cut=("first.0", "second.0"), whole=("head.2",))
class PlainChain(nn.Module):
    """The simplest network: if this fails, look no further."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = conv_norm(3, 8), conv_norm(8, 12), pooled_head(12)

    def forward(self, x):
        return self.head(self.second(self.first(x)))


@specimen(PICTURE, cut=("stem.0", "inner.0", "outer.0"))
class IdentityResidual(nn.Module):
    """Stem and block write into one stream: their output channels go together."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer = conv_norm(3, 8), conv_norm(8, 16), conv_norm(16, 8)
        self.head = pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.outer(self.inner(x)))


@specimen(PICTURE, cut=("stem.0", "block.0", "shortcut"))
class ProjectedResidual(nn.Module):
    """A shortcut with its own strided convolution (ResNet's downsample), added in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = conv_norm(3, 8), conv_norm(8, 16, stride=2)
        self.shortcut, self.head = nn.Conv2d(8, 16, 1, stride=2), pooled_head(16)

    def forward(self, x):
        x = self.stem(x)
        out = self.block(x)
        out += self.shortcut(x)
        return self.head(torch.relu_(out))


@specimen(PICTURE, cut=("stem", "blocks.0", "blocks.3"))
class LongStream(nn.Module):
    """Four adds on one stream, pre-activation: five layers in one group, and a norm after it."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 8), nn.BatchNorm2d(8), pooled_head(8)
        self.blocks = nn.ModuleList(conv(8, 8) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(F.relu(x))
        return self.head(self.norm(x))


@specimen(PICTURE, cut=("a", "b", "out"))
class ConcatAddedToStream(nn.Module):
    """A concatenation added to a stream: one group of the stream ends as parts of two others."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out, self.head = conv(3, 5), conv(3, 7), conv(12, 12), pooled_head(12)

    def forward(self, x):
        both = torch.cat([self.a(x), self.b(x)], dim=1)
        return self.head(both + self.out(torch.relu(both)))


@specimen(PICTURE, cut=("inner",), whole=("last",))
class PictureAdded(nn.Module):
    """Image restoration predicts a residual: what is added to the input has nothing to cut."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.head = conv_norm(3, 8)[0], conv(8, 3), conv(3, 2)

    def forward(self, x):
        return self.head(x + self.last(torch.relu(self.inner(x))))


@specimen(PICTURE, cut=("first", "second"))
class ConstantAdded(nn.Module):
    """A number added to every channel: a cut channel would come back as that number, its consumer must not see it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = conv(3, 8), conv(8, 8), pooled_head(8)

    def forward(self, x):
        return self.head(torch.sigmoid(self.second(self.first(x) + 1.0)) * 2 + 3)


@specimen(PICTURE, cut=("block.0",), whole=("stem",))
class ConstantTensorAdded(nn.Module):
    """A tensor made in forward with one value a channel: it has no channels to cut, so what meets it stays."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = conv(3, 8), conv_norm(8, 8), pooled_head(8)

    def forward(self, x):
        position = torch.arange(8, dtype=x.dtype, device=x.device).view(1, 8, 1, 1)
        return self.head(self.block(self.stem(x) + position))


@specimen(PICTURE, cut=("stem.0", "block.0"))
class SingleChannelAdded(nn.Module):
    """A map of one channel broadcast over many: it couples with nothing and must not be cut away."""

    def __init__(self):
        super().__init__()
        self.stem, self.map, self.block, self.head = conv_norm(3, 8), conv(3, 1), conv_norm(8, 8), pooled_head(8)

    def forward(self, x):
        return self.head(self.block(self.stem(x) + self.map(x)))


@specimen(PICTURE, cut=("stem.0", "a", "b", "c"))
class WeightedFusion(nn.Module):
    """Three branches summed with learnt scalar weights (BiFPN)."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 8), pooled_head(8)
        self.a, self.b, self.c = conv(8, 8, 1), conv(8, 8), conv(8, 8, 5)
        self.weights = nn.Parameter(torch.ones(3))

    def forward(self, x):
        x, weight = self.stem(x), F.relu(self.weights)
        weight = weight / (weight.sum() + 1e-4)
        return self.head(weight[0] * self.a(x) + weight[1] * self.b(x) + weight[2] * self.c(x))


@specimen(PICTURE, cut=("stem.0", "block.0"))
class StackedAndSummed(nn.Module):
    """Branches stacked along a new dimension and summed: a sum by another road."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = conv_norm(3, 8), conv_norm(8, 8), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.stack([x, self.block(x)], dim=1).sum(dim=1))
