"""The masked original by marks: what a plan removes is NaN, and NaN finds its own way through a network.

Elementwise operations and movement spread marks as they are. Contractions read marked elements as zero, and statistics
are taken over the unmarked ones: that is all that "nothing downstream sees a cut channel" means. A cut channel that
meets a kept one turns it into NaN, and the outputs show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Tensor = torch.Tensor
aten = torch.ops.aten

HANDLERS: dict[Any, Callable[..., Any]] = {}


@contextmanager
def double_precision(marks: bool = False) -> Iterator[None]:
    """Run the body in float64, whatever casts it asks for, one operation at a time; `marks` gives NaN its meaning."""
    fast, dtype = torch.backends.mha.get_fastpath_enabled(), torch.get_default_dtype()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_default_dtype(torch.float64)
    try:
        with _Double(marks):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.backends.mha.set_fastpath_enabled(fast)


class _Double(TorchDispatchMode):
    def __init__(self, marks: bool) -> None:
        super().__init__()
        self.marks = marks

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.overloadpacket is aten._to_copy and args[0].dtype == torch.float64 and _is_float(kwargs.get("dtype")):
            kwargs.pop("dtype")
        handler = HANDLERS.get(func.overloadpacket) if self.marks else None
        return func(*args, **kwargs) if handler is None else handler(*args, **kwargs)


def _is_float(dtype: torch.dtype | None) -> bool:
    return dtype is not None and dtype.is_floating_point


def _rule(*packets: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        HANDLERS.update(dict.fromkeys(packets, handler))
        return handler

    return register


def silent(value: Any) -> Any:
    """Read marked elements as zero."""
    return _unmarked(value, 0.0) if isinstance(value, Tensor) and value.is_floating_point() else value


def _unmarked(x: Tensor, value: float) -> Tensor:
    return x.nan_to_num(value, torch.inf, -torch.inf)


def _marked(out: Tensor, where: Tensor) -> Tensor:
    return out.masked_fill(where, torch.nan) if out.is_floating_point() else out


# -- contractions ----------------------------------------------------------------------------------------------------


@_rule(aten.mm, aten.bmm)
def _product(left: Tensor, right: Tensor) -> Tensor:
    gone = left.isnan().all(-1)[..., :, None] | right.isnan().all(-2)[..., None, :]
    return _marked(silent(left) @ silent(right), gone)


@_rule(aten.mv)
def _vector_product(left: Tensor, right: Tensor) -> Tensor:
    return _marked(silent(left) @ silent(right), left.isnan().all(-1))


@_rule(aten.addmm, aten.baddbmm)
def _product_and_sum(bias: Tensor, left: Tensor, right: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    product = alpha * _product(left, right)
    return beta * bias + product if beta else product


@_rule(aten._cdist_forward, aten._euclidean_dist)
def _distances(left: Tensor, right: Tensor, order: float = 2.0, *_: Any) -> Tensor:
    gone = left.isnan().all(-1)[..., :, None] | right.isnan().all(-1)[..., None, :]
    return _marked(torch.cdist(silent(left), silent(right), order), gone)


@_rule(aten.convolution)
def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
    transposed, groups = how[3], how[-1]
    filters = weight.isnan()
    if transposed:
        gone = filters.view(groups, -1, *filters.shape[1:]).flatten(3).all(3).all(1).flatten()
    else:
        gone = filters.flatten(1).all(1)
    if bias is not None:
        gone = gone | bias.isnan()
    out = aten.convolution(silent(x), silent(weight), silent(bias), *how)
    return _marked(out, gone.view(-1, *[1] * (weight.ndim - 2)))


@_rule(aten._scaled_dot_product_flash_attention_for_cpu)
def _attention(query: Tensor, key: Tensor, value: Tensor, *how: Any, **more: Any) -> tuple[Tensor, Tensor]:
    more = {name: silent(option) for name, option in more.items()}
    out, sums = aten._scaled_dot_product_flash_attention_for_cpu(
        silent(query), silent(key), silent(value), *how, **more
    )
    columns = value.isnan().all(-2).repeat_interleave(query.shape[1] // value.shape[1], 1)  # of grouped queries
    gone = query.isnan().all(-1)[..., :, None] | columns[..., None, :]
    return _marked(out, gone), sums


# -- statistics ------------------------------------------------------------------------------------------------------


@_rule(aten.native_layer_norm)
def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, ...]:
    mean, variance = _moments(x, tuple(range(x.ndim - len(shape), x.ndim)))
    scale = (variance + eps).rsqrt()
    return _affine((x - mean) * scale, weight, bias), mean, scale


@_rule(aten.native_group_norm)
def _group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *how: Any) -> tuple[Tensor, ...]:
    batch, groups, eps = how[0], *how[3:]
    parts = x.reshape(batch, groups, -1)
    mean, variance = _moments(parts, (2,))
    scale = (variance + eps).rsqrt()
    normed = ((parts - mean) * scale).reshape(x.shape)
    return _affine(normed, *_by_channel(x.ndim, weight, bias)), mean[..., 0], scale[..., 0]


@_rule(aten.native_batch_norm)
def _batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *how: Any) -> tuple[Tensor, ...]:
    training, eps = how[2], how[4]
    if not training:
        return aten.native_batch_norm(x, weight, bias, *how)
    mean, variance = _moments(x, (0, *range(2, x.ndim)))
    scale = (variance + eps).rsqrt()
    return _affine((x - mean) * scale, *_by_channel(x.ndim, weight, bias)), mean.flatten(), scale.flatten()


def _by_channel(ndim: int, *parameters: Tensor | None) -> list[Tensor | None]:
    return [None if one is None else one.view(-1, *[1] * (ndim - 2)) for one in parameters]


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _moments(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mean = x.nanmean(dims, keepdim=True)
    return mean, (x - mean).square().nanmean(dims, keepdim=True)


@_rule(aten.mean)
def _mean(x: Tensor, dims: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    return x.nanmean(_dims(x, dims), keepdim, **options)


@_rule(aten.sum)
def _sum(x: Tensor, dims: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    dims = _dims(x, dims)
    return _marked(aten.sum(silent(x), dims, keepdim, **options), x.isnan().all(dims, keepdim))


@_rule(aten.linalg_vector_norm)
def _norm(x: Tensor, order: float = 2, dims: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    dims = _dims(x, dims)
    return _marked(aten.linalg_vector_norm(silent(x), order, dims, keepdim, **options), x.isnan().all(dims, keepdim))


@_rule(aten.norm)
def _older_norm(x: Tensor, order: float | None = 2, dims: Any = None, keepdim: bool = False) -> Tensor:
    return _norm(x, 2 if order is None else order, dims, keepdim)


@_rule(aten.var)
def _variance(x: Tensor, dims: Any = None, correction: Any = 1, keepdim: bool = False) -> Tensor:
    dims = _dims(x, dims)
    count = (~x.isnan()).sum(dims, keepdim=True)
    variance = _moments(x, dims)[1] * count / (count - (1 if correction is None else int(correction)))
    return variance if keepdim else variance.sum(dims)


@_rule(aten.std)
def _deviation(x: Tensor, dims: Any = None, correction: Any = 1, keepdim: bool = False) -> Tensor:
    return _variance(x, dims, correction, keepdim).sqrt()


@_rule(aten.var_mean)
def _variance_and_mean(
    x: Tensor, dims: Any = None, correction: Any = 1, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return _variance(x, dims, correction, keepdim), x.nanmean(_dims(x, dims), keepdim)


@_rule(aten.std_mean)
def _deviation_and_mean(
    x: Tensor, dims: Any = None, correction: Any = 1, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return _deviation(x, dims, correction, keepdim), x.nanmean(_dims(x, dims), keepdim)


@_rule(aten.amax)
def _largest(x: Tensor, dims: Any = (), keepdim: bool = False) -> Tensor:
    dims = _dims(x, dims)
    return _marked(aten.amax(_unmarked(x, -torch.inf), dims, keepdim), x.isnan().all(dims, keepdim))


@_rule(aten.max)
def _largest_and_where(x: Tensor, *how: Any) -> Any:
    if not how or isinstance(how[0], Tensor):  # of everything, or element by element
        return aten.max(x, *how)
    values, places = aten.max(_unmarked(x, -torch.inf), *how)
    return _marked(values, x.isnan().all(*how)), places


@_rule(aten._softmax, aten._safe_softmax)
def _softmax(x: Tensor, dim: int, *_: Any, **__: Any) -> Tensor:
    return _marked(torch.softmax(_unmarked(x, -torch.inf), dim), x.isnan())


@_rule(aten._log_softmax)
def _log_softmax(x: Tensor, dim: int, *_: Any, **__: Any) -> Tensor:
    return _marked(torch.log_softmax(_unmarked(x, -torch.inf), dim), x.isnan())


def _dims(x: Tensor, dims: Any) -> tuple[int, ...]:
    if isinstance(dims, int):
        return (dims,)
    return tuple(dims) if dims else tuple(range(x.ndim))
