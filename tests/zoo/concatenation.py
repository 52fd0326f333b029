"""Concatenations: growth, skips, images and constants beside channels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


@specimen(PICTURE, cut=("stem", "layers.0.2", "layers.2.2"))
class DenseGrowth(nn.Module):
    """DenseNet: every layer reads all before it, with its own norm over the concatenation."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 8), pooled_head(20)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 4 * i), nn.ReLU(), conv(8 + 4 * i, 4)) for i in range(3)
        )

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.head(torch.cat(features, 1))


@specimen(PICTURE, cut=("a.0", "b.0"))
class CatWithPicture(nn.Module):
    """The picture in the middle of a concatenation: its columns stay, and shift."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.last, self.head = conv_norm(3, 6), conv_norm(3, 8), conv_norm(17, 8), pooled_head(8)

    def forward(self, x):
        return self.head(self.last(torch.cat([self.a(x), x, self.b(x)], dim=1)))


@specimen(PICTURE, cut=("down1.0", "down2.0", "up", "last.0"))
class SmallUNet(nn.Module):
    """A U-Net: skips joined by concatenation, transposed convolution on the way up."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv_norm(3, 8), conv_norm(8, 16)
        self.up, self.last, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), conv_norm(16, 8), conv(8, 2, 1)

    def forward(self, x):
        skip = self.down1(x)
        x = self.up(self.down2(F.max_pool2d(skip, 2)))
        return self.out(self.last(torch.cat([x, skip], dim=1)))


@specimen(PICTURE, cut=("stem.0",))
class CatWithItself(nn.Module):
    """The same channels twice: each unit owns two columns of the next layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(16, 8), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(torch.cat([x, -x], dim=1)))


@specimen(PICTURE, cut=("last.0",))
class CatWithOnes(nn.Module):
    """Constant channels beside labelled ones; how many of them follows the live width."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(10, 8), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(torch.cat([x, x.new_ones(x.shape[0], 2, *x.shape[2:])], dim=1)))


@specimen(PICTURE, cut=("stem.0", "a.0", "b.0"))
class InceptionBlock(nn.Module):
    """Four branches, two with a depth of their own, joined and normalised together."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv_norm(3, 8), conv_norm(8, 4, 1), conv_norm(8, 6)
        self.c, self.norm, self.head = (
            nn.Sequential(conv_norm(8, 4, 1), conv_norm(4, 6, 5)),
            nn.BatchNorm2d(24),
            pooled_head(24),
        )

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.norm(torch.cat((self.a(x), self.b(x), self.c(x), F.max_pool2d(x, 3, 1, 1)), 1)))


@specimen(PICTURE, cut=("stem.0",))
class CatAlongHeight(nn.Module):
    """Concatenation along the picture's height: the channels of both parts go together."""

    def __init__(self):
        super().__init__()
        self.stem, self.side, self.last, self.head = conv_norm(3, 8), conv(3, 8), conv_norm(8, 8), pooled_head(8)

    def forward(self, x):
        return self.head(self.last(torch.cat([self.stem(x), self.side(x)], dim=-2)))


@specimen(PICTURE, cut=("stem.0", "wide.0"))
class CatIntoDepthwise(nn.Module):
    """A concatenation read by a depthwise convolution, whose groups come from two layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = conv_norm(3, 6), conv_norm(6, 10)
        self.depthwise, self.head = conv(16, 16, groups=16), pooled_head(16)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.depthwise(torch.cat([x, self.wide(x)], 1)))


@specimen(PICTURE, cut=("small.0", "large.0"))
class GhostModule(nn.Module):
    """GhostNet: half of the channels are cheap copies, surplus ones sliced off by an attribute."""

    def __init__(self):
        super().__init__()
        self.oup = 12
        self.small, self.large = conv_norm(3, 6, 1), conv_norm(6, 6, groups=6)
        self.head = pooled_head(12)

    def forward(self, x):
        x = self.small(x)
        return self.head(torch.cat([x, self.large(x)], dim=1)[:, : self.oup])


@specimen(PICTURE, cut=("branches.0", "branches.3", "project.0"))
class AtrousPyramid(nn.Module):
    """DeepLab's ASPP: dilated branches and a pooled one resized to the live size."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(
            [conv(3, 6, 1), *(conv(3, 6, padding=r, dilation=r) for r in (1, 2)), conv(3, 6, 1)]
        )
        self.project, self.out = conv_norm(24, 8, 1), conv(8, 2, 1)

    def forward(self, x):
        *spatial, pooled = self.branches
        wide = F.interpolate(
            pooled(F.adaptive_avg_pool2d(x, 1)), size=x.shape[-2:], mode="bilinear", align_corners=False
        )
        return self.out(self.project(torch.cat([*(branch(x) for branch in spatial), wide], dim=1)))
