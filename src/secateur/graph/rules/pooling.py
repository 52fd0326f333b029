"""Windows over positions: channels pass, positions mix."""

from __future__ import annotations

from typing import Any

import torch

from secateur.graph.labels import Sheet
from secateur.graph.registry import rule
from secateur.graph.rules.movement import give_view
from secateur.graph.running import LabelRun

POSITIONS = {"1d": 1, "2d": 2, "3d": 3}

IN_EVERY_NUMBER_OF_POSITIONS = (
    "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool", "lp_pool",
    "fractional_max_pool", "upsample_nearest", "_upsample_nearest_exact",
)  # fmt: skip
WINDOWED = (
    *(f"{kind}{suffix}" for kind in IN_EVERY_NUMBER_OF_POSITIONS for suffix in POSITIONS),
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip


@rule(*WINDOWED)
def window(run: LabelRun, out: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """(N, C, *positions) to (N, C, *positions'): labels along positions must stay."""
    name = run.operation._schema.name
    ndim = next(count for suffix, count in POSITIONS.items() if suffix in name)
    kept = [sheet for sheet in run.sheets(x) if passes(run, sheet, ndim)]
    for result in out if isinstance(out, tuple) else (out,):
        run.give(result, kept)


def passes(run: LabelRun, sheet: Sheet, positions: int) -> bool:
    """Fix labels that change along the last `positions` dimensions; tell whether the sheet passes a window."""
    if any(size > 1 for size in sheet.shape[sheet.ndim - positions :]):
        run.fix(sheet, "a window slides along these, so each needs its neighbours")
        return False
    return True


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def sample(run: LabelRun, out: torch.Tensor, x: torch.Tensor, grid: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """(N, C, *positions) by coordinates (N, *positions', 2 or 3) to (N, C, *positions')."""
    for sheet in run.sheets(grid):
        run.fix(sheet, "coordinates are read from these")
    run.give(out, [sheet for sheet in run.sheets(x) if passes(run, sheet, x.ndim - 2)])


@rule("unfold")
def windows(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, size: int, step: int) -> None:
    """(..., L, ...) to (..., windows, ..., size): one dimension becomes windows, their places are the last."""
    result = []
    for sheet in run.sheets(x):
        if sheet.shape[dim] > 1:
            run.fix(sheet, "windows are taken across these")
        else:
            result.append(sheet[..., None])
    give_view(run, out, x, result)
