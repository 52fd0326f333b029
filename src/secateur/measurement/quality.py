"""Prune to a quality: the fewest MACs with which a metric of the user's stays within a tolerance."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.errors import BudgetError, MeasurementError, PlanError
from secateur.surgery.compensation.answers import in_evaluation

Metric = Callable[[nn.Module], float]  # the larger the better
STEPS = 7  # halvings of the range of MACs
SMALLEST, LARGEST = 0.05, 0.99  # shares of the MACs
_TOLERANCE = re.compile(r"-?\s*(\d+\.?\d*|\.\d+)\s*(%?)")

progress = logging.getLogger("secateur.progress")


@dataclass(frozen=True)
class Tolerance:
    """How far a metric may fall: a share of what it is, or so many of its units."""

    value: float
    relative: bool

    @classmethod
    def read(cls, text: Any) -> Tolerance:
        """Read "-1%", which is a share of the metric, or "-0.01".

        Raises:
            PlanError: it is neither, or nothing may be lost.

        Example:
            >>> Tolerance.read("-1%")
            Tolerance(value=0.01, relative=True)
        """
        found = _TOLERANCE.fullmatch(str(text).strip())
        value = float(found[1]) / (100 if found[2] else 1) if found is not None else 0.0
        if found is None or value <= 0 or (found[2] and value >= 1):
            raise PlanError(
                f'quality={text!r} is no loss that may be. Write a share of the metric such as "-1%", or "-0.01".'
            )
        return cls(value, bool(found[2]))

    def least(self, full: float) -> float:
        """Return the metric that must be reached."""
        return full - self.value * (abs(full) if self.relative else 1.0)


@dataclass(frozen=True)
class Quality:
    """The candidates of a search, and the one that was chosen."""

    full: float
    least: float
    macs: float  # share of the model's
    metric: float
    candidates: tuple[tuple[float, float], ...]  # (share of the MACs, metric)

    def as_json(self) -> dict[str, Any]:
        """Return it for a plan's recipe."""
        return {**vars(self), "candidates": [list(one) for one in self.candidates]}


def search_quality(
    full: nn.Module, make: Callable[[float], nn.Module], tolerance: Tolerance, metric: Metric
) -> Quality:
    """Find the smallest share of the MACs with which the metric stays within the tolerance, by halves.

    Args:
        full: the original.
        make: from a share of the MACs to the pruned and compensated model; raises BudgetError where it cannot be.
        tolerance: of the metric.
        metric: of a model.

    Raises:
        BudgetError: no cut stays within it.
        MeasurementError: the metric fails, or is no finite number.
    """
    whole = measured(metric, full)
    least = tolerance.least(whole)
    low, high, tried = SMALLEST, LARGEST, []
    best: tuple[float, float] | None = None
    for _ in range(STEPS):
        share = (low + high) / 2
        try:
            value = measured(metric, make(share))
        except BudgetError:
            low = share
            continue
        tried.append((share, value))
        progress.info("with %.0f%% of the MACs %.4g; %.4g is wanted", 100 * share, value, least)
        if value >= least:
            best, high = (share, value), share
        else:
            low = share
    if best is None:
        closest = max((value for _, value in tried), default=whole)
        raise BudgetError(
            f"No cut keeps the metric at {least:.4g} ({whole:.4g} before): the best has {closest:.4g}. "
            "Allow more, give more samples to calibrate with, or train what is pruned."
        )
    return Quality(whole, least, *best, tuple(tried))


def measured(metric: Metric, model: nn.Module) -> float:
    """Return what a metric says of a model, which it is given in evaluation, without gradients.

    Raises:
        MeasurementError: it fails, or says no finite number.
    """
    try:
        with in_evaluation(model):
            value = float(metric(model))
    except Exception as error:
        raise MeasurementError(f"The metric fails: {type(error).__name__}: {error}.") from error
    if not math.isfinite(value):
        raise MeasurementError(f"The metric says {value}, which is no finite number. Look into it.")
    return value
