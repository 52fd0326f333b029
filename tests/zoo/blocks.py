"""Parts that the little models are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PICTURE = torch.zeros(2, 3, 12, 12)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size of the picture."""
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": kernel // 2, **options})


def conv_norm(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(conv(inputs, outputs, kernel, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU())


def pooled_head(inputs: int, outputs: int = 4) -> nn.Sequential:
    """Global average and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))
