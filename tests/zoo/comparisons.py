"""What the code compares: integers that it finds equal, and must after a cut; values that it reads in training only."""

from __future__ import annotations

import torch
from torch import nn

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen

FEATURES = torch.zeros(2, 8, 12, 12)


@specimen(FEATURES, cut=("last",), whole=("stem",))
class WidthOfTheInput(nn.Module):
    """One attribute is the width of the input, which is checked, and of the hidden map: it cannot be both."""

    def __init__(self):
        super().__init__()
        self.width = 8
        self.stem, self.last, self.head = conv(8, 8), conv(8, 6), pooled_head(6)

    def forward(self, x):
        assert x.shape[1] == self.width, "wrong number of channels"
        x = torch.relu(self.stem(x)).view(len(x), self.width, -1, 12)
        return self.head(self.last(x))


class _TwoPaths(nn.Module):
    """Two paths side by side, of which one leaves the model; what they find in common decides on a factor."""

    def __init__(self):
        super().__init__()
        self.left_width, self.right_width = 8, 8
        self.left, self.right, self.last, self.head = conv(8, 8), conv(8, 8), conv(16, 6), pooled_head(6)

    def same(self, left: torch.Tensor, right: torch.Tensor) -> bool:
        raise NotImplementedError

    def forward(self, x):
        left, right = torch.relu(self.left(x)), torch.relu(self.right(x))
        left, right = left.view(len(x), self.left_width, -1, 12), right.view(len(x), self.right_width, -1, 12)
        factor = 2.0 if self.same(left, right) else 1.0
        return self.head(self.last(torch.cat([left * factor, right], 1))), left


@specimen(FEATURES, cut=("last",), whole=("left", "right"))
class EqualSizes(_TwoPaths):
    """The sizes of two maps that never meet are compared: one stays, so the other must."""

    def same(self, left, right):
        return left.shape[1] == right.shape[1]


@specimen(FEATURES, cut=("last",), whole=("left", "right"))
class EqualAttributes(_TwoPaths):
    """Two attributes that give sizes are compared with each other."""

    def same(self, left, right):
        return self.left_width == self.right_width


@specimen(FEATURES, cut=("last",), whole=("left", "right"))
class AttributeAndNumber(_TwoPaths):
    """An attribute that gives a size is compared with a number."""

    def same(self, left, right):
        return self.right_width == 8


@specimen(PICTURE, cut=("stem.0", "last"))
class ReadsValuesInTraining(nn.Module):
    """Channels are split in halves; in training a value is read besides, which there is none of without data."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv(4, 6), pooled_head(6)

    def forward(self, x):
        value, gate = self.stem(x).chunk(2, 1)
        if self.training and value.sum() > 1e9:
            value = value / value.max()
        return self.head(self.last(value * gate.sigmoid()))
