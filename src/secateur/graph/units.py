"""Units: which atoms go together.

Most axes of a network are tied to others as a whole, index by index: a convolution's outputs to the weight, bias, mean
and variance of its norm. These twins are sorted by axis, and only what is tied otherwise atom by atom, so that the
time depends on the number of layers more than on their widths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from secateur.graph.atoms import Atoms

Edge = tuple[np.ndarray, np.ndarray]  # labels (n,) and those that they were unified with


@dataclass(frozen=True, eq=False)
class Units:
    """Atoms sorted into units."""

    of_atom: np.ndarray  # (atoms + 1,): the unit of every atom; atom 0 has the unit of its own
    count: int
    twin: np.ndarray  # (axes,): the first axis whose atoms go with this one's, index by index
    atoms: np.ndarray  # (n,): the atoms of those first axes, of which every unit has one
    axis: np.ndarray  # (n,): the axis of each of these

    @classmethod
    def of(cls, atoms: Atoms, edges: Sequence[Edge]) -> Units:
        """Sort all atoms, given what was unified."""
        twin, others = _twins(atoms, edges)
        sizes, starts = atoms.sizes(), np.asarray(atoms.starts, np.int64)
        axes = np.flatnonzero(twin == np.arange(len(twin)))
        axis = np.repeat(axes, sizes[axes])
        first = np.zeros(len(twin), np.int64)  # the number of each first axis' first atom, once its twins are left out
        first[axes] = np.cumsum(sizes[axes]) - sizes[axes] + 1
        offsets = np.arange(1, atoms.total + 1) - np.repeat(starts, sizes)
        number = np.concatenate([[0], np.repeat(first[twin], sizes) + offsets])
        unit = _components(len(axis) + 1, [(number[a], number[b]) for a, b in others])
        own = np.arange(len(axis)) + np.repeat(starts[axes] - first[axes] + 1, sizes[axes])
        return cls(unit[number], int(unit.max()) + 1, twin, own, axis)

    def of_leads(self) -> np.ndarray:
        """Return the units of `atoms`."""
        return self.of_atom[self.atoms]

    def first_atoms(self) -> np.ndarray:
        """Return the first atom of every unit."""
        first = np.zeros(self.count, np.int64)
        first[self.of_leads()[::-1]] = self.atoms[::-1]  # of several that are written the last one stays
        return first


def _twins(atoms: Atoms, edges: Iterable[Edge]) -> tuple[np.ndarray, list[Edge]]:
    """Return the first twin of every axis, and the edges that tie anything but whole axes."""
    twin = list(range(len(atoms.axes)))
    others = []
    for edge in edges:
        one, other = (atoms.whole(labels) for labels in edge)
        if one is None or other is None:
            others.append(edge)
        else:
            one, other = _first(twin, one), _first(twin, other)
            twin[max(one, other)] = min(one, other)
    return np.array([_first(twin, axis) for axis in twin], np.int64), others


def _first(twin: list[int], axis: int) -> int:
    while twin[axis] != axis:
        twin[axis] = twin[twin[axis]]
        axis = twin[axis]
    return axis


def _components(size: int, edges: Sequence[Edge]) -> np.ndarray:
    if not edges:
        return np.arange(size)
    a, b = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(np.int64)
