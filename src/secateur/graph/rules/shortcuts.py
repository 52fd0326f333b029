"""Shapes of the most common operations on tensors without data: most of a trace's time would go into torch's own.

Each returns None when the case is not the common one; torch then does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from secateur.graph.registry import SHORTCUTS, overloads

Result = torch.Tensor | None

META = torch.device("meta")
ELEMENTWISE = (
    "relu", "sigmoid", "tanh", "silu", "gelu", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "mish",
    "dropout",
)  # fmt: skip
IN_PLACE = (
    "relu_", "sigmoid_", "tanh_", "silu_", "gelu_", "hardswish_", "hardsigmoid_", "hardtanh_", "leaky_relu_", "elu_",
    "mish_", "relu6_", "dropout_",
)  # fmt: skip
ARITHMETIC = ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor")
ARITHMETIC_IN_PLACE = ("add_.Tensor", "sub_.Tensor", "mul_.Tensor")


def _shortcut(*names: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        for name in names:
            for overload in overloads(name):
                SHORTCUTS[overload] = function
        return function

    return register


def _like(x: torch.Tensor) -> torch.Tensor:
    return _made(x, x.shape) if x.is_contiguous() else torch.empty_like(x)


def _made(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return torch.empty(shape, dtype=x.dtype, device=META)


# -- element by element ----------------------------------------------------------------------------------------------


@_shortcut(*ELEMENTWISE)
def _unary(x: torch.Tensor, *args: Any, **kwargs: Any) -> Result:
    return _like(x) if x.is_meta and x.is_floating_point() and kwargs.keys() <= {"approximate"} else None


@_shortcut("roll", "softmax.int")
def _moved(x: torch.Tensor, *args: Any, **kwargs: Any) -> Result:
    return _made(x, x.shape) if x.is_meta and x.is_contiguous() and len(args) + len(kwargs) < 3 else None


@_shortcut(*IN_PLACE)
def _unary_in_place(x: torch.Tensor, *args: Any, **kwargs: Any) -> Result:
    return x if x.is_meta else None


@_shortcut(*ARITHMETIC)
def _binary(a: torch.Tensor, b: Any, **kwargs: Any) -> Result:
    if not (a.is_meta and a.is_floating_point() and a.is_contiguous()):
        return None
    if isinstance(b, torch.Tensor):
        fits = b.is_meta and b.dtype == a.dtype and b.is_contiguous()
        shape = _broadcast(a.shape, b.shape) if fits else None
        return None if shape is None else _made(a, shape)
    return _made(a, a.shape) if isinstance(b, (int, float)) else None


@_shortcut(*ARITHMETIC_IN_PLACE)
def _binary_in_place(a: torch.Tensor, b: Any, **kwargs: Any) -> Result:
    if isinstance(b, torch.Tensor):
        fits = a.is_meta and b.is_meta and a.dtype == b.dtype and _broadcast(a.shape, b.shape) == a.shape
        return a if fits else None
    return a if a.is_meta and isinstance(b, int) else None


def _broadcast(one: Sequence[int], other: Sequence[int]) -> Sequence[int] | None:
    """Return the shape of two operands of which one is as large as the result."""
    if one == other:
        return one
    large, small = (one, other) if len(one) >= len(other) else (other, one)
    if len(one) == len(other) and any(a < b for a, b in zip(one, other, strict=True)):
        large, small = small, large
    pairs = zip(large[len(large) - len(small) :], small, strict=True)
    return large if all(b in (a, 1) for a, b in pairs) else None


# -- layers ----------------------------------------------------------------------------------------------------------


@_shortcut("batch_norm")
def _batch_norm(x: torch.Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *args: Any) -> Result:
    channels = x.shape[1] if x.ndim > 1 else 0
    fits = x.is_meta and all(tensor is None or tensor.shape[0] == channels for tensor in (weight, bias, mean, var))
    return _like(x) if fits else None  # without data there are no statistics to update


@_shortcut("layer_norm")
def _layer_norm(x: torch.Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, *args: Any) -> Result:
    same = tuple(x.shape[x.ndim - len(shape) :]) == tuple(shape)
    return _like(x) if x.is_meta and same and (weight is None or weight.shape == tuple(shape)) else None


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
    if not (x.is_meta and x.ndim == 4 and weight.is_meta and x.dtype == weight.dtype):
        return None
    batch, channels, *positions = x.shape
    outputs, inputs, *kernel = weight.shape
    if channels != inputs * groups or outputs % groups or (bias is not None and bias.shape[0] != outputs):
        return None
    sizes = _windows(positions, kernel, stride, padding, dilation)
    return _made(x, (batch, outputs, *sizes)) if min(sizes) > 0 else None


def _windows(
    positions: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Return how many windows fit along each of two dimensions."""
    return [
        (
            positions[at]
            + 2 * padding[at % len(padding)]
            - dilation[at % len(dilation)] * (kernel[at % len(kernel)] - 1)
            - 1
        )
        // stride[at % len(stride)]
        + 1
        for at in range(2)
    ]


@_shortcut("linear")
def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Result:
    fits = (
        x.is_meta and weight.is_meta and weight.ndim == 2 and x.shape[-1] == weight.shape[1] and x.dtype == weight.dtype
    )
    return _made(x, (*x.shape[:-1], weight.shape[0])) if fits else None


@_shortcut("scaled_dot_product_attention")
def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Result:
    three = query, key, value
    if kwargs.get("enable_gqa") or not all(one.is_meta and one.dtype == query.dtype and one.ndim > 2 for one in three):
        return None
    heads, (length, width), keys = query.shape[:-2], query.shape[-2:], key.shape[-2]
    fits = heads == key.shape[:-2] == value.shape[:-2] and width == key.shape[-1] and keys == value.shape[-2]
    if mask is not None and _broadcast((*heads, length, keys), mask.shape) != (*heads, length, keys):
        return None
    return _made(query, (*heads, length, value.shape[-1])) if fits else None


# -- positions -------------------------------------------------------------------------------------------------------


@_shortcut("adaptive_avg_pool2d.default")
def _adaptive_pool(x: torch.Tensor, size: Sequence[int]) -> Result:
    fits = x.is_meta and x.ndim == 4 and x.is_contiguous()
    return _made(x, (*x.shape[:2], *size)) if fits else None


@_shortcut("max_pool2d")
def _max_pool(
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Result:
    if ceil_mode or not (x.is_meta and x.ndim == 4 and x.is_contiguous()):
        return None
    sizes = _windows(x.shape[2:], kernel, stride or kernel, padding, dilation)
    return _made(x, (*x.shape[:2], *sizes)) if min(sizes) > 0 else None


@_shortcut("avg_pool2d.default")
def _average_pool(
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    *args: Any,
) -> Result:
    return _max_pool(x, kernel, stride, padding, ceil_mode=ceil_mode)


@_shortcut("mean.dim")
def _mean(x: torch.Tensor, dims: Sequence[int] | None, keepdim: bool = False, **kwargs: Any) -> Result:
    if not (x.is_meta and x.is_contiguous()) or not dims or kwargs:
        return None
    gone = {dim % x.ndim for dim in dims}
    return _made(
        x,
        [1 if at in gone else size for at, size in enumerate(x.shape) if keepdim or at not in gone],
    )


@_shortcut("cat")
def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> Result:
    first = tensors[0]
    if not first.ndim or not -first.ndim <= dim < first.ndim:
        return None
    shape, at = list(first.shape), dim % first.ndim
    shape[at] = 0
    for part in tensors:
        if not part.is_meta or part.ndim != first.ndim or part.dtype != first.dtype or not part.is_contiguous():
            return None
        shape[at] += part.shape[at]
        if any(a != b for dim, (a, b) in enumerate(zip(part.shape, shape, strict=True)) if dim != at):
            return None
    return _made(first, shape)
