"""Shapes of the most common operations on tensors without data: most of a trace's time would go into torch's own.

Each returns None when the case is not the common one; torch then does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from secateur.graph.running import SHORTCUTS, overloads

Result = torch.Tensor | None


def _shortcut(*names: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        for name in names:
            for overload in overloads(name):
                SHORTCUTS[overload] = function
        return function

    return register


@_shortcut(
    "relu", "sigmoid", "tanh", "silu", "gelu", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "dropout"
)
def _unary(x: torch.Tensor, *args: Any, **kwargs: Any) -> Result:
    return torch.empty_like(x) if x.is_meta and x.is_floating_point() and not kwargs else None


@_shortcut(
    "relu_",
    "sigmoid_",
    "tanh_",
    "silu_",
    "hardswish_",
    "hardsigmoid_",
    "hardtanh_",
    "leaky_relu_",
    "elu_",
    "relu6_",
    "dropout_",
)
def _unary_in_place(x: torch.Tensor, *args: Any, **kwargs: Any) -> Result:
    return x if x.is_meta else None


@_shortcut("batch_norm")
def _batch_norm(x: torch.Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *args: Any) -> Result:
    fits = x.is_meta and all(tensor is None or tensor.shape[0] == x.shape[1] for tensor in (weight, bias, mean, var))
    return torch.empty_like(x) if fits else None  # without data there are no statistics to update


@_shortcut("layer_norm")
def _layer_norm(x: torch.Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, *args: Any) -> Result:
    same = tuple(x.shape[x.ndim - len(shape) :]) == tuple(shape)
    return torch.empty_like(x) if x.is_meta and same and (weight is None or weight.shape == tuple(shape)) else None


@_shortcut("conv2d.default")
def _conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Result:
    fits = x.is_meta and x.ndim == 4 and weight.is_meta and x.shape[1] == weight.shape[1] * groups
    if (
        not fits
        or weight.shape[0] % groups
        or (bias is not None and bias.shape[0] != weight.shape[0])
        or x.dtype != weight.dtype
    ):
        return None
    sizes = [
        (x.shape[2 + i] + 2 * padding[i % len(padding)] - dilation[i % len(dilation)] * (weight.shape[2 + i] - 1) - 1)
        // stride[i % len(stride)]
        + 1
        for i in range(2)
    ]
    return x.new_empty((x.shape[0], weight.shape[0], *sizes)) if min(sizes) > 0 else None


@_shortcut("linear")
def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Result:
    fits = (
        x.is_meta and weight.is_meta and weight.ndim == 2 and x.shape[-1] == weight.shape[1] and x.dtype == weight.dtype
    )
    return x.new_empty((*x.shape[:-1], weight.shape[0])) if fits else None
