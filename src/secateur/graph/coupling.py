"""From what a run recorded to units: which atoms go together, which must stay, and which look alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from secateur.graph.atoms import Atoms
from secateur.graph.groups import Reason
from secateur.graph.provenance import Extent, attributes_in
from secateur.graph.recording import Decision, Recorder, Scaling, Use

MEASURED = Reason("an attribute that gives their number is used as a number, too")
DATA = Reason("these channels come from a buffer, which is data like the model's input")
POSITIONS = Reason("these are positions or entries of a table: no layer makes or reads them as channels")
UNREAD = Reason("no layer reads these channels through weights")


@dataclass(frozen=True, eq=False)
class Coupling:
    """Atoms sorted into units and families (groups); family -1: not to be cut."""

    atoms: Atoms
    unit_of: np.ndarray  # (atoms + 1,): the unit of every atom; atom 0 has the unit of its own
    family_of: np.ndarray  # (units,)
    rank_of: np.ndarray  # (units,): the number of a unit within its family
    sizes: np.ndarray  # (families,)
    marks: np.ndarray  # (units, 2) uint64: the same for units with the same members, also at other widths
    reasons: dict[int, Reason]  # by unit: why it stays
    tables: tuple[tuple[np.ndarray, Reason], ...]
    uses: tuple[Use, ...]
    decisions: tuple[Decision, ...]
    parts: tuple[np.ndarray, ...]  # labels that a bound or a split sets apart
    scalings: tuple[Scaling, ...]
    averaged: np.ndarray  # (families,) bool: statistics are taken across these channels
    rows: TableRows

    def families(self, labels: np.ndarray) -> np.ndarray:
        """Return the family of every label, -1 for what stays."""
        return np.where(labels == 0, -1, self.family_of[self.unit_of[labels]])

    def linear(self, extent: Extent) -> tuple[float, np.ndarray]:
        """Return a size as `fixed + counts @ kept`, with the numbers of kept units of each family."""
        labels = self.narrowed(extent)
        share = labels.shape[1]
        families = self.families(labels).ravel()
        cut = families[families >= 0]
        counts = np.bincount(cut, minlength=len(self.sizes)) / np.maximum(self.sizes, 1) / share
        return (families.size - len(cut)) / share, counts

    def narrowed(self, extent: Extent) -> np.ndarray:
        """Reduce the labels (n, m) of a dimension to what decides its size: one column, or none that goes."""
        labels = extent.labels
        if labels.shape[1] == 1:
            return labels
        units = self.unit_of[labels]
        if (units == units[:, :1]).all():
            return labels[:, :1]
        if not extent.columns and self.rows.lie_within(labels):
            return np.zeros((len(labels), 1), np.int64)
        return labels


def couple(run: Recorder) -> Coupling:
    """Sort the atoms of a run."""
    unit_of = _units(run)
    count = int(unit_of.max()) + 1
    reasons = _reasons(run, unit_of)
    for unit in _measured(run, unit_of):
        reasons.setdefault(unit, MEASURED)
    for unit in _data(run, unit_of).tolist():
        reasons.setdefault(unit, DATA)
    rows = TableRows.of(run.tables)
    for unit, reason in _pinned(run, unit_of, rows).items():
        reasons.setdefault(unit, reason)
    free = np.zeros(count, bool)
    for labels in run.read:
        free[unit_of[labels]] = True
    for unit in np.flatnonzero(~free & (np.bincount(unit_of) > 1)):  # alone: a kernel extent, which is no channel
        reasons.setdefault(int(unit), UNREAD)
    for unit in _positions(run, unit_of):
        if free[unit]:
            reasons.setdefault(int(unit), POSITIONS)
    free[list(reasons)] = False
    free[unit_of[0]] = False
    hashes = _signatures(run, unit_of, count)
    family_of, rank_of, sizes = _families(hashes, free, unit_of)
    averaged = np.zeros(len(sizes), bool)
    for labels in run.averaged:
        found = family_of[unit_of[labels]]
        averaged[found[found >= 0]] = True
    return Coupling(
        run.atoms,
        unit_of,
        family_of,
        rank_of,
        sizes,
        hashes,
        reasons,
        tuple(run.tables),
        tuple(run.uses),
        tuple(run.decisions),
        tuple(run.parts),
        tuple(run.scalings),
        averaged,
        rows,
    )


def _units(run: Recorder) -> np.ndarray:
    size = run.atoms.total + 1
    if not run.edges:
        return np.arange(size)
    a, b = (np.concatenate(side) for side in zip(*run.edges, strict=True))
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _reasons(run: Recorder, unit_of: np.ndarray) -> dict[int, Reason]:
    reasons: dict[int, Reason] = {}
    for atoms, reason in run.fixed:
        for unit in np.unique(unit_of[atoms]).tolist():
            reasons.setdefault(unit, reason)
    return reasons


def _data(run: Recorder, unit_of: np.ndarray) -> np.ndarray:
    """Return the units of what buffers give to layers, as a table of coordinates does: no layer makes them."""
    buffer = np.array([False, *(name in run.buffers for name, _ in run.atoms.axes)])[run.atoms.axis_of() + 1]
    weighed, consumed = _marked(run.weighed, len(unit_of)), _marked(run.consumed, len(unit_of))
    given = np.isin(np.arange(int(unit_of.max()) + 1), unit_of[buffer & ~weighed])
    made = np.isin(np.arange(len(given)), unit_of[1:][((~buffer | weighed) & ~consumed)[1:]])
    return np.flatnonzero(given & ~made)


def _positions(run: Recorder, unit_of: np.ndarray) -> np.ndarray:
    """Return the units that no layer's weight is part of: entries of a table, or tokens."""
    return np.setdiff1d(unit_of, unit_of[_marked(run.weighed, len(unit_of))])


def _marked(labels: Sequence[np.ndarray], size: int) -> np.ndarray:
    marked = np.zeros(size, bool)
    for each in labels:
        marked[each] = True
    return marked


def _measured(run: Recorder, unit_of: np.ndarray) -> list[int]:
    """Return the units that give the size of an attribute that is also used as a number."""
    numbers = set(run.numbers)
    uses = [use for use in run.uses if not numbers.isdisjoint(attributes_in(use.expression))]
    return np.unique(np.concatenate([unit_of[use.extent.labels].ravel() for use in uses])).tolist() if uses else []


def _pinned(run: Recorder, unit_of: np.ndarray, rows: TableRows) -> dict[int, Reason]:
    """Return the units that must stay so that no position of a pinned dimension disappears or moves."""
    reasons: dict[int, Reason] = {}
    for matrix, reason in run.pins:
        units = unit_of[matrix]
        lone = (units == units[:, :1]).all(axis=1) & (matrix != 0).all(axis=1)
        endangered = units if rows.touch(matrix) and not rows.lie_within(matrix) else units[lone]
        for unit in np.unique(endangered).tolist():
            reasons.setdefault(unit, reason)
    return reasons


@dataclass(frozen=True, eq=False)
class TableRows:
    """In which rows of which tables each atom lies, sorted by atom."""

    atoms: np.ndarray
    table: np.ndarray
    row: np.ndarray  # numbered through all tables

    @classmethod
    def of(cls, tables: Sequence[tuple[np.ndarray, Reason]]) -> TableRows:
        """Index the cells of all tables."""
        atoms, table, row, last = [], [], [], 0
        for number, (matrix, _) in enumerate(tables):
            atoms.append(matrix.ravel())
            table.append(np.full(matrix.size, number))
            row.append(np.repeat(last + np.arange(len(matrix)), matrix.shape[1]))
            last += len(matrix)
        if not tables:
            return cls(*(np.zeros(0, np.int64) for _ in range(3)))
        order = np.argsort(np.concatenate(atoms), kind="stable")
        return cls(*(np.concatenate(part)[order] for part in (atoms, table, row)))

    def touch(self, labels: np.ndarray) -> bool:
        """Tell whether any table has one of these labels."""
        return len(self._cells(labels)[0]) > 0

    def lie_within(self, labels: np.ndarray) -> bool:
        """Tell whether, in some table, every row lies within one position of (positions, m) labels."""
        cells, places = self._cells(labels)
        for table in np.unique(self.table[cells]):
            own = self.table[cells] == table
            rows, place = self.row[cells][own], places[own]
            order = np.argsort(rows, kind="stable")
            same_row = np.diff(rows[order]) == 0
            if not (same_row & (np.diff(place[order]) != 0)).any():
                return True
        return False

    def _cells(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells with these labels, and the position of each."""
        flat = labels.ravel()
        place = np.repeat(np.arange(len(labels)), labels.shape[1])[flat != 0]
        flat = flat[flat != 0]
        start, end = (np.searchsorted(self.atoms, flat, side) for side in ("left", "right"))
        counts = end - start
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(start, counts) + offsets, np.repeat(place, counts)


def _signatures(run: Recorder, unit_of: np.ndarray, count: int) -> np.ndarray:
    """Add up, for every unit, numbers that stand for its axes and its rows in the tables: (units, 2) uint64."""
    sums = np.zeros((count, 2), np.uint64)
    if run.atoms.axes:
        np.add.at(sums, unit_of[1:], run.atoms.hashes()[run.atoms.axis_of()[1:]])
    generator = np.random.default_rng(0)
    for matrix, _ in run.tables:
        marks = generator.integers(0, 2**63, (len(matrix), 2)).astype(np.uint64)
        cells = matrix != 0
        np.add.at(sums, unit_of[matrix[cells]], marks[np.nonzero(cells)[0]])
    for labels in run.parts:
        mark = generator.integers(0, 2**63, 2).astype(np.uint64)
        np.add.at(sums, np.unique(unit_of[labels[labels != 0]]), mark)
    return sums


def _families(hashes: np.ndarray, free: np.ndarray, unit_of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units with the same signature form a family; families and units in the order of their first atoms."""
    first_atom = np.full(len(hashes), len(unit_of), np.int64)
    np.minimum.at(first_atom, unit_of, np.arange(len(unit_of)))
    units = np.flatnonzero(free)
    units = units[np.argsort(first_atom[units], kind="stable")]
    family_of = np.full(len(hashes), -1, np.int64)
    rank_of = np.full(len(hashes), -1, np.int64)
    _, first, inverse = np.unique(hashes[units], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    family_of[units] = number[inverse.ravel()]
    sizes = np.bincount(family_of[units], minlength=len(order)).astype(np.int64)
    by_family = np.argsort(family_of[units], kind="stable")
    starts = np.cumsum(sizes) - sizes
    rank_of[units[by_family]] = np.arange(len(units)) - np.repeat(starts, sizes)
    return family_of, rank_of, sizes
