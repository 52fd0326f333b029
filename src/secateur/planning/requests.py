"""What is asked of a graph's groups, and the numbers of units that they keep by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from secateur.graph.groups import Graph
from secateur.planning.allocation import (
    Allocation,
    ByImportance,
    Path,
    SameShare,
    by_caps,
    by_ratio,
    by_shares,
    classes_of,
    curves_of,
)
from secateur.planning.budgets import Cap
from secateur.planning.criteria.scoring import normalised
from secateur.planning.outputs import Kinds, Outputs, floors
from secateur.planning.prices import ByPrice, losses_by_share, losses_by_sum, marginal_cost, marginal_time
from secateur.planning.rules import Rule
from secateur.planning.scope import Scope, Total, scope_of
from secateur.planning.structures import structures_of
from secateur.planning.widths import Widths, widths_of


@dataclass(frozen=True, eq=False)
class Request:
    """Everything that decides how many units each group keeps; arrays have one entry a group."""

    graph: Graph
    outputs: Outputs
    kinds: Kinds
    rules: Sequence[Rule]
    ignore: tuple[str, ...]  # words for layers that are left alone
    ratios: np.ndarray | None  # asked for without rules; NaN: of this group nothing was
    max_ratios: np.ndarray  # NaN: no limit
    min_channels: int
    round_to: int | None
    ranking: str  # "group", "global", "isomorphic", "time", "loss"
    times: Mapping[str, float]  # by layer, for the ranking by time
    importances: Sequence[np.ndarray]
    losses: bool  # importances are losses, on one scale for all groups
    normalizer: str  # of importances that are not
    full: np.ndarray  # units in the full-size model; NaN: it had none to cut
    elements: np.ndarray  # what a unit's filters had there

    def wanted(self, capped: bool) -> np.ndarray:
        """Tell for each group whether some of it may be cut, (groups,) bool; `capped`: there is a cap for all."""
        if capped or self.scope.totals:
            return self.scope.cuttable
        return self.scope.cuttable & np.isfinite(self.scope.ratios if self.ratios is None else self.ratios)

    @cached_property
    def scope(self) -> Scope:
        """What may be cut, and how much by the rules."""
        scope = scope_of(self.graph, self.outputs, self.kinds, self.rules, self.ignore)
        return replace(scope, cuttable=scope.cuttable & np.isfinite(self.full))

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many units each group has."""
        return np.array([group.size for group in self.graph.groups], dtype=np.int64)

    @cached_property
    def originals(self) -> np.ndarray:
        """How many units each group had before anything was cut."""
        return np.where(np.isnan(self.full), self.sizes, self.full)

    def widths(self, cuttable: np.ndarray) -> Widths:
        """Return the widths that may be, where these groups may be cut."""
        most = np.round(np.fmin(self.scope.max_ratios, self.max_ratios) * self.originals, 9)
        least = np.ceil(self.originals - np.floor(most)).astype(np.int64)
        lowest = np.maximum(floors(self.graph, self.outputs, self.min_channels), np.minimum(least, self.sizes))
        excluded = self.scope.excluded
        return widths_of(self.graph, self.outputs, cuttable, excluded, lowest, self.round_to, self.originals)

    def allocations(self, caps: Sequence[Cap]) -> list[Allocation]:
        """Return one allocation for each part of the budget; each leaves whole what is not its own."""
        if caps:
            widths = self.widths(self.scope.cuttable)
            return [by_caps(widths, caps, self._path(widths, caps))]
        ratios = self.scope.ratios if self.ratios is None else self.ratios
        own = self.scope.cuttable & np.isfinite(ratios)
        parts = [self._by_ratios(own, np.where(own, ratios, np.nan))] if own.any() else []
        return parts + [self._by_total(total) for total in self.scope.totals if total.groups.any() and total.share > 0]

    def _path(self, widths: Widths, caps: Sequence[Cap]) -> Path:
        if self.ranking == "group":
            return SameShare(widths)
        if self.ranking == "time":
            return ByPrice(widths, self._losses(widths), marginal_time(self.graph.costs, self.times))
        if self.ranking == "loss":
            what: Literal["macs", "params"] = "macs" if any(cap.name == "macs" for cap in caps) else "params"
            return ByPrice(widths, self._losses(widths), marginal_cost(self.graph.costs, what))
        structures = self._structures(self.scope.cuttable)
        return ByImportance(widths, self._normalised(), None if structures is None else classes_of(widths, structures))

    def _by_ratios(self, own: np.ndarray, ratios: np.ndarray) -> Allocation:
        widths = self.widths(own)
        if self.ranking == "group":
            return by_ratio(widths, ratios)
        return by_shares(widths, ratios, self._normalised(), self._structures(own))

    def _by_total(self, total: Total) -> Allocation:
        """Return the allocation in which units of some groups compete, until a share of them is gone."""
        widths = self.widths(total.groups)
        weights = np.where(total.groups, self.elements if total.of == "weights" else 1.0, 0.0)
        smallest = float(weights @ widths.of_groups(widths.settle(widths.lowest.astype(np.float64))))
        # A share asked of the channels yields to the floors, as the ratio of a single group does.
        limit = max(float(weights @ self.originals) * (1 - total.share), smallest)
        if not limit:
            return Allocation(widths.of_groups(widths.sizes))
        cap = Cap(total.of, limit, lambda kept: float(weights @ kept))
        return by_caps(
            widths, [cap], ByImportance(widths, self._normalised(), least_cut=self._least_cut(total, widths))
        )

    def _least_cut(self, total: Total, widths: Widths) -> np.ndarray:
        """Return how many units each variable must lose in any case."""
        asked = np.where(total.groups, np.round(self.scope.min_ratios * self.originals, 9), 0)
        still = np.ceil(asked - (self.originals - self.sizes)).astype(np.int64)
        least_cut = np.zeros(len(widths.sizes), dtype=np.int64)
        np.maximum.at(least_cut, widths.variable_of, still)
        return least_cut

    def _losses(self, widths: Widths) -> list[np.ndarray]:
        lost = losses_by_sum if self.losses else losses_by_share
        return [lost(curve) for curve in curves_of(widths, self._normalised())]

    def _normalised(self) -> list[np.ndarray]:
        if self.losses:
            return list(self.importances)
        return [normalised(importance, self.normalizer) for importance in self.importances]

    def _structures(self, cuttable: np.ndarray) -> np.ndarray | None:
        """Return the structure of each group, one of its own for what is left alone; None if all groups compete."""
        if self.ranking != "isomorphic":
            return None
        return np.where(cuttable, structures_of(self.graph), len(self.graph.groups))
