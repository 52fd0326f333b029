"""Normalisations: parameters go with their channels; statistics across channels are marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from secateur.graph.joining import Operand, broadcast, join
from secateur.graph.labels import Shape, along, varying
from secateur.graph.provenance import Expression, is_literal
from secateur.graph.registry import FUNCTIONS, rule
from secateur.graph.rules.reduction import whole_statistic
from secateur.graph.running import LabelRun, extent_of


def _by_channel(run: LabelRun, x: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[Operand]:
    """Lay vectors with an entry for each channel beside `x`, along its dimension 1."""
    operands = [Operand(run.sheets(x), x.shape)]
    for tensor in tensors:
        shape = [1] * x.ndim
        shape[1] = tensor.shape[0]
        operands.append(Operand([along(sheet.ravel(), x.ndim, 1) for sheet in run.sheets(tensor)], shape))
    return operands


@rule(
    "batch_norm",
    "native_batch_norm",
    "cudnn_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "instance_norm",
)
def channel_norm(
    run: LabelRun,
    out: Any,
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    """(N, C, *positions): every channel by its own statistics."""
    result = out[0] if isinstance(out, tuple) else out
    tensors = [tensor for tensor in (weight, bias, running_mean, running_var) if tensor is not None]
    sheets, of_tensors = run.sheets(x), [run.sheets(tensor) for tensor in tensors]
    if len(sheets) == 1 and varying(sheets[0]) == (1,) and all(len(own) == 1 for own in of_tensors):
        for own in of_tensors:  # the usual case, which the rest would do no otherwise
            run.unify(sheets[0].ravel(), own[0])
        run.give(result, sheets)
        return
    joined = join(run, _by_channel(run, x, tensors))
    for sheet in joined:
        if any(dim != 1 for dim in varying(sheet)):
            run.statistics(sheet)
    run.give(result, joined)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(
    run: LabelRun,
    out: Any,
    x: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: Any = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    """(..., *normalized_shape): one statistic over the last dimensions."""
    result = out[0] if isinstance(out, tuple) else out
    across = len(normalized_shape)
    affine = [tensor for tensor in (weight, bias) if isinstance(tensor, torch.Tensor)]
    operands = [broadcast(run.sheets(tensor), tensor.shape, x.ndim) for tensor in affine]
    joined = join(run, [Operand(run.sheets(x), x.shape), *operands])
    origins: list[Expression | None] = [run.provenance(int(size)) for size in normalized_shape]
    joined = [whole_statistic(run, sheet, range(x.ndim - across, x.ndim)) for sheet in joined]
    for sheet in joined:
        inside = [dim for dim in varying(sheet) if dim >= x.ndim - across]
        for dim in inside:
            origin = origins[dim - x.ndim]
            if origin is not None:
                run.use(origin, extent_of(sheet, dim))
    run.give(result, joined)


@rule("group_norm")
def group_norm(
    run: LabelRun,
    out: torch.Tensor,
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    """(N, C, *positions): one statistic over each of `groups` equal parts of the channels."""
    joined = join(run, _by_channel(run, x, [tensor for tensor in (weight, bias) if tensor is not None]))
    for sheet in joined:
        if sheet.shape[1] > 1:
            _grouped_statistics(run, np.moveaxis(sheet, 1, 0).reshape(int(groups), -1), x.shape, int(groups))
        if any(dim != 1 for dim in varying(sheet)):
            run.statistics(sheet)
    run.give(out, joined)


def _grouped_statistics(run: LabelRun, table: np.ndarray, shape: Shape, groups: int) -> None:
    origin = run.provenance(groups)
    if shape[1] == groups:
        if origin is not None:
            run.use(origin, extent_of(table, 0))
        return
    run.statistics(table)
    if origin is not None and not is_literal(origin) and groups > 1:
        run.use(origin, extent_of(table, 0))
    if groups > 1:
        run.rows(table, f"channels are normalised in {groups} equal groups")


def weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """`torch._weight_norm`, a fused operation, in operations that have rules; `dim` -1: one norm for all of it."""
    across = [each for each in range(v.ndim) if dim == -1 or each != dim]
    return v * (g / torch.linalg.vector_norm(v, dim=across, keepdim=dim != -1))


FUNCTIONS[torch._weight_norm] = weight_norm  # type: ignore[attr-defined]
