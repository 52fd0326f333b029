"""Convolutions of every kind: depthwise, grouped, transposed, 1-d, 3-d, dilated, padded."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


@specimen(PICTURE, cut=("stem.0", "expand.0", "depthwise.0", "project.0"))
class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand and depthwise are one group, projection and stem another."""

    def __init__(self):
        super().__init__()
        self.stem, self.expand, self.depthwise = conv_norm(3, 8), conv_norm(8, 24, 1), conv_norm(24, 24, groups=24)
        self.project, self.head = nn.Sequential(conv(24, 8, 1, bias=False), nn.BatchNorm2d(8)), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.project(self.depthwise(self.expand(x))))


@specimen(PICTURE, cut=("stem.0",))
class DepthMultiplier(nn.Module):
    """A depthwise convolution with two filters a channel: with the channel both go."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise, self.last, self.head = (
            conv_norm(3, 8),
            conv_norm(8, 16, groups=8),
            conv(16, 6),
            pooled_head(6),
        )

    def forward(self, x):
        return self.head(self.last(self.depthwise(self.stem(x))))


@specimen(PICTURE, cut=("stem.0", "grouped.0"))
class GroupedConvolution(nn.Module):
    """Four groups of inputs and outputs: each keeps as many as the others."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped, self.head = conv_norm(3, 16), conv_norm(16, 24, groups=4), pooled_head(24)

    def forward(self, x):
        return self.head(self.grouped(self.stem(x)))


@specimen(PICTURE, cut=("stem.0", "reduce.0", "grouped.0", "expand.0"))
class ResNeXtBlock(nn.Module):
    """Cardinality 4 inside a residual: the groups' equal counts must not bind the stream."""

    def __init__(self):
        super().__init__()
        self.stem, self.reduce, self.grouped = conv_norm(3, 12), conv_norm(12, 16, 1), conv_norm(16, 16, groups=4)
        self.expand, self.head = conv_norm(16, 12, 1), pooled_head(12)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.expand(self.grouped(self.reduce(x))))


@specimen(PICTURE, cut=("last.0",))
class GroupedStream(nn.Module):
    """Two grouped convolutions with different numbers of groups (2 and 3) on one stream of 12."""

    def __init__(self):
        super().__init__()
        self.stem, self.two, self.three = conv_norm(3, 12), conv(12, 12, groups=2), conv(12, 12, groups=3)
        self.last, self.head = conv_norm(12, 8), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(x + self.two(x) + self.three(torch.relu(x))))


@specimen(PICTURE, cut=("a.0", "b.0"))
class GroupedAfterCat(nn.Module):
    """The groups of a convolution do not fall together with the parts of the concatenation before it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.grouped, self.head = (
            conv_norm(3, 6),
            conv_norm(3, 10),
            conv(16, 8, groups=2),
            pooled_head(8),
        )

    def forward(self, x):
        return self.head(torch.relu(self.grouped(torch.cat([self.a(x), self.b(x)], 1))))


@specimen(PICTURE, cut=("stem.0", "up", "last.0"))
class TransposedConvolution(nn.Module):
    """Its weight has inputs first, outputs second."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = conv_norm(3, 8), nn.ConvTranspose2d(8, 10, 4, stride=2, padding=1)
        self.last, self.out = conv_norm(10, 6), conv(6, 2)

    def forward(self, x):
        return self.out(self.last(torch.relu(self.up(self.stem(x)))))


@specimen(PICTURE, cut=("stem.0", "up", "last.0"))
class GroupedTransposed(nn.Module):
    """A transposed convolution in groups: rows are inputs of all groups, columns the outputs of one."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = conv_norm(3, 12), nn.ConvTranspose2d(12, 20, 3, stride=2, groups=4)
        self.last, self.out = conv_norm(20, 6), conv(6, 2)

    def forward(self, x):
        return self.out(self.last(torch.relu(self.up(self.stem(x)))))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class DepthwiseTransposed(nn.Module):
    """Learnt upsampling, one filter a channel."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = conv_norm(3, 8), nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8, bias=False)
        self.last, self.out = conv_norm(8, 6), conv(6, 2)

    def forward(self, x):
        return self.out(self.last(self.up(self.stem(x))))


@specimen(torch.zeros(2, 3, 20), cut=("layers.0", "layers.3", "up"))
class SignalNetwork(nn.Module):
    """One dimension: convolution, norm, pooling, transposed convolution."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 12, 3, stride=2)
        )
        self.up, self.out = nn.ConvTranspose1d(12, 8, 4, stride=2), nn.Conv1d(8, 2, 1)

    def forward(self, x):
        return self.out(self.up(F.max_pool1d(self.layers(x), 2)))


@specimen(torch.zeros(2, 2, 6, 8, 8), cut=("stem.0", "depthwise", "last"))
class VolumeNetwork(nn.Module):
    """Three dimensions: convolution, depthwise, norm, pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.depthwise, self.last, self.head = nn.Conv3d(8, 8, 3, groups=8), nn.Conv3d(8, 6, 1), nn.Linear(6, 3)

    def forward(self, x):
        x = self.last(F.avg_pool3d(self.depthwise(self.stem(x)), 2))
        return self.head(F.adaptive_avg_pool3d(torch.relu(x), 1).flatten(1))


@specimen(PICTURE, cut=("layers.0", "layers.2", "layers.4", "layers.6"))
class OddKernels(nn.Module):
    """Dilation, stride, kernels that are not square, 'same', reflected and circular padding."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, (1, 7), padding=(0, 3)), nn.ReLU(),
            nn.Conv2d(8, 10, 3, dilation=2, padding="same", bias=False), nn.ReLU(),
            nn.Conv2d(10, 8, 3, stride=(2, 1), padding=1, padding_mode="reflect"), nn.ReLU(),
            nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        )  # fmt: skip
        self.head = pooled_head(6)

    def forward(self, x):
        return self.head(self.layers(x))


@specimen(PICTURE, cut=("stem.0", "branches.0", "last.0"))
class ManyDilations(nn.Module):
    """Branches of one shape, each with its own dilation, summed in a running total (ESPNet)."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 6), conv_norm(18, 8), pooled_head(8)
        self.branches = nn.ModuleList(conv(6, 6, dilation=d, padding=d) for d in (1, 2, 3))

    def forward(self, x):
        x = self.stem(x)
        outputs = [branch(x) for branch in self.branches]
        for i in range(1, len(outputs)):
            outputs[i] = outputs[i] + outputs[i - 1]
        return self.head(self.last(torch.cat(outputs, dim=1)))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class UnfoldedConvolution(nn.Module):
    """A convolution by hand: windows by unfold, then a linear layer over channel times window."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.last, self.head = (
            conv_norm(3, 6),
            nn.Linear(6 * 9, 8),
            conv_norm(8, 6),
            pooled_head(6),
        )

    def forward(self, x):
        n, _, h, w = x.shape
        windows = F.unfold(self.stem(x), 3, padding=1).transpose(1, 2)
        return self.head(self.last(self.inner(windows).transpose(1, 2).reshape(n, -1, h, w)))


@specimen(torch.zeros(3, 10, 10), cut=("first", "second"))
class WithoutBatch(nn.Module):
    """A picture without a batch dimension: channels are the first."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = conv(3, 8), conv(8, 6), conv(6, 2)

    def forward(self, x):
        return self.out(torch.relu(self.second(torch.relu(self.first(x)))))
