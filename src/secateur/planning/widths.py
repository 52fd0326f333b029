"""How wide each group may be: whole numbers with floors, steps and the graph's equalities (docs/design.md, section 4).

Groups that must keep equally many units share one variable. What the graph asks beyond that ties variables into
clusters, which are settled by a small integer programme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from secateur.graph.groups import Graph
from secateur.planning.clusters import Cluster
from secateur.planning.outputs import Outputs, axis_length, producing_axes


@dataclass(frozen=True, eq=False)
class Widths:
    """The variables of an allocation: `lowest`, `lowest + step`, ... up to `sizes`, and `sizes` itself."""

    variable_of: np.ndarray  # (groups,) the variable of each group
    sizes: np.ndarray  # (variables,) units
    lowest: np.ndarray  # (variables,)
    step: np.ndarray  # (variables,)
    full: np.ndarray  # (variables,) units of the model before any cut: what shares are of; `sizes`, if nothing is cut
    clusters: tuple[Cluster, ...] = ()

    @cached_property
    def _cluster_of(self) -> dict[int, Cluster]:
        return {int(variable): cluster for cluster in self.clusters for variable in cluster.variables}

    @cached_property
    def _moves(self) -> dict[int, np.ndarray | None]:
        """For each tied variable, the smallest widening that takes it in and keeps its cluster's conditions."""
        return {
            int(variable): cluster.smallest_move(position, self.step[cluster.variables], self._free[cluster.variables])
            for cluster in self.clusters
            for position, variable in enumerate(cluster.variables)
        }

    @property
    def _free(self) -> np.ndarray:
        return self.lowest < self.sizes

    @property
    def _last(self) -> np.ndarray:
        """The widest width on the grid; the full size may lie beyond it."""
        return self.lowest + (self.sizes - self.lowest) // self.step * self.step

    def of_groups(self, kept: np.ndarray) -> np.ndarray:
        """Return the number of kept units of every group."""
        return kept[self.variable_of]

    def settle(self, wanted: np.ndarray, at_least: np.ndarray | None = None) -> np.ndarray:
        """Return the allowed widths nearest to the `wanted` ones; none under `at_least` where that can be had."""
        low = self.lowest if at_least is None else np.maximum(self.lowest, self._up_to_grid(at_least))
        kept = np.maximum(self._nearest(wanted), low)
        for cluster in self.clusters:
            own = cluster.variables
            if not cluster.holds(kept[own]):
                kept[own] = cluster.settle(wanted[own], self._bounds(own, low), self._bounds(own, self.lowest))
        return kept

    def wider(self, kept: np.ndarray, variable: int) -> np.ndarray | None:
        """Return the widths with one step more for a variable and those tied to it, or None if there is none."""
        if variable in self._cluster_of:
            return self._moved(kept, self._cluster_of[variable], variable, 1)
        if kept[variable] >= self.sizes[variable]:
            return None
        return _with(kept, variable, min(kept[variable] + self.step[variable], self.sizes[variable]))

    def narrower(self, kept: np.ndarray, variable: int) -> np.ndarray | None:
        """Return the widths with one step less for a variable and those tied to it, or None if there is none."""
        if variable in self._cluster_of:
            return self._moved(kept, self._cluster_of[variable], variable, -1)
        if kept[variable] <= self.lowest[variable]:
            return None
        last = self._last[variable]
        return _with(kept, variable, last if kept[variable] > last else kept[variable] - self.step[variable])

    def raised(self, kept: np.ndarray, variable: int, at_least: int) -> np.ndarray | None:
        """Return the widths with a variable raised to at least so many units; None where it is tied to others."""
        if variable in self._cluster_of:
            return None
        wanted = self.lowest.copy()
        wanted[variable] = at_least
        return _with(kept, variable, int(self._up_to_grid(wanted)[variable]))

    def around(self, kept: np.ndarray, variable: int, radius: int) -> np.ndarray:
        """Return the widths that a variable may have, up to so many steps below and above the one it has."""
        low, size = self.lowest[variable], self.sizes[variable]
        values = np.union1d(np.arange(low, size, self.step[variable]), [size, kept[variable]])
        position = int(np.searchsorted(values, kept[variable]))
        return values[max(0, position - radius) : position + radius + 1]

    def holds(self, kept: np.ndarray) -> bool:
        """Tell whether the widths satisfy every condition between variables."""
        return all(cluster.holds(kept[cluster.variables]) for cluster in self.clusters)

    def _nearest(self, wanted: np.ndarray) -> np.ndarray:
        steps = np.rint((wanted - self.lowest) / self.step).astype(np.int64)
        on_grid = np.clip(self.lowest + steps * self.step, self.lowest, self._last)
        return np.where(np.abs(self.sizes - wanted) < np.abs(on_grid - wanted), self.sizes, on_grid)

    def _up_to_grid(self, wanted: np.ndarray) -> np.ndarray:
        steps = -((self.lowest - wanted) // self.step)
        on_grid = self.lowest + np.maximum(steps, 0) * self.step
        return np.where(on_grid > self._last, self.sizes, on_grid)

    def _bounds(self, own: np.ndarray, low: np.ndarray) -> np.ndarray:
        return np.stack([low[own], self.lowest[own], self.step[own], self.sizes[own]])

    def _moved(self, kept: np.ndarray, cluster: Cluster, variable: int, sign: int) -> np.ndarray | None:
        own = cluster.variables
        move = self._moves[variable]
        if move is None:
            return None
        moved = kept.copy()
        moved[own] += sign * move
        inside = (moved[own] >= self.lowest[own]) & (moved[own] <= self.sizes[own])
        on_grid = (moved[own] - self.lowest[own]) % self.step[own] == 0
        return moved if (inside & (on_grid | (moved[own] == self.sizes[own]))).all() else None


def widths_of(
    graph: Graph,
    outputs: Outputs,
    cuttable: np.ndarray,
    excluded: np.ndarray,
    lowest: np.ndarray,
    round_to: int | None = None,
    full: np.ndarray | None = None,
) -> Widths:
    """Return the widths that the graph, the floors (`lowest`, per group) and `round_to` allow.

    `full` says how many units each group had before anything was cut; left out, the graph is of the full-size model.

    Groups that must keep equally many units are cut together as soon as one of them is cuttable, unless one is
    excluded. With `round_to`, the channels of a layer stay a multiple of it (or all of them): where its channels are
    split over groups of one size, such as the halves of a split norm, these keep equally many and their sum is the
    multiple; over groups of different sizes, the parts' remainders stay, and where these do not add up to a multiple,
    each part is one. Where no such number lies between floor and size the group is left whole.
    """
    variable_of = _variables(graph, outputs, cuttable if round_to else None)
    count = int(variable_of.max(initial=-1)) + 1
    group_sizes = np.array([group.size for group in graph.groups], dtype=np.int64)
    sizes = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(sizes, variable_of, group_sizes)
    before = np.full(count, np.inf)
    np.minimum.at(before, variable_of, group_sizes if full is None else full)
    floor = np.ones(count, dtype=np.int64)
    np.maximum.at(floor, variable_of, lowest)
    open_ = np.zeros(count, dtype=bool)
    open_[variable_of[cuttable]] = True
    open_[variable_of[excluded]] = False
    floor = np.where(open_, np.minimum(floor, sizes), sizes)
    step = np.ones(count, dtype=np.int64)
    if round_to:
        floor, step = _rounded(graph, outputs, variable_of, sizes, floor, round_to)
    return Widths(variable_of, sizes, floor, step, before, _clusters(graph, variable_of, count))


def _with(kept: np.ndarray, variable: int, value: int) -> np.ndarray:
    changed = kept.copy()
    changed[variable] = value
    return changed


def _variables(graph: Graph, outputs: Outputs, balanced: np.ndarray | None) -> np.ndarray:
    """Number the sets of groups that must keep equally many units, in the order of the groups."""
    pairs = _simple_pairs(graph)
    if balanced is not None:
        pairs += _same_sized_parts(graph, outputs, balanced)
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(edges), dtype=np.int8)
    shape = (len(graph.groups), len(graph.groups))
    _, found = connected_components(coo_array((ones, (edges[:, 0], edges[:, 1])), shape=shape), directed=False)
    _, first, numbers = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


def _is_simple(graph: Graph) -> np.ndarray:
    """Tell for each condition whether it says that two groups keep equally many units."""
    matrix = graph.equalities.matrix
    return ((matrix != 0).sum(axis=1) == 2) & (matrix.sum(axis=1) == 0) & (graph.equalities.target == 0)


def _simple_pairs(graph: Graph) -> list[tuple[int, ...]]:
    _, columns = np.nonzero(graph.equalities.matrix[_is_simple(graph)])
    return [(int(a), int(b)) for a, b in columns.reshape(-1, 2)]


def _same_sized_parts(graph: Graph, outputs: Outputs, cuttable: np.ndarray) -> list[tuple[int, ...]]:
    pairs = []
    for along in producing_axes(outputs).values():
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, indices in along.items():
            if cuttable[number]:
                by_size.setdefault((graph.groups[number].size, indices), []).append(number)
        pairs += [pair for numbers in by_size.values() for pair in pairwise(numbers)]
    return pairs


def _rounded(
    graph: Graph, outputs: Outputs, variable_of: np.ndarray, sizes: np.ndarray, floor: np.ndarray, round_to: int
) -> tuple[np.ndarray, np.ndarray]:
    allowed = [np.ones(size + 1, dtype=bool) for size in sizes]
    for (tensor, axis), along in producing_axes(outputs).items():
        units: dict[int, int] = {}
        for number, indices in along.items():
            units[int(variable_of[number])] = units.get(int(variable_of[number]), 0) + indices
        width = axis_length(graph.tensors[tensor], axis)
        fixed = width - sum(n * int(sizes[v]) for v, n in units.items())
        for variable, indices in units.items():
            # Where the whole width is a multiple, every part keeps its own remainder, and so does their sum.
            whole = indices * int(sizes[variable]) if len(units) > 1 and width % round_to == 0 else 0
            rest = fixed if len(units) == 1 else -whole
            # Protected channels may leave a remainder that no number of units fills up; such a layer is not rounded.
            if rest % math.gcd(round_to, indices) == 0:
                allowed[variable] &= (np.arange(sizes[variable] + 1) * indices + rest) % round_to == 0
    new_floor, step = floor.copy(), np.ones_like(floor)
    for variable, mask in enumerate(allowed):
        inside = np.flatnonzero(mask[: sizes[variable]])
        inside = inside[inside >= floor[variable]]
        new_floor[variable] = inside[0] if len(inside) else sizes[variable]
        step[variable] = inside[1] - inside[0] if len(inside) > 1 else max(1, sizes[variable] - new_floor[variable])
    return new_floor, step


def _clusters(graph: Graph, variable_of: np.ndarray, count: int) -> tuple[Cluster, ...]:
    groups = len(graph.groups)
    if not groups or not len(graph.equalities.matrix):
        return ()
    general = ~_is_simple(graph)
    merge = coo_array((np.ones(groups, dtype=np.int64), (np.arange(groups), variable_of)), shape=(groups, count))
    matrix = np.asarray(graph.equalities.matrix[general] @ merge)
    rows = np.unique(np.column_stack([matrix, graph.equalities.target[general]])[matrix.any(axis=1)], axis=0)
    matrix, target = rows[:, :-1], rows[:, -1]
    touches = coo_array(matrix != 0)
    _, part = connected_components(touches.T @ touches, directed=False)
    tied = matrix.any(axis=0)
    found = []
    for number in dict.fromkeys(part[tied]):
        variables = np.flatnonzero((part == number) & tied)
        own = matrix[:, variables].any(axis=1)
        found.append(Cluster(variables, matrix[np.ix_(own, variables)], target[own]))
    return tuple(found)
