"""Weights that the forward computes: standardised, bounded, mixed from experts, made by another network, fixed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _Two(nn.Module):
    """A stem, two layers of a special kind, a plain one."""

    def __init__(self, kind):
        super().__init__()
        self.stem, self.first, self.second = conv_norm(3, 8), kind(8, 10), kind(10, 8)
        self.last, self.head = conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        return self.head(self.last(torch.relu(self.second(torch.relu(self.first(self.stem(x)))))))


class ScaledStandardizedConv2d(nn.Conv2d):
    """Weight standardisation by batch norm over the flattened weight, with a gain for each filter."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain, self.scale = nn.Parameter(torch.ones(outputs, 1, 1, 1)), (inputs * 9) ** -0.5

    def forward(self, x):
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, (self.gain * self.scale).view(-1), training=True
        ).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


@specimen(PICTURE, cut=("last.0",), reference="mask")
class ScaledStandardization(_Two):
    """NFNet: the number of outputs in a view, statistics over all inputs, a gain."""

    def __init__(self):
        super().__init__(ScaledStandardizedConv2d)


class DemeanedConv2d(nn.Conv2d):
    """Weight standardisation in several steps, as in Detectron: means of means, the deviation of a view."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x):
        weight = self.weight
        mean = weight.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        weight = weight - mean
        deviation = weight.view(weight.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(x, weight / deviation.expand_as(weight), self.bias, padding=1)


@specimen(PICTURE, cut=("last.0",), reference="mask")
class DemeanedWeights(_Two):
    """Weight standardisation written out over dimension after dimension."""

    def __init__(self):
        super().__init__(DemeanedConv2d)


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees no place behind its own (PixelCNN)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1)
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 2:], mask[:, :, 2:] = 0, 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)


@specimen(PICTURE, cut=("stem.0", "first", "last.0"))
class MaskedKernels(_Two):
    """A mask buffer as large as the weight, multiplied in every forward."""

    def __init__(self):
        super().__init__(MaskedConv2d)


class DifferenceConv2d(nn.Conv2d):
    """Central differences: the sum of the kernel, as a 1x1 convolution, is taken off."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x):
        centre = self.weight.sum(dim=(2, 3), keepdim=True)
        return super().forward(x) - 0.7 * F.conv2d(x, centre)


@specimen(PICTURE, cut=("stem.0", "first", "last.0"))
class CentralDifference(_Two):
    """One weight is used twice, once as its own sum."""

    def __init__(self):
        super().__init__(DifferenceConv2d)


class LowRankConv2d(nn.Conv2d):
    """A plain weight plus a product of two thin ones (LoRA)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)
        self.down, self.up = nn.Parameter(torch.randn(3, inputs)), nn.Parameter(torch.randn(outputs, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight + (self.up @ self.down).view(self.weight.shape), self.bias)


@specimen(PICTURE, cut=("stem.0", "first", "last.0"))
class LowRankUpdate(_Two):
    """Adapters: the weight is a sum, and the rank between the thin factors is a width, too."""

    def __init__(self):
        super().__init__(LowRankConv2d)


class ConditionalConv2d(nn.Module):
    """CondConv: kernels mixed for each picture from three experts, applied as one grouped convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.experts, self.route = nn.Parameter(torch.randn(3, outputs, inputs, 3, 3)), nn.Linear(inputs, 3)

    def forward(self, x):
        n, c, h, w = x.shape
        weights = self.route(x.mean((2, 3))).sigmoid()
        kernels = torch.einsum("ne,eoihw->noihw", weights, self.experts).flatten(0, 1)
        return F.conv2d(x.reshape(1, n * c, h, w), kernels, padding=1, groups=n).view(n, -1, h, w)


@specimen(PICTURE, cut=("last.0",))
class ConditionalKernels(_Two):
    """The batch becomes groups of one convolution whose weights were mixed on the spot."""

    def __init__(self):
        super().__init__(ConditionalConv2d)


@specimen(PICTURE, cut=("stem.0", "experts.0", "last.0"))
class DynamicConvolution(nn.Module):
    """Dynamic convolution: attention over four 1x1 weights, mixed for the whole batch."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(10, 6), pooled_head(6)
        self.experts, self.route = nn.ModuleList(conv(8, 10, 1, bias=False) for _ in range(4)), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        shares = self.route(x.mean((0, 2, 3))).softmax(-1)
        weight = sum(share * expert.weight for share, expert in zip(shares, self.experts, strict=True))
        return self.head(self.last(torch.relu(F.conv2d(x, weight))))


@specimen(PICTURE, cut=("last.0",), whole=("maker", "stem.0"))
class Hypernetwork(nn.Module):
    """All weights of a convolution come from a linear layer, by a view in numbers."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 4), conv_norm(6, 6), pooled_head(6)
        self.code, self.maker = nn.Parameter(torch.randn(5)), nn.Linear(5, 6 * 4 * 9)

    def forward(self, x):
        weight = self.maker(self.code).view(6, 4, 3, 3)
        return self.head(self.last(torch.relu(F.conv2d(self.stem(x), weight, padding=1))))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class FilterBank(nn.Module):
    """Fixed filters (Sobel, both ways) in a buffer, expanded to the live width and used in groups."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
        self.register_buffer("filters", torch.stack([sobel, sobel.t()]).unsqueeze(1))

    def forward(self, x):
        x = self.stem(x)
        across, down = (
            F.conv2d(x, self.filters[i : i + 1].expand(x.shape[1], -1, -1, -1), padding=1, groups=x.shape[1])
            for i in range(2)
        )
        return self.head(self.last((across.square() + down.square() + 1e-6).sqrt()))


@specimen(PICTURE, cut=("last.0",))
class FixedProjection(nn.Module):
    """A fixed random projection in a buffer, used as the weight of a linear layer: it is cut as one."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(10, 6), pooled_head(6)
        self.register_buffer("projection", torch.randn(10, 8))

    def forward(self, x):
        x = F.linear(self.stem(x).movedim(1, -1), self.projection).movedim(-1, 1)
        return self.head(self.last(torch.relu(x)))


@specimen(PICTURE, cut=("stem.0", "gate.0", "last.0"))
class FixedCosines(nn.Module):
    """FcaNet: every channel is pooled with a cosine of its own, from a buffer."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        self.gate = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())
        places = torch.arange(12) + 0.5
        self.register_buffer(
            "cosines", torch.stack([torch.outer(torch.cos(k * places), places.cos()) for k in range(8)])
        )

    def forward(self, x):
        x = self.stem(x)
        gate = self.gate((x * self.cosines).sum(dim=[2, 3]))
        return self.head(self.last(x * gate.view(*gate.shape, 1, 1)))


@specimen(torch.zeros(3, 4), cut=("hidden",))
class FourierFeatures(nn.Module):
    """Random Fourier features of the input: sines and cosines beside each other, by a buffer of frequencies."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(4, 8))
        self.hidden, self.out = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x):
        phases = x @ self.frequencies
        return self.out(torch.relu(self.hidden(torch.cat([phases.sin(), phases.cos()], dim=-1))))


@specimen((PICTURE, torch.tensor([3.0, 40.0])), cut=("stem.0", "time.0", "last.0"))
class TimeStep(nn.Module):
    """Diffusion: a sinusoidal embedding of the time goes through two layers and shifts the features."""

    def __init__(self):
        super().__init__()
        self.dims, self.stem, self.last, self.head = 6, conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        self.time = nn.Sequential(nn.Linear(6, 12), nn.SiLU(), nn.Linear(12, 16))

    def forward(self, x, time):
        half = self.dims // 2
        rates = torch.exp(-torch.arange(half, device=x.device, dtype=x.dtype) * 4.0 / half)
        angles = time[:, None].to(x.dtype) * rates[None]
        scale, shift = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1))[:, :, None, None].chunk(2, dim=1)
        return self.head(self.last(self.stem(x) * (1 + scale) + shift))
