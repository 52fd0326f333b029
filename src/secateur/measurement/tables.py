"""Time by width, for the layers of a model: what each takes where all are narrower, and how much of it that saves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from secateur.errors import PlanError
from secateur.graph.tracing import trace
from secateur.measurement.cache import remembered
from secateur.measurement.profiling import profile, times_of
from secateur.planning.planning import plan
from secateur.runtimes.network import Network
from secateur.runtimes.session import Options
from secateur.runtimes.shapes import Sizes
from secateur.surgery.cutting import cut

SHARES = (1.0, 0.75, 0.5, 0.25)  # of their channels that all groups keep
STEP = 8  # channels

log = logging.getLogger("secateur.progress")
Table = dict[str, list[list[float]]]  # by layer: MACs and milliseconds, at each share


def table_of(model: nn.Module, example: Any, runtime: str, options: Options) -> Table:
    """Measure what the layers of a model take in a runtime, at several widths; of those that it tells of.

    What was measured is remembered by machine, runtime, version and shape.

    Raises:
        MeasurementError: the runtime does not run the model, or tells of no layers at all.
    """
    full = Network.of_model(type(model).__name__, model, example)

    def measure() -> Table:
        found: Table = {}
        for share, small in _narrowed(model, example):
            log.info("asking %s what the layers take with %.0f %% of the channels", runtime, 100 * share)
            times = times_of(profile(Network.of_model(full.name, small, example), runtime, options, Sizes()))
            costs = _macs(small, example)
            for layer, milliseconds in times.items():
                found.setdefault(layer, []).append([costs.get(layer, 0.0), milliseconds])
        return found

    return remembered("widths", runtime, options, [full.identity, SHARES, STEP], measure)


def savings_of(table: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, float]:
    """Return what falls of each layer's time as its MACs do, in milliseconds at its full width.

    A layer's time is taken to be a part that no cut saves and one in proportion to the MACs (least squares, neither
    below zero).

    Example:
        >>> savings_of({"conv": [[100.0, 6.0], [25.0, 3.0]]})
        {'conv': 4.0}
    """
    return {layer: _slope(np.array(points, float)) * points[0][0] for layer, points in table.items()}


def _slope(points: np.ndarray) -> float:
    macs, times = points.T
    through_zero = float(macs @ times / max(float(macs @ macs), 1e-30))
    spread = macs - macs.mean()
    if not spread.any():
        return through_zero
    slope = float(spread @ times / (spread @ spread))
    return min(max(slope, 0.0), through_zero) if times.mean() - slope * macs.mean() >= 0 else through_zero


def _narrowed(model: nn.Module, example: Any) -> list[tuple[float, nn.Module]]:
    """Return the model with shares of its channels, as far as it can be cut so."""
    graph, found = trace(model, example), [(1.0, model)]
    for share in SHARES[1:]:
        try:
            made = plan(graph, model, ratio=1 - share, criterion="uniform", round_to=STEP, min_channels=STEP)
        except PlanError:
            continue
        if not made.is_empty:
            found.append((share, cut(model, made)))
    return found


def _macs(model: nn.Module, example: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for cost in trace(model, example).costs.by_layer():
        found[cost.layer] = found.get(cost.layer, 0.0) + cost.macs
    return found
