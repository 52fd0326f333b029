"""Shuffles: views that split the channels, transpositions, pixels into channels and back."""

from __future__ import annotations

import torch
from torch import nn

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


def shuffled(x: torch.Tensor, groups: int) -> torch.Tensor:
    """ShuffleNet's shuffle, as torchvision writes it."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


@specimen(PICTURE, cut=("stem.0",))
class ChannelShuffle(nn.Module):
    """After the shuffle the kept order is a permutation: the next layer's columns follow it."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 16), conv_norm(16, 8), pooled_head(8)

    def forward(self, x):
        return self.head(self.last(shuffled(self.stem(x), 2)))


@specimen(PICTURE, cut=("grouped.0",))
class ShuffledGroups(nn.Module):
    """ShuffleNet v1: grouped convolutions with a shuffle between them, written with flatten."""

    def __init__(self):
        super().__init__()
        self.groups = 4
        self.stem, self.grouped, self.head = conv_norm(3, 16, 1), conv_norm(16, 16, groups=4), pooled_head(16)

    def forward(self, x):
        x = self.stem(x)
        x = x.view(x.size(0), self.groups, -1, x.size(2), x.size(3)).transpose(1, 2).flatten(1, 2)
        return self.head(self.grouped(x))


@specimen(PICTURE, cut=("stem.0",))
class ShuffleModule(nn.Module):
    """The shuffle as torch ships it."""

    def __init__(self):
        super().__init__()
        self.stem, self.shuffle = conv_norm(3, 12), nn.ChannelShuffle(3)
        self.last, self.head = conv_norm(12, 8), pooled_head(8)

    def forward(self, x):
        return self.head(self.last(self.shuffle(self.stem(x))))


@specimen(PICTURE, cut=("left.0", "right.0"))
class ShuffledThenChunked(nn.Module):
    """Each branch fills half of either chunk: both must lose as many on either side of the middle."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = conv_norm(3, 8), conv_norm(3, 8), pooled_head(6)
        self.first, self.second = conv(8, 6), conv(8, 6)

    def forward(self, x):
        first, second = shuffled(torch.cat((self.left(x), self.right(x)), dim=1), 2).chunk(2, dim=1)
        return self.head(torch.relu(self.first(first) + self.second(second)))


class _ShuffleUnits(nn.Module):
    """ShuffleNet v2: half of the channels goes by, half through a branch, then a shuffle; twice."""

    def __init__(self, half: int):
        super().__init__()
        self.stem, self.head = conv_norm(3, 2 * half), pooled_head(2 * half)
        self.branches = nn.ModuleList(
            nn.Sequential(conv_norm(half, half, 1), conv(half, half, groups=half), conv_norm(half, half, 1))
            for _ in "ab"
        )

    def forward(self, x):
        x = self.stem(x)
        for branch in self.branches:
            by, through = x.chunk(2, dim=1)
            x = shuffled(torch.cat((by, branch(through)), dim=1), 2)
        return self.head(x)


@specimen(PICTURE, cut=("stem.0", "branches.0.0.0"))
class ShuffleUnitEven(_ShuffleUnits):
    """ShuffleNet's unit with even halves (8)."""

    def __init__(self):
        super().__init__(8)


@specimen(PICTURE, cut=("branches.0.0.0",))
class ShuffleUnitOdd(_ShuffleUnits):
    """ShuffleNet's unit with odd halves (7): the shuffle mixes what the chunk cuts unevenly."""

    def __init__(self):
        super().__init__(7)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PixelShuffle(nn.Module):
    """Sub-pixel convolution: four channels become the pixels of one, and go together."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide, self.last = conv_norm(3, 8), conv(8, 24), conv_norm(6, 8)
        self.shuffle, self.out = nn.PixelShuffle(2), conv(8, 2)

    def forward(self, x):
        return self.out(self.last(self.shuffle(self.wide(self.stem(x)))))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PixelUnshuffle(nn.Module):
    """Every channel becomes four."""

    def __init__(self):
        super().__init__()
        self.stem, self.unshuffle = conv_norm(3, 8), nn.PixelUnshuffle(2)
        self.last, self.head = conv_norm(32, 8), pooled_head(8)

    def forward(self, x):
        return self.head(self.last(self.unshuffle(self.stem(x))))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class FocusSlices(nn.Module):
    """YOLOv5's Focus: four strided slices of the picture beside each other, here on features."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 6), conv_norm(24, 8), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.head(self.last(torch.cat(parts, 1)))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PatchMerging(nn.Module):
    """Swin's merging of 2x2 pixels into channels, by reshape and permute on channels-last features."""

    def __init__(self):
        super().__init__()
        self.stem, self.reduce, self.last, self.head = (
            conv_norm(3, 6),
            nn.Linear(24, 8),
            conv_norm(8, 8),
            pooled_head(8),
        )

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.head(self.last(self.reduce(x).permute(0, 3, 1, 2)))


@specimen(torch.zeros(2, 4, 3, 8, 8), cut=("stem.0", "last.0"))
class FramesInBatch(nn.Module):
    """A clip folded into the batch for 2-d layers, and unfolded again (TSM without the shift)."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        n, t, c, h, w = x.shape
        x = self.last(self.stem(x.view(n * t, c, h, w)))
        return self.head(x.mean(dim=(2, 3)).view(n, t, -1).mean(dim=1))


@specimen(torch.zeros(2, 4, 3, 8, 8), cut=("last.0",))
class TemporalShift(nn.Module):
    """TSM: an eighth of the channels moves one frame on, by writing into slices of a new tensor."""

    def __init__(self):
        super().__init__()
        self.fold = 2
        self.stem, self.last, self.head = conv_norm(3, 16), conv_norm(16, 8), pooled_head(8)

    def forward(self, x):
        n, t, c, h, w = x.shape
        x = self.stem(x.view(n * t, c, h, w)).view(n, t, -1, h, w)
        out = torch.zeros_like(x)
        out[:, :-1, : self.fold] = x[:, 1:, : self.fold]
        out[:, :, self.fold :] = x[:, :, self.fold :]
        return self.head(self.last(out.flatten(0, 1)))
