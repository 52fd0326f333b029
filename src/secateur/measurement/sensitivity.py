"""What a model loses with each group of channels: cut one at a time, compensate, and look at the outputs."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur import __version__
from secateur.calibration.calibrating import Calibration, calibrate
from secateur.errors import CutError, PlanError
from secateur.graph.groups import Graph
from secateur.graph.tracing import trace
from secateur.measurement.cache import recalled
from secateur.measurement.quality import Metric, measured
from secateur.planning.criteria.scoring import importances
from secateur.planning.outputs import kinds_of, outputs_of
from secateur.planning.planning import plan_of_group, tensors_of
from secateur.planning.plans import Plan
from secateur.surgery.compensation.answers import Answers, answers_of, in_evaluation
from secateur.surgery.compensation.compensating import ridged
from secateur.surgery.cutting import copied, cut

SHARES = (0.1, 0.25, 0.5, 0.75)
MOST_SAMPLES = 24  # held out, that the outputs are compared on

progress = logging.getLogger("secateur.progress")

Judge = Callable[[nn.Module], float]  # what a model has lost, 0 for the original
Curves = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Sensitivity:
    """What a model loses by each group: a loss for each share of the group's units that is cut."""

    curves: Curves
    loss: str  # what it is: the name of the metric that falls, or the outputs' squared relative error
    compensated: bool
    sizes: Mapping[str, int]  # units of each group

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "loss": self.loss,
            "compensated": self.compensated,
            "groups": {
                name: {"units": self.sizes[name], "curve": [list(point) for point in curve]}
                for name, curve in self.curves.items()
            },
        }


def sensitivity(
    model: nn.Module,
    example: Any,
    batches: Iterable[Any],
    shares: Sequence[float] = SHARES,
    metric: Metric | None = None,
    compensate: bool = True,
    criterion: str = "obs",
) -> Sensitivity:
    """Cut each group of coupled channels by some shares, all others whole, and measure what the model loses.

    A curve for each layer would call coupled layers robust: here what goes together is cut together. What was measured
    before, for the same weights and samples, is not measured again; what a metric says always is.

    Args:
        model: the model; untouched.
        example: how it is called, as for `secateur.trace`.
        batches: samples to calibrate with, and to compare outputs on, as for `secateur.compensate`.
        shares: of the units of a group.
        metric: a function of a model that returns a number, the larger the better. Without one the loss is the square
            of the outputs' relative error against the original, on held-out samples.
        compensate: whether the weights that are left make up for what goes, as `prune(calibrate=...)` lets them.
        criterion: by which units go, see `secateur.plan`.

    Raises:
        TraceError: the model does not run on the example.
        PlanError: a share or the criterion makes no sense.
        DataError: a batch does not fit the model, or there are too few samples.
        MeasurementError: the metric fails.
    """
    shares = () if isinstance(shares, (str, float, int)) else tuple(shares)
    if not shares or not all(isinstance(share, (float, int)) for share in shares):
        raise PlanError(f"shares={shares!r} is no list of shares. Give one such as (0.25, 0.5).")
    for share in shares:
        if not 0 < share < 1:
            raise PlanError(f"A share of {share!r} of the channels makes no sense. Give numbers between 0 and 1.")
    graph = trace(model, example)
    calibration = calibrate(model, graph, batches)
    judge = output_loss(model, calibration) if metric is None else metric_loss(model, metric)
    curves = losses_of_groups(graph, model, calibration, {"criterion": criterion}, shares, judge, metric, compensate)
    name = "squared relative error of the outputs" if metric is None else getattr(metric, "__name__", "metric")
    return Sensitivity(curves, name, compensate, {group.name: group.size for group in graph.groups})


def losses_of_groups(
    graph: Graph,
    model: nn.Module,
    calibration: Calibration,
    words: Mapping[str, Any],
    shares: Sequence[float],
    judge: Judge,
    metric: Metric | None = None,
    compensate: bool = True,
) -> Curves:
    """Return what the model loses with shares of each group: `{"layer": [(0.25, 0.013)]}`.

    Units go in the order of their importances. Groups that cannot be cut alone are left out.
    """
    judged = importances(
        graph,
        outputs_of(graph, kinds_of(graph, model)),
        tensors_of(model),
        words.get("criterion") or "l1",
        words.get("scores"),
        words.get("seed", 0),
        calibration=calibration,
        reduction=words.get("reduction") or "mean",
    )
    key = _identity(model, calibration, judged, metric, compensate)
    found: Curves = {}
    begun = time.monotonic()
    for number, group in enumerate(graph.groups):
        for share in shares:

            def measure(number: int = number, share: float = share) -> list[float]:
                return _loss_of_group(graph, model, judged, number, share, calibration if compensate else None, judge)

            point = measure() if key is None else recalled("sensitivity", [key, group.name, share], measure)
            if point:
                found.setdefault(group.name, []).append((point[0], point[1]))
        each = (time.monotonic() - begun) / (number + 1)
        left = each * (len(graph.groups) - number - 1)
        progress.info("sensitivity: %d of %d groups, %.0f s left", number + 1, len(graph.groups), left)
    return {name: sorted(set(curve)) for name, curve in found.items()}


def _loss_of_group(
    graph: Graph,
    model: nn.Module,
    judged: Sequence[np.ndarray],
    number: int,
    share: float,
    calibration: Calibration | None,
    judge: Judge,
) -> list[float]:
    """Return the share of a group's units that is cut, and what the model loses by it; nothing where it cannot be."""
    try:
        plan = plan_of_group(graph, model, judged, number, share)
        small = cut(model, plan)
    except (PlanError, CutError):
        return []
    if plan.is_empty:
        return []
    if calibration is not None:
        small = ridged(small, plan, model, calibration)
    return [_share_cut(graph, plan, number), max(judge(small), 0.0)]


def output_loss(model: nn.Module, calibration: Calibration) -> Judge:
    """Return a judge by the square of the relative error of the outputs, on held-out samples."""
    parts, count = [], 0
    for part in calibration.batches.held_out:
        if count < MOST_SAMPLES:
            parts.append(part)
            count += part.samples
    answers = Answers(model, parts)

    def judge(small: nn.Module) -> float:
        error = answers.error(small)
        return 0.0 if error is None else error**2

    return judge


def metric_loss(model: nn.Module, metric: Metric) -> Judge:
    """Return a judge by how far a metric falls."""
    whole = measured(metric, model)
    return lambda small: whole - measured(metric, small)


def _share_cut(graph: Graph, plan: Plan, number: int) -> float:
    group = graph.groups[number]
    member = next(member for member in group.members if member.axis != "grouped")
    kept: Any = plan.keep.get(member.tensor, {}).get(member.axis)
    left = group.size if kept is None else sum(np.isin(member.indices[:, 0], kept))
    return round(1 - float(left) / group.size, 6)


def _identity(
    model: nn.Module, calibration: Calibration, judged: Sequence[np.ndarray], metric: Metric | None, compensate: bool
) -> str | None:
    """Return a digest of all that a sensitivity hangs on; None for a metric, which may hang on anything."""
    if metric is not None:
        return None
    told = hashlib.sha256(repr([__version__, torch.__version__, repr(model), compensate]).encode())
    with in_evaluation(twin := copied(model)):
        part = calibration.batches.held_out[0]
        answers = answers_of(twin, part.call)
    inputs = [one for each in calibration.batches.parts for one in each.call.tensors()]
    for tensor in [*model.parameters(), *model.buffers(), *inputs, *answers, *map(torch.from_numpy, judged)]:
        told.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        told.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return told.hexdigest()
