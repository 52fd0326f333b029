"""Units that go where they save most (time, MACs) for what they matter (docs/design.md, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from secateur.errors import PlanError
from secateur.graph.costs import Costs, Term
from secateur.planning.budgets import factors_of
from secateur.planning.widths import Widths

MOVES = 32  # that take a group from its full width to none, at the most
Marginal = Callable[[np.ndarray], np.ndarray]  # from units kept to what one unit of each group costs


class ByPrice:
    """A path along which the next units to go are those that cost most for what is lost with them.

    What things cost as the price of what they are worth is the knapsack of HALP (Shen et al., "Structural Pruning via
    Latency-Saliency Knapsack", NeurIPS 2022), here solved greedily, with prices that change with the widths.
    `losses` say, for each variable and number of units kept, what is lost with the others.
    """

    exact: ClassVar[bool] = False  # a budget that is nearly met is no reason to cut where it saves nothing

    def __init__(self, widths: Widths, losses: Sequence[np.ndarray], marginal: Marginal) -> None:
        self._widths, self._marginal = widths, marginal
        self._losses = np.concatenate([np.empty(0), *losses])
        self._start = np.cumsum([0, *map(len, losses)])[:-1]
        self._groups = np.bincount(widths.variable_of, minlength=len(widths.sizes))
        self._tied = np.concatenate([np.empty(0, np.int64), *(cluster.variables for cluster in widths.clusters)])
        kept = widths.settle(widths.sizes.astype(np.float64))
        trail = [kept]
        while (smaller := self._next(kept)) is not None:
            kept = smaller
            trail.append(kept)
        self._trail = np.array(trail[::-1])
        self.top = len(trail) - 1

    def _next(self, kept: np.ndarray) -> np.ndarray | None:
        """Return the widths after the next move, or None if there is none."""
        widths = self._widths
        prices = np.bincount(widths.variable_of, weights=self._marginal(widths.of_groups(kept)), minlength=len(kept))
        steps = np.maximum(widths.step, widths.sizes // MOVES // widths.step * widths.step)
        after = np.maximum(kept - steps, widths.lowest)
        worth = np.where(
            kept > widths.lowest, self._worth(self._losses_between(kept, after), prices * (kept - after)), np.inf
        )
        for variable in self._tied[kept[self._tied] > widths.lowest[self._tied]]:
            moved = self._narrowed(kept, int(variable), int(after[variable]))
            if moved is not None:
                lost = self._losses_between(kept, moved).sum()
                worth[variable] = self._worth(lost, float(prices @ (kept - moved)))
        for variable in np.argsort(worth, kind="stable"):
            moved = self._narrowed(kept, int(variable), int(after[variable]))
            if moved is not None:
                return moved
        return None

    def _losses_between(self, kept: np.ndarray, after: np.ndarray) -> np.ndarray:
        return (self._losses[self._start + after] - self._losses[self._start + kept]) * self._groups

    @staticmethod
    def _worth(lost: Any, saved: Any) -> Any:
        return np.where(saved > 0, lost / np.where(saved > 0, saved, 1.0), np.inf)

    def _narrowed(self, kept: np.ndarray, variable: int, wanted: int) -> np.ndarray | None:
        """Return the widths with a variable brought down to the one that is wanted, or as far as it goes."""
        moved = self._widths.narrower(kept, variable)
        while moved is not None and moved[variable] > wanted:
            further = self._widths.narrower(moved, variable)
            if further is None:
                break
            moved = further
        return moved

    def at(self, level: int) -> np.ndarray:
        """Return the widths so many moves above the floors."""
        return self._trail[level].astype(np.float64)

    def urgency(self, kept: np.ndarray) -> np.ndarray:
        """Return the move by which each variable gets wider than it is."""
        wider = self._trail > kept
        return np.where(wider.any(axis=0), wider.argmax(axis=0), np.inf)


def losses_by_share(curve: np.ndarray) -> np.ndarray:
    """Return, for each number of units kept, one over the share of importance that they hold.

    It grows as the variance of a mean over fewer terms does: the nearer a group comes to nothing, the dearer its units
    are. (By the logarithm of the share, two groups whose widths are multiplied in a layer would be exchangeable, and
    one of them would pay alone.)
    """
    shares = np.concatenate([[0.0], np.cumsum(np.maximum(curve, 0))])  # what does harm is worth nothing
    return 1 / np.maximum(shares / max(shares[-1], 1e-30), 1e-9)


def losses_by_sum(curve: np.ndarray) -> np.ndarray:
    """Return, for each number of units kept, the sum of the importances of the others, which are losses themselves."""
    kept = np.concatenate([[0.0], np.cumsum(np.maximum(curve, 0))])
    return kept[-1] - kept


def marginal_cost(costs: Costs, what: Literal["macs", "params"]) -> Marginal:
    """Return what one more unit of each group costs in MACs or parameters."""
    terms = [term for term in costs.terms if term.what == what]
    return _marginal(costs, terms, np.array([float(term.coefficient) for term in terms]))


def marginal_time(costs: Costs, times: Mapping[str, float]) -> Marginal:
    """Return what one more unit of each group takes, if the time of each layer grows as its MACs do.

    Args:
        costs: of the graph.
        times: what layers take at their full widths; one that was not measured takes what its MACs take on the average.

    Raises:
        PlanError: no layer that computes anything was measured.
    """
    terms = [term for term in costs.terms if term.what == "macs"]
    macs: dict[str, float] = {}
    for cost in costs.by_layer():
        macs[cost.layer] = macs.get(cost.layer, 0.0) + cost.macs
    measured = [layer for layer in times if macs.get(layer)]
    if not measured:
        raise PlanError("No time is known of any layer of this graph. Give times by the names of its layers.")
    average = sum(times[layer] for layer in measured) / sum(macs[layer] for layer in measured)
    rates = {layer: times[layer] / macs[layer] for layer in measured}
    return _marginal(costs, terms, np.array([term.coefficient * rates.get(term.layer, average) for term in terms]))


def _marginal(costs: Costs, terms: Sequence[Term], weights: np.ndarray) -> Marginal:
    extents = factors_of(terms, costs)
    per_extent = costs.per_unit.T

    def marginal(kept: np.ndarray) -> np.ndarray:
        values = np.append(costs.fixed + costs.per_unit @ kept, 1.0)[extents]
        slopes = np.zeros(len(costs.fixed) + 1)
        for place in range(extents.shape[1]):
            others = np.prod(np.delete(values, place, axis=1), axis=1)
            np.add.at(slopes, extents[:, place], weights * others)
        return np.asarray(per_extent @ slopes[:-1])

    return marginal
