"""Instance norm whose sums stay in float16's range."""

from __future__ import annotations

import math

import torch
from torch import nn

_LEAST = 2.0**-14  # the smallest normal number of float16
_SHARE = 2.0**-6  # sums of 512 numbers up to 8192 stay in float16's range


class HalfSafeInstanceNorm2d(nn.Module):
    """Instance norm (N, C, H, W) -> (N, C, H, W) whose sums stay in float16's range."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, H, W) or (C, H, W)."""
        centred = x - half_safe_mean(x)
        normalised = centred / half_safe_deviation(centred, self.eps)
        if self.weight is None:
            return normalised
        return normalised * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def half_safe_mean(x: torch.Tensor) -> torch.Tensor:
    """Return the mean over H and W of (..., H, W) as (..., 1, 1), without sums that overflow float16.

    Sums run over one dimension at a time, of values that are scaled down: right for magnitudes up to 8192 and sides up
    to 512 even where float16 is summed in float16.
    """
    return (x * _SHARE).mean(-1, keepdim=True).mean(-2, keepdim=True) / _SHARE


def half_safe_deviation(centred: torch.Tensor, eps: float) -> torch.Tensor:
    """Return sqrt(variance + eps) of values (..., H, W) of mean zero as (..., 1, 1), without overflow in float16.

    Squares are taken of ratios to the largest magnitude of their row, so that they are at most 1 and their mean at
    least 1/W: neither leaves float16's range.
    """
    floor = math.sqrt(eps)
    least = max(floor, _LEAST)
    deviation = _root_mean_square(_root_mean_square(centred, -1, least), -2, least)
    peak = deviation.clamp(min=least)
    return peak * ((deviation / peak).square() + (floor / peak).square()).sqrt()


def _root_mean_square(x: torch.Tensor, dim: int, least: float) -> torch.Tensor:
    peak = x.abs().amax(dim, keepdim=True).clamp(min=least)
    return peak * (x / peak).square().mean(dim, keepdim=True).sqrt()
