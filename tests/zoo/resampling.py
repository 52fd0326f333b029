"""Pooling, interpolation and other changes of size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


@specimen(PICTURE, cut=("stem.0", "second.0", "third.0"))
class EveryPooling(nn.Module):
    """Maximum, average, adaptive, power-mean pooling, ceil mode."""

    def __init__(self):
        super().__init__()
        self.stem, self.second, self.third, self.head = (
            conv_norm(3, 8),
            conv_norm(8, 10),
            conv_norm(10, 6),
            nn.Linear(6, 4),
        )

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, 2, 1, ceil_mode=True)
        x = F.avg_pool2d(self.second(x), 2, count_include_pad=False, padding=1)
        x = F.lp_pool2d(F.adaptive_max_pool2d(self.third(x), 3), 2, 2)
        return self.head(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class MaximumAndAverage(nn.Module):
    """Global maximum and average beside each other, as vectors (fastai's head)."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 10), nn.Linear(20, 4)

    def forward(self, x):
        x = self.last(self.stem(x))
        return self.head(torch.cat([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=-1))


@specimen(PICTURE, cut=("last.0",))
class UnpooledMaxima(nn.Module):
    """SegNet: the places of the maxima are kept and used on the way up."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.out = conv_norm(3, 8), conv_norm(8, 6), conv(6, 2)

    def forward(self, x):
        x, places = F.max_pool2d(self.stem(x), 2, return_indices=True)
        return self.out(self.last(F.max_unpool2d(x, places, 2)))


@specimen(PICTURE, cut=("a.0", "b.0", "c.0"))
class Interpolated(nn.Module):
    """Interpolation by size, by scale and to the size of another tensor, in several modes."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.out = conv_norm(3, 8, stride=2), conv_norm(8, 6), conv_norm(6, 6), conv(6, 2)

    def forward(self, x):
        y = F.interpolate(self.a(x), scale_factor=2, mode="bilinear", align_corners=False)
        y = F.interpolate(self.b(y), size=(8, 8), mode="bicubic", align_corners=True)
        return self.out(F.interpolate(self.c(y), size=x.shape[2:], mode="nearest"))


@specimen(PICTURE, cut=("layers.0", "layers.3", "layers.5"))
class UpsampleModules(nn.Module):
    """Upsampling as modules; `size` and `scale_factor` are attributes that have nothing to do with channels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, 8), nn.ReLU(), nn.Upsample(scale_factor=2), conv(8, 8), nn.Upsample(size=8, mode="bilinear"),
            conv(8, 6), nn.UpsamplingBilinear2d(scale_factor=2), conv(6, 2),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


@specimen(PICTURE, cut=("last.0",))
class SampledGrid(nn.Module):
    """Features moved by a flow field that a convolution predicts."""

    def __init__(self):
        super().__init__()
        self.stem, self.flow, self.last, self.out = conv_norm(3, 8), conv(8, 2), conv_norm(8, 6), conv(6, 2)

    def forward(self, x):
        x = self.stem(x)
        grid = torch.tanh(self.flow(x)).permute(0, 2, 3, 1)
        return self.out(self.last(F.grid_sample(x, grid, align_corners=False)))


@specimen(PICTURE, cut=("a.0", "b.0", "lateral.0", "lateral.1"))
class FeaturePyramid(nn.Module):
    """FPN: lateral 1x1 convolutions, a sum on the way down, a shared head on every level."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv_norm(3, 8, stride=2), conv_norm(8, 12, stride=2)
        self.lateral, self.head = nn.ModuleList([conv(8, 6, 1), conv(12, 6, 1)]), conv(6, 2)

    def forward(self, x):
        low = self.a(x)
        top = self.lateral[1](self.b(low))
        mid = self.lateral[0](low) + F.interpolate(top, size=low.shape[-2:], mode="nearest")
        return [self.head(mid), self.head(top), F.max_pool2d(self.head(top), 1, 2)]


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PaddedAndCropped(nn.Module):
    """Padding by reflection and zeros, a crop and a flip, all of the picture's sides."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        x = F.pad(F.pad(self.stem(x), (2, 2, 2, 2), mode="reflect"), (1, 0, 0, 1))
        return self.head(self.last(x[:, :, 1:-2, 2:].flip(-1)))


@specimen(PICTURE, cut=("last.0",))
class BlurPooling(nn.Module):
    """Anti-aliased pooling: a fixed filter buffer, repeated to the live width in forward."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3) / 9)

    def forward(self, x):
        x = self.stem(x)
        kernel = self.kernel.expand(x.shape[1], 1, 3, 3)
        return self.head(self.last(F.conv2d(x, kernel, stride=2, groups=x.shape[1])))


@specimen(PICTURE)
class BlurPoolingFixed(nn.Module):
    """The same with one filter a channel in a buffer and the count in an attribute."""

    def __init__(self):
        super().__init__()
        self.channels = 8
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        self.register_buffer("kernel", torch.ones(8, 1, 3, 3) / 9)

    def forward(self, x):
        x = F.conv2d(self.stem(x), self.kernel, stride=2, groups=self.channels)
        return self.head(self.last(x))
