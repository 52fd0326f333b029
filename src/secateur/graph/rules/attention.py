"""Attention: queries meet keys, and their products weigh values."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters

import numpy as np
import torch

from secateur.graph.joining import Operand, broadcast, join, placed
from secateur.graph.labels import Shape, Sheet
from secateur.graph.provenance import TracedFloat
from secateur.graph.registry import rule
from secateur.graph.rules.contraction import contract
from secateur.graph.rules.reduction import whole_statistic
from secateur.graph.running import LabelRun, extent_of


@rule("scaled_dot_product_attention")
def attention(
    run: LabelRun,
    out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    """(..., L, E), (..., S, E), (..., S, V) to (..., L, V); its own scale, 1 / sqrt(E), changes with the channels."""
    _note_scale(run, q, k, scale)
    lead = ascii_letters[: out.ndim - 2]
    times = q.shape[-3] // k.shape[-3] if enable_gqa else 1
    queries = _laid(run.sheets(q), q.shape, "LE", f"{lead}LSE")
    keys = _laid(_shared(run.sheets(k), times), _shared_shape(k.shape, times), "SE", f"{lead}LSE")
    scores = Operand(contract(run, f"{lead}LSE", f"{lead}LS", [queries, keys], "matmul", None), _scores_shape(q, k))
    biases = [] if mask is None else [broadcast(run.sheets(mask), mask.shape, len(lead) + 2)]
    weights = [whole_statistic(run, sheet, [len(lead) + 1]) for sheet in join(run, [scores, *biases])]
    values = _laid(_shared(run.sheets(v), times), _shared_shape(v.shape, times), "SV", f"{lead}LSV")
    laid = _laid(weights, scores.shape, "LS", f"{lead}LSV")
    run.give(out, contract(run, f"{lead}LSV", f"{lead}LV", [laid, values], "matmul", None))


def _note_scale(run: LabelRun, q: torch.Tensor, k: torch.Tensor, scale: float | None) -> None:
    given = run.argument("scale")
    if isinstance(given, TracedFloat):
        run.scaled(given.expression, given.power)
    elif scale is None:
        labelled = next((sheet for sheet in run.sheets(q) if sheet.shape[-1] > 1), None)
        if labelled is not None:
            run.scaled(extent_of(labelled, q.ndim - 1, columns=True), -0.5)


def _laid(sheets: Sequence[Sheet], shape: Shape, last: str, joint: str) -> Operand:
    """Lay a tensor whose last dimensions are the letters `last`, and whose first are those of the joint space."""
    lead = len(joint) - 3
    missing = (1,) * (lead + 2 - len(shape))
    widened = [sheet.reshape(missing + sheet.shape) for sheet in sheets]
    return placed(widened, missing + tuple(shape), joint[:lead] + last, joint)


def _shared(sheets: Sequence[Sheet], times: int) -> list[Sheet]:
    """Repeat the sheets of heads (dimension -3) that several queries share."""
    return [np.repeat(sheet, times if sheet.shape[-3] > 1 else 1, axis=-3) if times > 1 else sheet for sheet in sheets]


def _shared_shape(shape: Shape, times: int) -> Shape:
    return (*shape[:-3], shape[-3] * times, *shape[-2:]) if times > 1 else shape


def _scores_shape(q: torch.Tensor, k: torch.Tensor) -> tuple[int, ...]:
    return (*torch.broadcast_shapes(q.shape[:-2]), q.shape[-2], k.shape[-2])
