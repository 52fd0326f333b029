"""Norms: batch, instance, layer, group, local response; with statistics across channels or not."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _Normed(nn.Module):
    """A norm between two convolutions."""

    def __init__(self, norm: nn.Module, channels: int = 8):
        super().__init__()
        self.first, self.norm, self.second, self.head = conv(3, channels), norm, conv(channels, 8), pooled_head(8)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))))


@specimen(PICTURE, cut=("first", "second"))
class BatchNormPlain(_Normed):
    """Batch norm with statistics but neither scale nor shift."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d(8, affine=False))


@specimen(PICTURE, cut=("first", "second"))
class BatchNormLive(_Normed):
    """Batch norm that keeps no running statistics: it uses the batch's, in eval mode too."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d(8, track_running_stats=False))


@specimen(PICTURE, cut=("first", "second"))
class InstanceNormPlain(_Normed):
    """Instance norm without affine: no tensor tells its width, only `num_features` does."""

    def __init__(self):
        super().__init__(nn.InstanceNorm2d(8))


@specimen(PICTURE, cut=("first", "second"))
class InstanceNormAffine(_Normed):
    """Instance norm with affine: its weight is repeated over the batch before it meets the features."""

    def __init__(self):
        super().__init__(nn.InstanceNorm2d(8, affine=True))


@specimen(PICTURE, cut=("first", "second"))
class InstanceNormTracked(_Normed):
    """Instance norm with running statistics."""

    def __init__(self):
        super().__init__(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))


@specimen(PICTURE, cut=("first", "second"))
class GroupNormFour(_Normed):
    """Group norm: four groups of four, each with statistics of its own."""

    def __init__(self):
        super().__init__(nn.GroupNorm(4, 16), 16)


@specimen(PICTURE, cut=("first", "second"))
class GroupNormOne(_Normed):
    """One group over all channels (PoolFormer)."""

    def __init__(self):
        super().__init__(nn.GroupNorm(1, 8))


@specimen(PICTURE, cut=("second",), reference="mask")
class GroupNormPlain(_Normed):
    """Group norm without affine."""

    def __init__(self):
        super().__init__(nn.GroupNorm(2, 8, affine=False))


@specimen(PICTURE, cut=("first", "second"))
class GroupNormEach(_Normed):
    """As many groups as channels: instance norm by another name."""

    def __init__(self):
        super().__init__(nn.GroupNorm(8, 8))


@specimen(PICTURE, cut=("second",))
class LayerNormVolume(_Normed):
    """Layer norm over (C, H, W): its weight has three dimensions."""

    def __init__(self):
        super().__init__(nn.LayerNorm((8, 12, 12)))


@specimen(PICTURE, cut=("second",), reference="mask")
class LocalResponse(_Normed):
    """AlexNet's local response norm: neighbours along the channels divide each other."""

    def __init__(self):
        super().__init__(nn.LocalResponseNorm(3))


@specimen(PICTURE, cut=("stem", "expand", "project", "down.1"))
class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, channels-last linear layers between permutes, a layer scale, a norm that leads a downsampler."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise, self.norm = conv(3, 8), conv(8, 8, 7, groups=8), nn.LayerNorm(8)
        self.expand, self.project, self.scale = nn.Linear(8, 32), nn.Linear(32, 8), nn.Parameter(torch.ones(8))
        self.down, self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12)), nn.Linear(12, 4)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.project(F.gelu(self.expand(y)))
        return self.head(self.down((x + y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).mean(dim=(1, 2)))


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a picture, as torchvision writes it."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


@specimen(PICTURE, cut=("first", "second"))
class LayerNormPicture(_Normed):
    """A subclass of LayerNorm whose `normalized_shape` is a tuple attribute to rewrite."""

    def __init__(self):
        super().__init__(LayerNorm2d(8))


class HandmadeNorm(nn.Module):
    """Layer norm written out, as the ConvNeXt authors did: a mean over channels, a parameter, an offset."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        centred = x - x.mean(1, keepdim=True)
        x = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


@specimen(PICTURE, cut=("second",), reference="mask")
class HandmadeLayerNorm(_Normed):
    """A norm that no module names: mean over channels, and parameters indexed with None."""

    def __init__(self):
        super().__init__(HandmadeNorm(8))


class HalfNorm(nn.Module):
    """IBNorm: half batch norm, half instance norm; the bound is an attribute."""

    def __init__(self, channels: int):
        super().__init__()
        self.batch_channels = channels // 2
        self.instance_channels = channels - self.batch_channels
        self.batch, self.instance = nn.BatchNorm2d(self.batch_channels), nn.InstanceNorm2d(self.instance_channels)

    def forward(self, x):
        batch = self.batch(x[:, : self.batch_channels, ...].contiguous())
        return torch.cat((batch, self.instance(x[:, self.batch_channels :, ...].contiguous())), 1)


@specimen(PICTURE, cut=("first", "second"))
class InstanceBatchNorm(_Normed):
    """MODNet's norm: two groups in one convolution, an attribute between them."""

    def __init__(self):
        super().__init__(HalfNorm(12), 12)


@specimen(PICTURE, cut=("second",), reference="mask")
class UnitLengthFeatures(_Normed):
    """`F.normalize` along the channels: each is divided by the length of all."""

    def __init__(self):
        super().__init__(nn.Identity())

    def forward(self, x):
        return self.head(self.second(F.normalize(self.first(x), dim=1)))


@specimen(PICTURE, cut=("stem.0",))
class AdaptiveInstanceNorm(nn.Module):
    """AdaIN: scale and shift come from a linear layer, chunked in two, not from parameters."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.style, self.last = (
            conv_norm(3, 8),
            nn.InstanceNorm2d(8),
            nn.Linear(3, 16),
            conv(8, 2),
        )

    def forward(self, x):
        scale, shift = self.style(x.mean(dim=(2, 3))).chunk(2, dim=1)
        x = self.norm(self.stem(x))
        return self.last((1 + scale[:, :, None, None]) * x + shift[:, :, None, None])


@specimen(torch.zeros(4, 10), cut=("layers.0", "layers.3"))
class Perceptron(nn.Module):
    """Linear layers with BatchNorm1d and a LayerNorm on plain vectors."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 12),
            nn.LayerNorm(12),
            nn.GELU(),
            nn.Linear(12, 3),
        )

    def forward(self, x):
        return self.layers(x)
