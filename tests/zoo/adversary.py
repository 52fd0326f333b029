"""Models on which an early engine was wrong, crashed or refused: found by looking for them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _Middle(nn.Module):
    """A convolution, something in the middle, a convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x):
        return self.head(self.last(self.middle(self.stem(x))))


@specimen(PICTURE, cut=("stem.0",), whole=("coarse", "fine"))
class ClassesByMaximum(nn.Module):
    """`max(1)` gives class numbers: the classes are read by a layer, too, but must not be renumbered."""

    def __init__(self):
        super().__init__()
        self.stem, self.coarse, self.fine = conv_norm(3, 8), conv(8, 6), conv(6, 6)

    def forward(self, x):
        coarse = self.coarse(self.stem(x))
        return self.fine(torch.relu(coarse)), coarse.max(1)[1]


@specimen(PICTURE, whole=("stem.0", "out"), prunable=False)
class ObjectOutput(nn.Module):
    """Features leave the model in an object of no kind that torch knows."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = conv_norm(3, 8), conv(8, 6)

    def forward(self, x):
        features = self.stem(x)
        return self.out(features), SimpleNamespace(features=features)


@specimen(PICTURE, whole=("stem.0", "out"), prunable=False)
class FeaturesInTraining(nn.Module):
    """In training the features leave the model, too; no further layer runs, so nothing hints at that path."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = conv_norm(3, 8), conv(8, 6)

    def forward(self, x):
        features = self.stem(x)
        return (self.out(features), features) if self.training else self.out(features)


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class LiteralInTraining(_Middle):
    """Channels dropped in training by a mask whose width is a number in the code."""

    def middle(self, x):
        return x * (torch.rand(x.shape[0], 8, 1, 1) > 0.1).to(x.dtype) if self.training else x


@specimen(PICTURE, cut=("stem.0", "last.0"))
class CachesInDictionary(_Middle):
    """A table made once for each size and kept in a dict: the trace must not leave its own tensors there."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def middle(self, x):
        if x.shape[3] not in self.cache:
            self.cache[x.shape[3]] = torch.linspace(0, 1, x.shape[3], device=x.device)
        return x * self.cache[x.shape[3]].to(x.dtype)


@specimen(PICTURE, cut=("last.0",), reference="mask")
class SoftmaxWithinParts(_Middle):
    """A softmax within each of two parts of the channels, which keep different places."""

    def middle(self, x):
        n, c, *sides = x.shape
        return x.view(n, 2, c // 2, *sides).softmax(2).reshape(x.shape) * x


@specimen(PICTURE, cut=("last.0",), reference="mask")
class LayerNormWithinParts(_Middle):
    """Each head's channels are normalised by themselves (QK-norm)."""

    def middle(self, x):
        n, c, h, w = x.shape
        parts = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, c // 2)
        return F.layer_norm(parts, (c // 2,)).reshape(n, h, w, c).permute(0, 3, 1, 2)


@specimen(PICTURE, cut=("last.0",))
class PaddedByDifference(_Middle):
    """ResNet's shortcut of type A, the padding computed from an attribute and the live width."""

    def __init__(self):
        super().__init__()
        self.planes, self.wide, self.last = 12, conv(8, 12, stride=2), conv_norm(12, 6)

    def middle(self, x):
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.planes - x.shape[1]))
        return torch.relu(self.wide(x) + shortcut)


@specimen(PICTURE, cut=("only",))
class FlattenedFromTwo(nn.Module):
    """`flatten(2)` on features that are left with two channels: a dimension's number is not a size."""

    def __init__(self):
        super().__init__()
        self.only, self.out = conv(3, 4), nn.Conv1d(4, 2, 1)

    def forward(self, x):
        return self.out(torch.relu(self.only(x)).flatten(2))


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class GroupsByRemainder(_Middle):
    """The number of groups hangs on what is left when the live width is divided."""

    def middle(self, x):
        return F.group_norm(x, 4 if x.shape[1] % 8 == 0 else 1)


@specimen(PICTURE, cut=("last.0",))
class GroupsByWidth(_Middle):
    """The number of groups is a part of the live width."""

    def middle(self, x):
        return F.group_norm(x, x.shape[1] // 4)


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class BranchByWidth(_Middle):
    """A branch on the live width: narrower features would take the other one."""

    def __init__(self):
        super().__init__()
        self.side = conv(8, 8)

    def middle(self, x):
        return self.side(x) if x.shape[1] > 6 else x


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class NamedByWidth(_Middle):
    """A layer looked up by a name that the live width is part of."""

    def __init__(self):
        super().__init__()
        self.conv8 = conv(8, 8)

    def middle(self, x):
        return getattr(self, f"conv{x.shape[1]}")(x)


class LoopsByWidth(_Middle):
    """An attribute that is a width and a number of rounds: only the proof can tell, so it is no specimen."""

    def __init__(self):
        super().__init__()
        self.width = 8

    def middle(self, x):
        x = x.view(x.shape[0], self.width, *x.shape[2:])
        for _ in range(self.width):
            x = x * 0.9 + 0.1
        return x


@specimen(PICTURE, cut=("last.0",))
class WritesIntoOut(_Middle):
    """An operation that is given where to write (`out=`)."""

    def middle(self, x):
        result = torch.empty_like(x)
        torch.mul(x, 2, out=result)
        return result


@specimen(PICTURE, cut=("stem.0", "last.0"))
class ExpandedMask(_Middle):
    """A map of one channel expanded to the live width before it is multiplied (BAM): it couples nothing."""

    def __init__(self):
        super().__init__()
        self.mask = conv(8, 1)

    def middle(self, x):
        return x * torch.sigmoid(self.mask(x)).expand_as(x)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class ZerosOfLiveShape(_Middle):
    """A tensor made with the live sizes shrinks by itself."""

    def middle(self, x):
        return x + torch.ones(x.shape, dtype=x.dtype, device=x.device)
