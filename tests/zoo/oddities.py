"""What people write all the same: values read, operations without a rule, writes in place, hooks, dice."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _Odd(nn.Module):
    """A convolution, something odd, a convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)

    def odd(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x):
        return self.head(self.last(self.odd(self.stem(x))))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class ReadsValues(_Odd):
    """A branch on a value: there is none without data."""

    def odd(self, x):
        return x * 2 if x.sum() > 0 else x * 3


@specimen(PICTURE, whole=("stem.0", "last.0"), prunable=False)
class ReadsValuesAndReachesLayers(_Odd):
    """Another layer for other values: nobody sees what enters it."""

    def __init__(self):
        super().__init__()
        self.other = conv(8, 8)

    def odd(self, x):
        return x if x.sum() < 1e9 else self.other(x)


@specimen(PICTURE, cut=("last.0",))
class RemembersFeatures(_Odd):
    """A tensor that the first call makes of its features, and keeps as a plain attribute."""

    memory: torch.Tensor | None = None

    def odd(self, x):
        if self.memory is None or self.memory.shape != x.shape[1:]:
            self.memory = torch.zeros_like(x[0])
        return x + self.memory


@specimen(PICTURE, cut=("stem.0", "last.0"))
class AsManyAsValuesSay(nn.Module):
    """An output whose size depends on values."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.out = conv_norm(3, 8), conv_norm(8, 6), conv(6, 4)

    def forward(self, x):
        rows = self.out(self.last(self.stem(x))).permute(0, 2, 3, 1).flatten(0, 2)
        return rows[rows[:, 0] > 0]


@specimen(PICTURE, cut=("last.0",))
class ReadsNumbers(_Odd):
    """`float(tensor)` and `.item()` in the forward."""

    def odd(self, x):
        return x / (float(x.detach().abs().max()) + 1e-3) + x.detach().mean().item()


@specimen(PICTURE, cut=("stem.0", "last.0"))
class DropoutInForward(_Odd):
    """Dropout as a module and as a function that heeds the mode."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout2d(0.5)

    def odd(self, x):
        return F.dropout(self.dropout(x), 0.3, self.training)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class RandomDepth(_Odd):
    """Dice in eval mode too, one for each picture of the batch."""

    def odd(self, x):
        return x * (0.5 + torch.rand(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device))


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class FourierChannels(_Odd):
    """An operation without a rule: a Fourier transform along the channels."""

    def odd(self, x):
        return torch.fft.fft(x, dim=1).real


@specimen(PICTURE, cut=("last.0",))
class FourierPlaces(_Odd):
    """A Fourier transform of the picture's sides (FNet, LaMa): channels are untouched, but who knows."""

    def odd(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * 2, s=x.shape[-2:], norm="ortho")


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class RunningSum(_Odd):
    """A cumulative sum along the channels: each depends on all before it."""

    def odd(self, x):
        return torch.cumsum(x, dim=1)


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class SortedChannels(_Odd):
    """Channels sorted by value in every place."""

    def odd(self, x):
        return x.sort(dim=1).values


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class StrongestChannels(_Odd):
    """The eight largest of eight: a number that no cut could keep."""

    def odd(self, x):
        return x.topk(8, dim=1).values


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class RolledChannels(_Odd):
    """Channels shifted by one: neighbours matter."""

    def odd(self, x):
        return x + x.roll(1, dims=1)


class StraightThrough(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@specimen(PICTURE, cut=("last.0",))
class CustomFunction(_Odd):
    """An autograd function of the user's own in the middle."""

    def odd(self, x):
        return x + StraightThrough.apply(x)


@specimen(PICTURE, cut=("last.0",))
class PaddedShortcut(_Odd):
    """ResNet's shortcut of type A: the missing channels are zeros from F.pad."""

    def __init__(self):
        super().__init__()
        self.wide, self.last = conv(8, 12, stride=2), conv_norm(12, 6)

    def odd(self, x):
        return torch.relu(self.wide(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


@specimen(PICTURE, cut=("last.0",))
class WrittenInPlace(_Odd):
    """A branch added in place into a slice of the features, its bound an attribute."""

    def __init__(self):
        super().__init__()
        self.bound, self.side = 4, conv(8, 4)

    def odd(self, x):
        y = x.clone()
        y[:, : self.bound] += self.side(x)
        return y


@specimen(PICTURE, cut=("last.0",))
class ZeroedInPlace(_Odd):
    """Channels overwritten by a number, chosen by a literal."""

    def odd(self, x):
        y = x * 1.0
        y[:, 5:] = 0.5
        return y


@specimen(PICTURE, cut=("last.0",))
class FilledBuffer(_Odd):
    """An empty tensor, filled part by part with two branches."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(8, 3), conv(8, 5)

    def odd(self, x):
        out = x.new_empty(x.shape[0], 8, *x.shape[2:])
        out[:, :3], out[:, 3:] = self.a(x), self.b(x)
        return out


@specimen(PICTURE, cut=("stem.0", "last.0"))
class ActivationsInPlace(_Odd):
    """In-place activations and arithmetic on whole tensors."""

    def odd(self, x):
        y = x.clone().mul_(2).add_(1).sub_(x)
        return F.relu_(F.leaky_relu_(y, 0.1)).clamp_(max=6.0)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class WhereAndCompare(_Odd):
    """Comparisons, `where`, `minimum`, masked values: pointwise, but not arithmetic."""

    def odd(self, x):
        y = torch.where(x > 0.5, x, 0.1 * x)
        return torch.minimum(y, x.new_tensor(2.0)).masked_fill(x == 0, -0.2) + (x >= 1).to(x.dtype)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class Checkpointed(_Odd):
    """Activation checkpointing around a block."""

    def odd(self, x):
        return checkpoint(torch.tanh, x, use_reentrant=False)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class HookedLayer(_Odd):
    """A forward hook that changes the output, as quantisers and feature extractors leave behind."""

    def __init__(self):
        super().__init__()
        self.stem[0].register_forward_hook(_doubled)

    def odd(self, x):
        return x


def _doubled(module, inputs, output):
    return output * 2


@specimen(PICTURE, cut=("stem.0", "last.0"))
class KeepsActivations(_Odd):
    """The forward stores features on the module, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls, self.seen = 0, None

    def odd(self, x):
        self.calls += 1
        self.seen = x.mean((0, 2, 3)).detach()
        return x


@specimen(PICTURE, cut=("stem.0", "last.0"))
class AssertsWidth(_Odd):
    """A check of the width against an attribute, as careful people write; it must hold after the cut."""

    def __init__(self):
        super().__init__()
        self.width = 8

    def odd(self, x):
        if x.shape[1] != self.width:
            raise ValueError(f"expected {self.width} channels, got {x.shape[1]}")
        return x


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class AssertsLiteral(_Odd):
    """A check of the width against a number: a narrower model would refuse to run."""

    def odd(self, x):
        if x.shape[1] != 8:
            raise ValueError(f"expected 8 channels, got {x.shape[1]}")
        return x


@specimen(PICTURE, cut=("last.0",))
class DividedByWidth(_Odd):
    """The live width as a number in arithmetic: the value itself changes with a cut."""

    def odd(self, x):
        return x / x.shape[1] ** 0.5


@specimen(PICTURE, cut=("stem.0", "last.0"))
class DictionaryOfLayers(nn.Module):
    """Layers in a ModuleDict, called through a list of names; a Sequential indexed and sliced."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        self.layers, self.order = nn.ModuleDict({"b": conv(8, 8), "a": conv(8, 8)}), ["a", "b"]

    def forward(self, x):
        x = self.stem[1:](self.stem[0](x))
        for name in self.order:
            x = torch.relu(self.layers[name](x))
        return self.head(self.last(x))


@specimen(PICTURE, cut=("last.0",))
class LongShortTermMemory(_Odd):
    """A recurrent layer over the rows of the picture: one of torch's layers without a rule."""

    def __init__(self):
        super().__init__()
        self.rows = nn.LSTM(8, 8, batch_first=True)

    def odd(self, x):
        n, c, h, w = x.shape
        rows, _ = self.rows(x.permute(0, 2, 3, 1).reshape(n * h, w, c))
        return rows.reshape(n, h, w, -1).permute(0, 3, 1, 2)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class ChannelsLastMemory(_Odd):
    """Memory formats and copies: `contiguous(memory_format=...)`, `clone`, `detach`, `to`."""

    def odd(self, x):
        x = x.contiguous(memory_format=torch.channels_last).clone().to(x.device)
        return x + x.detach().type_as(x)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class LoopOverPictures(_Odd):
    """A loop over the batch, each picture on its own, stacked again."""

    def odd(self, x):
        return torch.stack([picture / (1 + picture.abs()) for picture in x])


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class LoopOverChannels(_Odd):
    """A loop over the first eight channels, by number."""

    def odd(self, x):
        return torch.stack([x[:, i] * (i + 1) for i in range(8)], dim=1)


@specimen(PICTURE, whole=("only",), prunable=False)
class NothingToCut(nn.Module):
    """One layer, whose output is the answer."""

    def __init__(self):
        super().__init__()
        self.only = conv(3, 5)

    def forward(self, x):
        return self.only(x)


@specimen(PICTURE, cut=("wide",), whole=("narrow",))
class SingleChannel(nn.Module):
    """A layer with one channel: it is never emptied."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.out = conv(3, 8), conv(8, 1), conv(1, 2)

    def forward(self, x):
        return self.out(torch.relu(self.narrow(torch.relu(self.wide(x)))))
