"""Channels that weigh channels: squeeze-and-excitation, attention, masks and scales."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _Gated(nn.Module):
    """Features of 12 channels times a gate."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 12), pooled_head(12)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x):
        x = self.stem(x)
        return self.head(x * self.gate(x))


@specimen(PICTURE, cut=("stem.0", "reduce", "expand"))
class SqueezeExciteConv(_Gated):
    """SE with 1x1 convolutions."""

    def __init__(self):
        super().__init__()
        self.reduce, self.expand = conv(12, 4, 1), conv(4, 12, 1)

    def gate(self, x):
        return torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))


@specimen(PICTURE, cut=("stem.0", "fc.0", "fc.2"))
class SqueezeExciteLinear(_Gated):
    """SE with linear layers, and a view by the live batch and width (MODNet)."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(12, 4, bias=False), nn.ReLU(), nn.Linear(4, 12, bias=False), nn.Sigmoid())

    def gate(self, x):
        b, c, _, _ = x.size()
        return self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1).expand_as(x)


@specimen(PICTURE, whole=("stem.0",))
class SqueezeExciteLiteral(_Gated):
    """SE whose view has the width as a number: it cannot follow a cut."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 12), nn.Sigmoid())

    def gate(self, x):
        return self.fc(x.mean((2, 3))).view(-1, 12, 1, 1)


@specimen(PICTURE, cut=("stem.0", "fc"))
class SqueezeExciteAttribute(_Gated):
    """SE whose view has the width from an attribute."""

    def __init__(self):
        super().__init__()
        self.width, self.fc = 12, nn.Linear(12, 12)

    def gate(self, x):
        return F.hardsigmoid(self.fc(x.mean((2, 3)))).view(-1, self.width, 1, 1)


@specimen(PICTURE, whole=("stem.0",), prunable=False)
class EfficientAttention(_Gated):
    """ECA: a convolution that slides along the channels, so neighbours matter and all stay."""

    def __init__(self):
        super().__init__()
        self.slide = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def gate(self, x):
        pooled = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        return torch.sigmoid(self.slide(pooled).transpose(-1, -2).unsqueeze(-1))


@specimen(PICTURE, reference="mask")
class SpatialAttention(_Gated):
    """CBAM: mean and maximum over the channels, which do change when channels leave."""

    def __init__(self):
        super().__init__()
        self.slide, self.last = conv(2, 1, 5), conv_norm(12, 12)
        self.head = nn.Sequential(self.last, pooled_head(12))

    def gate(self, x):
        return torch.sigmoid(self.slide(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)))


@specimen(PICTURE, cut=("stem.0", "a.0", "b.0", "reduce"))
class SelectiveKernel(nn.Module):
    """SKNet: a softmax over two branches, for each channel, through a stack and a view."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv_norm(3, 8), conv_norm(8, 12), conv_norm(8, 12, dilation=2, padding=2)
        self.reduce, self.select, self.head = nn.Linear(12, 6), nn.Linear(6, 24), pooled_head(12)

    def forward(self, x):
        x = self.stem(x)
        branches = torch.stack([self.a(x), self.b(x)], dim=1)
        scores = self.select(F.relu(self.reduce(branches.sum(1).mean((-1, -2)))))
        scores = torch.softmax(scores.view(x.size(0), 2, -1, 1, 1), dim=1)
        return self.head((branches * scores).sum(dim=1))


@specimen(PICTURE, cut=("stem.0",))
class GlobalContext(_Gated):
    """GCNet: a softmax over places, features summed with it by a matrix product."""

    def __init__(self):
        super().__init__()
        self.mask, self.transform = conv(12, 1, 1), conv(12, 12, 1)

    def gate(self, x):
        n, c, h, w = x.shape
        weights = self.mask(x).view(n, h * w, 1).softmax(dim=1)
        return self.transform(torch.matmul(x.view(n, c, h * w), weights).view(n, c, 1, 1))


@specimen(PICTURE, reference="mask")
class SoftmaxOverChannels(_Gated):
    """A softmax over the channels: every one divides by the sum of all."""

    def __init__(self):
        super().__init__()
        self.last = conv(12, 8)
        self.head = nn.Sequential(self.last, nn.ReLU(), pooled_head(8))

    def gate(self, x):
        return torch.softmax(x.mean((2, 3), keepdim=True), dim=1)


@specimen(PICTURE, cut=("stem.0", "rows", "columns"))
class CoordinateAttention(_Gated):
    """Pooling along each side, joined, split again by the live sizes."""

    def __init__(self):
        super().__init__()
        self.reduce, self.rows, self.columns = conv_norm(12, 6, 1), conv(6, 12, 1), conv(6, 12, 1)

    def gate(self, x):
        _, _, h, w = x.size()
        joined = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], dim=2)
        rows, columns = torch.split(self.reduce(joined), [h, w], dim=2)
        return torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.permute(0, 1, 3, 2)))


@specimen(PICTURE, cut=("stem", "last"))
class SlopePerChannel(nn.Module):
    """PReLU with a slope for each channel, and one with a single slope for all."""

    def __init__(self):
        super().__init__()
        self.stem, self.many, self.last, self.one = conv(3, 8), nn.PReLU(8), conv(8, 6), nn.PReLU()
        self.head = pooled_head(6)

    def forward(self, x):
        return self.head(self.one(self.last(self.many(self.stem(x)))))


@specimen(PICTURE, cut=("stem", "last"))
class ScaleAndShift(nn.Module):
    """Bare parameters of shape (1, C, 1, 1) and (C, 1, 1)."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv(3, 8, bias=False), conv(8, 6), pooled_head(6)
        self.scale, self.shift = nn.Parameter(torch.ones(1, 8, 1, 1)), nn.Parameter(torch.zeros(8, 1, 1))

    def forward(self, x):
        return self.head(self.last(torch.relu(self.stem(x) * self.scale + self.shift)))


@specimen(PICTURE, cut=("stem", "last"))
class MaskBuffer(nn.Module):
    """Another pruner's mask, kept as a buffer over channels and one over a weight."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv(3, 8), conv(8, 6), pooled_head(6)
        self.register_buffer("mask", torch.ones(8).view(1, 8, 1, 1))
        self.register_buffer("weight_mask", torch.ones(6, 8, 3, 3), persistent=False)

    def forward(self, x):
        x = torch.relu(self.stem(x)) * self.mask
        return self.head(F.conv2d(x, self.last.weight * self.weight_mask, self.last.bias, padding=1))


@specimen(PICTURE, cut=("value.0", "gate", "last.0"))
class GatedConvolution(nn.Module):
    """Value times gate from two convolutions, chained twice: products couple as sums do."""

    def __init__(self):
        super().__init__()
        self.value, self.gate, self.last, self.head = conv_norm(3, 8), conv(3, 8), conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        y = self.value(x) * torch.sigmoid(self.gate(x))
        return self.head(self.last(y * torch.tanh(y) / (1 + y.abs())))


@specimen(PICTURE, cut=("experts.0", "last.0"))
class MixtureOfExperts(nn.Module):
    """Every picture mixes three convolutions by a softmax over a linear layer's outputs."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(conv(3, 8) for _ in range(3))
        self.router, self.last, self.head = nn.Linear(3, 3), conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        weights = self.router(x.mean((2, 3))).softmax(-1)
        mixed = sum(weights[:, i, None, None, None] * expert(x) for i, expert in enumerate(self.experts))
        return self.head(self.last(torch.relu(mixed)))
