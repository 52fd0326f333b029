"""What a model loses with each group of channels: cut one at a time, compensate, and look at the outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from secateur.calibration.calibrating import Calibration
from secateur.errors import PlanError, ProofError
from secateur.graph.groups import Graph
from secateur.planning.planning import plan_of_group
from secateur.surgery.compensation.answers import Answers
from secateur.surgery.compensation.compensating import ridged
from secateur.surgery.cutting import cut

progress = logging.getLogger("secateur.progress")

Judge = Callable[[nn.Module], float]  # the loss of a model, 0 for the original
Curves = dict[str, list[tuple[float, float]]]


def measured_losses(
    graph: Graph,
    model: nn.Module,
    importances: Sequence[np.ndarray],
    calibration: Calibration,
    shares: Sequence[float],
    judge: Judge,
    groups: Sequence[int],
    compensate: bool = True,
) -> Curves:
    """Return, for some groups, what the model loses with shares of each: `{"layer": [(0.25, 0.013)]}`.

    Units go in the order of their importances. Groups that cannot be cut alone are left out.
    """
    found: Curves = {}
    for done, number in enumerate(groups, 1):
        name = graph.groups[number].name
        for share in shares:
            try:
                plan = plan_of_group(graph, model, importances, number, share)
                small = cut(model, plan)
            except (PlanError, ProofError):
                continue
            if plan.is_empty:
                continue
            if compensate:
                small = ridged(small, plan, model, calibration)
            found.setdefault(name, []).append((_share(graph, plan, number), judge(small)))
        progress.info("sensitivity: %d of %d groups", done, len(groups))
    return found


def output_error(model: nn.Module, calibration: Calibration, most: int = 64) -> Judge:
    """Return a judge by the square of the relative error of the outputs on held-out samples, some of them."""
    parts, count = [], 0
    for part in calibration.batches.held_out:
        if count < most:
            parts.append(part)
            count += part.samples
    answers = Answers(model, parts)

    def judge(small: nn.Module) -> float:
        error = answers.error(small)
        return 0.0 if error is None else error**2

    return judge


def _share(graph: Graph, plan: Any, number: int) -> float:
    member = graph.groups[number].members[0]
    kept = plan.keep.get(member.tensor, {}).get(member.axis)
    if kept is None:
        return 0.0
    flat = (
        set(np.concatenate([np.atleast_1d(np.asarray(row)) for row in kept]).tolist())
        if member.axis != "grouped"
        else set()
    )
    there = sum(int(indices[0]) in flat for indices in member.indices)
    return 1 - there / graph.groups[number].size
