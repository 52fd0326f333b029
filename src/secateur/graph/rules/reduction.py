"""Operations over whole dimensions: a statistic across labelled channels changes when channels leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from secateur.graph.labels import Sheet, varying
from secateur.graph.registry import rule
from secateur.graph.running import LABELS, LabelRun

REDUCTIONS = (
    "mean", "sum", "amax", "amin", "prod", "var", "std", "var_mean", "std_mean", "logsumexp", "norm", "nansum",
    "median", "linalg_vector_norm", "max.dim", "min.dim", "any", "all", "count_nonzero", "aminmax",
)  # fmt: skip


def dims_of(value: Any, ndim: int) -> tuple[int, ...]:
    """Read a `dim` argument: None means all of them."""
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return tuple(range(ndim))
    chosen = value if isinstance(value, (list, tuple)) else [value]
    return tuple(int(dim) % ndim for dim in chosen)


@rule(*REDUCTIONS)
def reduce(run: LabelRun, out: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """(..., C, ...) with some dimensions gone, or left at size 1."""
    dims = dims_of(dim_argument(run, args, kwargs), x.ndim)
    for result in out if isinstance(out, tuple) else (out,):
        keepdim = result.ndim == x.ndim
        kept = [_outside(run, sheet, dims, keepdim) for sheet in run.sheets(x)]
        run.give(result, [sheet for sheet in kept if sheet is not None])
        if not result.is_floating_point() and x.is_floating_point():
            _positions(run, result, [sheet for sheet in run.sheets(x) if any(sheet.shape[dim] > 1 for dim in dims)])


def _positions(run: LabelRun, result: torch.Tensor, counted: Sequence[Sheet]) -> None:
    """Numbers of channels change when channels leave; whoever reads them makes the channels stay."""
    before = run.sheets(result)

    def read() -> list[Sheet]:
        for sheet in counted:
            run.fix(sheet, "the position of a value among these channels is used")
        return list(before)

    if counted:
        setattr(result, LABELS, read)


def dim_argument(run: LabelRun, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return the `dim` argument of the operation that is running; `args` are those after the tensor."""
    if "dim" in kwargs:
        return kwargs["dim"]
    names = [argument.name for argument in run.operation._schema.arguments[1:]]
    return args[names.index("dim")] if "dim" in names and names.index("dim") < len(args) else None


def _outside(run: LabelRun, sheet: Sheet, dims: Sequence[int], keepdim: bool) -> Sheet | None:
    inside = [dim for dim in varying(sheet) if dim in dims]
    if not inside:
        left = [size for dim, size in enumerate(sheet.shape) if keepdim or dim not in dims]
        return sheet.reshape(left)
    left = whole_statistic(run, sheet, inside)
    return None if set(varying(left)) <= set(dims) else _outside(run, left, dims, keepdim)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "softmin")
def softmax(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, *args: Any, **kwargs: Any) -> None:
    """Shares along one dimension."""
    run.give(out, [whole_statistic(run, sheet, [dim % x.ndim]) for sheet in run.sheets(x)])


def whole_statistic(run: LabelRun, sheet: Sheet, dims: Sequence[int]) -> Sheet:
    """Note a statistic along `dims`, and tie labels so that it is taken over the same ones at every position.

    In a table, a statistic over the rows ties each column, and one within the rows cuts the same columns from each.
    """
    inside = [dim for dim in varying(sheet) if dim in dims]
    outside = [dim for dim in varying(sheet) if dim not in dims]
    if not inside:
        return sheet
    over_rows = bool(outside) and max(inside) < min(outside)
    if outside:
        sheet = run.tied(sheet, inside if over_rows else outside)
    if not over_rows:
        run.statistics(sheet)
    return sheet


@rule("cumsum", "cumprod", "argmax", "argmin", "sort", "argsort", "topk")
def ordered(run: LabelRun, out: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """What depends on the order along a labelled dimension leaves that dimension whole."""
    dims = dims_of(dim_argument(run, args, kwargs), x.ndim)
    kept = []
    for sheet in run.sheets(x):
        if any(dim in dims for dim in varying(sheet)):
            run.fix(
                sheet, f"{run.operation._schema.name.removeprefix('aten::')} depends on the order of these channels"
            )
        else:
            kept.append(sheet)
    for result in out if isinstance(out, tuple) else (out,):
        run.give(result, kept if result.ndim == x.ndim else [])
