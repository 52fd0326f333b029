"""Importances on the scale of what the whole model loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Graph

Curve = Sequence[tuple[float, float]]  # (share of the units cut, what the model loses)


def rescaled(graph: Graph, importances: Sequence[np.ndarray], curves: Mapping[str, Curve]) -> list[np.ndarray]:
    """Return importances whose sum over the units that go is what the model loses with them, as it was measured.

    Between the shares that were measured, the sum follows that of the importances given. The order of the units stays:
    no unit is said to matter less than one that goes before it.

    Raises:
        PlanError: a curve is of no group of the graph, or not of shares and losses.

    Example:
        >>> from types import SimpleNamespace
        >>> graph = SimpleNamespace(groups=[SimpleNamespace(name="conv")])
        >>> rescaled(graph, [np.array([1.0, 3.0, 1.0, 1.0])], {"conv": [(0.5, 4.0)]})
        [array([2., 6., 2., 2.])]
    """
    if not isinstance(curves, Mapping):
        raise PlanError("The sensitivity is no dict of curves by group. Give that of secateur.sensitivity(...).curves.")
    names = [group.name for group in graph.groups]
    unknown = next((name for name in curves if name not in names), None)
    if unknown is not None:
        raise PlanError(f"The sensitivity has {unknown!r}, which is no group of this model.{nearest(unknown, names)}")
    checked = {name: _checked(name, curve) for name, curve in curves.items()}
    most = max((points[:, 1].max() for points in checked.values()), default=1.0)
    return [
        _rescaled(importance, checked[name]) if name in checked else most * (1e3 + _ranks(importance))
        for name, importance in zip(names, importances, strict=True)
    ]


def _ranks(importance: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(importance, kind="stable"), kind="stable").astype(np.float64)


def _checked(name: str, curve: Curve) -> np.ndarray:
    try:
        points = np.array([(float(share), max(float(loss), 0.0)) for share, loss in curve], np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        points = np.zeros((0, 2))
    if not len(points) or not np.isfinite(points).all() or (points[:, 0] <= 0).any() or (points[:, 0] > 1).any():
        raise PlanError(f"The sensitivity of {name} is no list of shares above 0 and finite losses. Measure it again.")
    return points[np.argsort(points[:, 0])]


def _rescaled(importance: np.ndarray, points: np.ndarray) -> np.ndarray:
    order = np.argsort(np.where(np.isfinite(importance), importance, 0), kind="stable")
    ascending = np.maximum(importance[order], 0)
    if not ascending.any():
        ascending = np.ones_like(ascending)
    cut = np.arange(1, len(order) + 1) / len(order)
    total = np.cumsum(ascending)
    there = np.interp(points[:, 0], cut, total)
    factors = np.interp(cut, points[:, 0], points[:, 1] / np.maximum(there, 1e-300))
    steps = np.maximum.accumulate(np.diff(factors * total, prepend=0.0))
    found = np.empty_like(steps)
    found[order] = np.maximum(steps, 0) * (1 + 1e-12 * np.arange(len(steps)))
    return found
