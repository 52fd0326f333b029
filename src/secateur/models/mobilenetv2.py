"""MobileNetV2 (Sandler et al., arXiv 1801.04381): the classifier, and MODNet's backbone."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from secateur.models.initialization import initialize
from secateur.models.nestings import Nesting

STAGES = (  # expansion, channels, blocks, stride of the first block: table 2 of the paper
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TAPS = (1, 3, 6, 13, 18)  # the last features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size

TORCHVISION = Nesting(
    "torchvision",
    (
        (r"features\.1\.conv\.0\.(\d)\.", r"features.1.conv.\1."),
        (r"features\.1\.conv\.1\.", "features.1.conv.3."),
        (r"features\.1\.conv\.2\.", "features.1.conv.4."),
        (r"features\.(\d+)\.conv\.0\.(\d)\.", r"features.\1.conv.\2."),
        (r"features\.(\d+)\.conv\.1\.0\.", r"features.\1.conv.3."),
        (r"features\.(\d+)\.conv\.1\.1\.", r"features.\1.conv.4."),
        (r"features\.(\d+)\.conv\.2\.", r"features.\1.conv.6."),
        (r"features\.(\d+)\.conv\.3\.", r"features.\1.conv.7."),
        (r"classifier\.1\.", "classifier."),
    ),
)


class MobileNetV2(nn.Module):
    """Inverted residual blocks with depthwise convolutions: images (N, in_channels, H, W) in, scores out.

    `width` scales every layer, to multiples of 8. Without classes (`num_classes=None`) it returns the last feature map.

    Example:
        >>> MobileNetV2(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    nestings: ClassVar[tuple[Nesting, ...]] = (TORCHVISION,)

    def __init__(self, in_channels: int = 3, width: float = 1.0, num_classes: int | None = 1000) -> None:
        super().__init__()
        self.arguments = {"in_channels": in_channels, "width": width, "num_classes": num_classes}
        channels = rounded(32 * width)
        blocks: list[nn.Module] = [convolution(in_channels, channels, 3, stride=2)]
        for expansion, stage_channels, count, stride in STAGES:
            out_channels = rounded(stage_channels * width)
            for place in range(count):
                blocks.append(InvertedResidual(channels, out_channels, stride if place == 0 else 1, expansion))
                channels = out_channels
        last_channels = rounded(1280 * max(1.0, width))
        blocks.append(convolution(channels, last_channels, 1))
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(last_channels, num_classes) if num_classes is not None else None
        initialize(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores (N, num_classes), or without classes the last feature map (N, C, H/32, W/32)."""
        features = self.features(images)
        if self.classifier is None:
            return features
        return self.classifier(self.dropout(features.mean((2, 3))))

    def taps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size: 16, 24, 32, 96, 1280 channels."""
        taps = []
        x = images
        for place, block in enumerate(self.features):
            x = block(x)
            if place in TAPS:
                taps.append(x)
        return tuple(taps)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; the input is added where the shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = convolution(in_channels, hidden, 1) if expansion > 1 else ()
        self.conv = nn.Sequential(
            *expand,
            *convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size but for the stride, with batch norm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


def rounded(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8, and no more than a tenth below.

    Example:
        >>> rounded(32 * 0.35), rounded(24 * 0.75)
        (16, 24)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
