"""How many units each group keeps: a share of each or of several, or caps on any costs (docs/design.md, section 6).

The widths asked for grow along a path, from every group at its floor to every group whole; a cap is met by bisecting
along it, and what rounding leaves is filled up unit by unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import ClassVar, Protocol

import numpy as np

from secateur.errors import BudgetError
from secateur.planning.budgets import Cap, shown
from secateur.planning.widths import Widths

_ENOUGH = 0.99  # of the budget
_LEVELS = 1 << 16
_SWAPS = 4000  # pairs tried at most to come nearer to a budget
_COMBINATIONS = 20_000  # tried at most once pairs do no longer help


class Path(Protocol):
    """How widths grow, level by level, from the floors to the full sizes; every level is at least the one below.

    `exact` says whether widths off the path may be taken to come nearer to a budget.
    """

    exact: ClassVar[bool]

    @property
    def top(self) -> int:
        """The highest level."""
        ...

    def at(self, level: int) -> np.ndarray:
        """Return the width wanted for each variable."""
        ...

    def urgency(self, kept: np.ndarray) -> np.ndarray:
        """Return for each variable how soon its next unit is due, the smallest first."""
        ...


@dataclass(frozen=True, eq=False)
class SameShare:
    """Every group loses the same share of what it may lose, so that narrow groups keep relatively more."""

    exact: ClassVar[bool] = True
    widths: Widths
    top: int = _LEVELS

    def at(self, level: int) -> np.ndarray:
        """Return the width wanted for each variable."""
        wanted = self.widths.lowest + (self.widths.full - self.widths.lowest) * (level / self.top)
        return np.minimum(wanted, self.widths.sizes)

    def urgency(self, kept: np.ndarray) -> np.ndarray:
        """Return the share of what each variable may lose that it still has."""
        return (kept - self.widths.lowest) / np.maximum(self.widths.full - self.widths.lowest, 1)


class ByImportance:
    """Units compete: within each class of variables, the most important ones above the floors come first.

    Every class keeps the same share of its units, level by level; with one class, all compete with all. `least_cut`
    says how many units of each variable are to go in any case: they come last.
    """

    exact: ClassVar[bool] = True

    def __init__(
        self,
        widths: Widths,
        importances: Sequence[np.ndarray],
        classes: np.ndarray | None = None,
        least_cut: np.ndarray | None = None,
    ) -> None:
        self._lowest = widths.lowest
        free = widths.sizes - widths.lowest
        curves = curves_of(widths, importances)
        values = np.concatenate([np.empty(0), *(curve[low:] for curve, low in zip(curves, widths.lowest, strict=True))])
        self._owners = np.repeat(np.arange(len(free)), free)
        self._start = np.concatenate([[0], np.cumsum(free)])
        number = np.arange(len(values)) - self._start[self._owners]  # of a unit above its variable's floor
        last = number >= (free if least_cut is None else widths.sizes - least_cut - widths.lowest)[self._owners]
        groups = np.bincount(widths.variable_of, minlength=len(free))  # that each variable stands for
        groups = np.where(widths.lowest < widths.full, groups, 0)  # what cannot lose anything does not compete
        self._classes = np.zeros(len(free), dtype=np.int64) if classes is None else classes
        self._full = np.bincount(self._classes, weights=groups * widths.full)
        class_of_units = self._classes[self._owners]
        floors = np.bincount(self._classes, weights=groups * widths.lowest)[class_of_units]
        self._place = floors + _before(class_of_units, values, last, groups[self._owners])
        self._order = np.lexsort((self._place, self._place / self._full[class_of_units]))
        self._rank = np.argsort(self._order)
        self.top = len(values)

    def at(self, level: int) -> np.ndarray:
        """Return the floors and how many of the `level` first units above them each variable has."""
        return self._lowest + np.bincount(self._owners[self._order[:level]], minlength=len(self._lowest))

    def without(self, ratios: np.ndarray) -> np.ndarray:
        """Return the widths wanted once every class has lost its share, in whole units, of all that it ever had."""
        kept = self._full - np.floor(np.round(ratios * self._full, 9))
        inside = self._place < kept[self._classes[self._owners]]
        return self._lowest + np.bincount(self._owners[inside], minlength=len(self._lowest))

    def urgency(self, kept: np.ndarray) -> np.ndarray:
        """Return the rank of each variable's next unit."""
        position = self._start[:-1] + kept - self._lowest
        ranks = np.append(self._rank, 0)[np.minimum(position, self.top)]
        return np.where(position < self._start[1:], ranks, np.inf)


@dataclass(frozen=True, eq=False)
class Allocation:
    """How many units each group keeps, and what that costs."""

    kept: np.ndarray  # (groups,)
    reached: Mapping[str, float] = field(default_factory=dict)  # the cost under each cap
    step: Mapping[str, float] = field(default_factory=dict)  # where a budget is not met to 1 %: what one step more adds


def by_ratio(widths: Widths, ratios: np.ndarray) -> Allocation:
    """Return the allocation in which each group loses its share of `ratios` (per group), in whole units.

    A fraction of a unit is kept; a group without a ratio (NaN) is left whole; where groups must keep equally many, the
    smallest of their ratios counts. Floors, steps and equalities come first.
    """
    ratio = smallest(widths, ratios)
    # The inner rounding takes away what is left of decimal fractions: 0.29 * 100 is not 28.999999999999996.
    wanted = widths.full - np.floor(np.round(ratio * widths.full, 9))
    return Allocation(widths.of_groups(widths.settle(wanted)))


def by_shares(
    widths: Widths, ratios: np.ndarray, importances: Sequence[np.ndarray], structures: np.ndarray | None = None
) -> Allocation:
    """Return the allocation in which groups lose their share of `ratios` (per group) together, competing by importance.

    Groups compete that were asked for the same ratio and, if `structures` (per group) are given, have the same one;
    those that can lose nothing do not count.
    What applies to `by_ratio` applies here, too, and no group is starved as in `by_caps`.
    """
    ratio = smallest(widths, ratios)
    ratio_of_class, classes = np.unique(ratio, return_inverse=True)
    if structures is not None:
        both, classes = np.unique(np.stack([classes, classes_of(widths, structures)]), axis=1, return_inverse=True)
        ratio_of_class = ratio_of_class[both[0]]
    wanted = ByImportance(widths, importances, classes.ravel()).without(ratio_of_class)
    return Allocation(widths.of_groups(_Search(widths, (), floors_too=True).settle(wanted)))


def smallest(widths: Widths, ratios: np.ndarray) -> np.ndarray:
    """Return for each variable the smallest of its groups' ratios; 0 where none has one (NaN)."""
    ratio = np.full(len(widths.sizes), np.inf)
    np.fmin.at(ratio, widths.variable_of, ratios)
    return np.where(np.isfinite(ratio), ratio, 0)


def classes_of(widths: Widths, structures: np.ndarray) -> np.ndarray:
    """Return the class of each variable: the same number where its groups have the same structures, as often."""
    counts = np.zeros((len(widths.sizes), int(structures.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(counts, (widths.variable_of, structures), 1)
    return np.unique(counts, axis=0, return_inverse=True)[1].ravel()


def by_caps(widths: Widths, caps: Sequence[Cap], path: Path) -> Allocation:
    """Return the widest allocation along `path` that stays within every cap.

    No group's kept share falls below a quarter of the median one (of the groups that may lose something); only where
    the caps ask for less than that allows, groups go down to their floors. The tightest cap is met within 1 % from
    below, or as nearly as can be; `step` then says what the smallest step more would add.

    Raises:
        BudgetError: the caps are below the smallest reachable costs; says what these are.
    """
    search = _Search(widths, tuple(caps), floors_too=True)
    if search.fill(widths.sizes) <= 1:
        return _reached(search, widths.sizes)
    kept = search.settle(path.at(0))
    if search.fill(kept) > 1:
        search, path = _Search(widths, tuple(caps), floors_too=False), SameShare(widths)
        kept = search.settle(path.at(0))
    if search.fill(kept) > 1:
        raise BudgetError(_too_small(search, kept))
    low, high = 0, path.top
    while high - low > 1:
        middle = (low + high) // 2
        candidate = search.settle(path.at(middle))
        if search.fill(candidate) <= 1:
            low, kept = middle, candidate
        else:
            high = middle
    return _reached(search, _fill_up(search, kept, path))


def _reached(search: _Search, kept: np.ndarray) -> Allocation:
    groups = search.widths.of_groups(kept)
    step = {} if search.fill(kept) >= _ENOUGH else search.smallest_step(kept)
    return Allocation(groups, {cap.name: cap.cost(groups) for cap in search.caps}, step)


def starved(widths: Widths, kept: np.ndarray, floors_too: bool) -> np.ndarray:
    """Return, for each variable, the width that a quarter of the median share asks for; 0 where it has that.

    The median is over the groups that may lose something. `floors_too` counts groups at their floors as well.
    """
    free = (widths.lowest < widths.sizes)[widths.variable_of]
    if not free.any():
        return np.zeros_like(kept)
    quarter = np.median(widths.of_groups(kept / widths.full)[free]) / 4
    needed = np.minimum(np.ceil(quarter * widths.full - 1e-9), widths.sizes).astype(np.int64)
    return np.where((kept < needed) & (floors_too | (kept > widths.lowest)), needed, 0)


@dataclass(frozen=True, eq=False)
class _Search:
    widths: Widths
    caps: tuple[Cap, ...]
    floors_too: bool  # whether a group at its floor may count as starved

    def fill(self, kept: np.ndarray) -> float:
        groups = self.widths.of_groups(kept)
        return max(cap.fill(groups) for cap in self.caps)

    def starved(self, kept: np.ndarray) -> np.ndarray:
        return starved(self.widths, kept, self.floors_too)

    def settle(self, wanted: np.ndarray) -> np.ndarray:
        """Return the allowed widths nearest to the wanted ones, none of them starved."""
        at_least = self.widths.lowest
        kept = self.widths.settle(wanted)
        # Raising the starved may raise the median; each round raises one more, and a few always do.
        for _ in range(len(self.widths.sizes)):
            needed = self.starved(kept)
            if not (needed > at_least).any():
                break
            at_least = np.maximum(at_least, needed)
            kept = self.widths.settle(wanted, at_least)
        return kept

    def fits(self, candidate: np.ndarray | None, kept: np.ndarray) -> bool:
        """Tell whether a change stays within the caps and starves nobody more than before."""
        if candidate is None or self.fill(candidate) > 1:
            return False
        return bool(np.count_nonzero(self.starved(candidate)) <= np.count_nonzero(self.starved(kept)))

    def wider(self, kept: np.ndarray, variable: int) -> np.ndarray | None:
        """Return the next larger widths for a variable that do not leave it starved."""
        candidate = self.widths.wider(kept, variable)
        if candidate is None:
            return None
        needed = int(self.starved(candidate)[variable])
        return self.widths.raised(kept, variable, needed) if needed else candidate

    def smallest_step(self, kept: np.ndarray) -> dict[str, float]:
        groups = self.widths.of_groups(kept)
        more = [w for v in range(len(kept)) if (w := self.widths.wider(kept, v)) is not None] or [self.widths.sizes]
        tightest = max(self.caps, key=lambda cap: cap.fill(groups))
        added = [tightest.cost(self.widths.of_groups(w)) - tightest.cost(groups) for w in more]
        return {tightest.name: min(value for value in added if value > 0)} if any(v > 0 for v in added) else {}


def _fill_up(search: _Search, kept: np.ndarray, path: Path) -> np.ndarray:
    while search.fill(kept) < _ENOUGH:
        better = next(_fitting_steps(search, kept, path), None)
        if better is None and not path.exact:
            return kept
        if better is None:
            better = _exchange(search, kept, path)
        if better is None:
            return _nearest_below(search, kept)
        kept = better
    return kept


def _fitting_steps(search: _Search, kept: np.ndarray, path: Path) -> Iterator[np.ndarray]:
    for variable in np.argsort(path.urgency(kept), kind="stable"):
        candidate = search.wider(kept, int(variable))
        if candidate is not None and search.fits(candidate, kept):
            yield candidate


def _exchange(search: _Search, kept: np.ndarray, path: Path) -> np.ndarray | None:
    """Return the best of the widths that give one step to a variable and take one from another, if it fills more."""
    best, best_fill = None, search.fill(kept) + 1e-9
    order = np.argsort(path.urgency(kept), kind="stable")
    pairs = ((int(taken), int(given)) for taken in order[::-1] for given in order if taken != given)
    for _, (taken, given) in zip(range(_SWAPS), pairs, strict=False):
        less = search.widths.narrower(kept, taken)
        candidate = None if less is None else search.wider(less, given)
        if candidate is None or search.fill(candidate) <= best_fill or not search.fits(candidate, kept):
            continue
        best, best_fill = candidate, search.fill(candidate)
        if best_fill >= _ENOUGH:
            break
    return best


def _nearest_below(search: _Search, kept: np.ndarray) -> np.ndarray:
    """Return what fills the caps best among all widths near by: in a small network, all there are."""
    best, best_rank = kept, (search.fill(kept), 0.0)
    for values in product(*_windows(search.widths, kept)):
        candidate = np.array(values)
        fill = search.fill(candidate)
        # Full enough is enough: among those the one that changes least.
        distance = float((np.abs(candidate - kept) / search.widths.sizes).sum())
        rank = (min(fill, _ENOUGH), -distance)
        if fill <= 1 and rank > best_rank and search.widths.holds(candidate) and search.fits(candidate, kept):
            best, best_rank = candidate, rank
    return best


def _windows(widths: Widths, kept: np.ndarray) -> list[np.ndarray]:
    """Return the values to try for each variable: as many steps up and down as the number of combinations allows."""
    for radius in (1024, 256, 64, 16, 8, 4, 2, 1):
        found = [widths.around(kept, variable, radius) for variable in range(len(kept))]
        if math.prod(len(values) for values in found) <= _COMBINATIONS:
            return found
    few = max(1, int(math.log(_COMBINATIONS, 3)))
    return [values if variable < few else kept[variable : variable + 1] for variable, values in enumerate(found)]


def _before(classes: np.ndarray, values: np.ndarray, last: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weight of what precedes each value in its class: larger ones; those marked `last` after all others."""
    order = np.lexsort((np.arange(len(values)), -values, last, classes))
    before = np.cumsum(weights[order]) - weights[order]
    first = np.searchsorted(classes[order], classes[order])
    found = np.empty(len(values))
    found[order] = before - before[first]
    return found


def curves_of(widths: Widths, importances: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return each variable's importances, the largest first, averaged over its groups."""
    summed = [np.zeros(size) for size in widths.sizes]
    counts = np.bincount(widths.variable_of, minlength=len(summed))
    for variable, importance in zip(widths.variable_of, importances, strict=True):
        summed[variable] += np.sort(importance)[::-1][: widths.sizes[variable]]
    return [total / count for total, count in zip(summed, counts, strict=True)]


def _too_small(search: _Search, kept: np.ndarray) -> str:
    groups = search.widths.of_groups(kept)
    asked = " and ".join(f"{cap.name}={shown(cap.limit)}" for cap in search.caps)
    floors = " and ".join(f"{cap.name}={shown(cap.cost(groups))}" for cap in search.caps)
    return (
        f"A budget of {asked} is below the smallest reachable, which is {floors} with every group at its floor. "
        "Ask for at least that, lower min_channels, raise max_ratio, or put more layers in scope."
    )
