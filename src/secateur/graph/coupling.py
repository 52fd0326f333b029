"""From what a run recorded to units: which atoms go together, which must stay, and which look alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from secateur.graph.atoms import Atoms
from secateur.graph.groups import Reason
from secateur.graph.labels import digest, distinct
from secateur.graph.provenance import Extent, attributes_in
from secateur.graph.recording import Decision, Recorder, Scaling, Use
from secateur.graph.units import Edge, Units

Fixed = tuple[np.ndarray, Reason]  # atoms that stay

MEASURED = Reason("an attribute that gives their number is used as a number, too")
DATA = Reason("these channels come from a buffer, which is data like the model's input")
POSITIONS = Reason("these are positions or entries of a table: no layer makes or reads them as channels")
UNREAD = Reason("no layer reads these channels through weights")


@dataclass(frozen=True, eq=False)
class Coupling:
    """Atoms sorted into units and families (groups); family -1: not to be cut."""

    atoms: Atoms
    units: Units
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
    leaving: np.ndarray  # (families,) bool: these channels leave the model
    rows: TableRows

    @property
    def unit_of(self) -> np.ndarray:
        """The unit of every atom, (atoms + 1,); atom 0 has the unit of its own."""
        return self.units.of_atom

    def families(self, labels: np.ndarray) -> np.ndarray:
        """Return the family of every label, -1 for what stays."""
        return np.where(labels == 0, -1, self.family_of[self.unit_of[labels]])

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
    rows = TableRows.of(run.tables)
    edges, fixed = _settled_spreads(run, rows)
    units = Units.of(run.atoms, [*run.edges, *edges])
    reasons, free = _reasons(run, units, rows, [*run.fixed, *fixed])
    marks = _signatures(run, units)
    family_of, rank_of, sizes = _families(marks, free, units)
    averaged, leaving = np.zeros((2, len(sizes)), bool)
    for flags, events in ((averaged, run.averaged), (leaving, run.leaving)):
        for labels in events:
            found = family_of[units.of_atom[labels]]
            flags[found[found >= 0]] = True
    return Coupling(
        run.atoms,
        units,
        family_of,
        rank_of,
        sizes,
        marks,
        reasons,
        tuple(run.tables),
        tuple(run.uses),
        tuple(run.decisions),
        tuple(run.parts),
        tuple(run.scalings),
        averaged,
        leaving,
        rows,
    )


def _settled_spreads(run: Recorder, rows: TableRows) -> tuple[list[Edge], list[Fixed]]:
    """Labels that meet whole rows of a table stay, as rows do; others go together with all that they meet."""
    edges: list[Edge] = []
    fixed: list[Fixed] = []
    for narrow, wide, reason in run.spreads:
        if rows.lie_within(wide):
            fixed.append((distinct(narrow[narrow != 0]), reason))
        else:
            one, other = (side.ravel() for side in np.broadcast_arrays(narrow, wide))
            both = (one != 0) & (other != 0)
            edges.append((one[both], other[both]))
            lone = np.where(both, 0, np.maximum(one, other))
            fixed.append((distinct(lone[lone != 0]), reason))
    return edges, fixed


def _reasons(
    run: Recorder, units: Units, rows: TableRows, fixed: Sequence[Fixed]
) -> tuple[dict[int, Reason], np.ndarray]:
    """Return the first reason of every unit that stays, and a flag for every unit that may be cut."""
    unit_of = units.of_atom
    reasons: dict[int, Reason] = {}
    stays = np.zeros(units.count, bool)

    def keep(some: np.ndarray, reason: Reason) -> None:
        new = distinct(some[~stays[some]])
        stays[new] = True
        reasons.update(dict.fromkeys(new.tolist(), reason))

    for atoms, reason in fixed:
        keep(unit_of[atoms], reason)
    keep(_measured(run, unit_of, rows), MEASURED)
    keep(_data(run, units), DATA)
    for some, reason in _pinned(run, unit_of, rows):
        keep(some, reason)
    read = np.zeros(units.count, bool)
    for labels in (*run.read, *run.leaving):
        read[unit_of[labels]] = True
    several = np.bincount(unit_of) > 1  # alone: a kernel extent, which is no channel
    keep(np.flatnonzero(~read & several), UNREAD)
    positions = _positions(run, units)
    keep(positions[read[positions]], POSITIONS)
    free = read & ~stays
    free[unit_of[0]] = False
    return reasons, free


def _data(run: Recorder, units: Units) -> np.ndarray:
    """Return the units of what buffers give to layers, as a table of coordinates does: no layer makes them."""
    atoms, unit_of = run.atoms, units.of_atom
    buffers = np.array([name in run.buffers for name, _ in atoms.axes], bool)
    consumed = {atoms.whole(labels) for labels in run.consumed}
    if None not in consumed:  # the usual case: whole axes, of which none belongs to a buffer alone
        weighed = {atoms.whole(labels) for labels in run.weighed}
        made = {
            units.twin[at] for at in range(len(buffers)) if at not in consumed and (at in weighed or not buffers[at])
        }
        if made.issuperset(units.twin[buffers].tolist()):
            return np.zeros(0, np.int64)
    buffer = np.array([False, *buffers])[atoms.axis_of() + 1]
    weighed, consumed = _marked(run.weighed, len(unit_of)), _marked(run.consumed, len(unit_of))
    given, made = np.zeros((2, units.count), bool)
    given[unit_of[buffer & ~weighed]] = True
    made[unit_of[1:][((~buffer | weighed) & ~consumed)[1:]]] = True
    return np.flatnonzero(given & ~made)


def _positions(run: Recorder, units: Units) -> np.ndarray:
    """Return the units that no layer's weight is part of: entries of a table, or tokens."""
    weighed = np.zeros(units.count, bool)
    for labels in run.weighed:
        weighed[units.of_atom[labels]] = True
    return np.flatnonzero(~weighed)


def _marked(labels: Sequence[np.ndarray], size: int) -> np.ndarray:
    marked = np.zeros(size, bool)
    for each in labels:
        marked[each] = True
    return marked


def _measured(run: Recorder, unit_of: np.ndarray, rows: TableRows) -> np.ndarray:
    """Return the units that give the size of an attribute that is also used as a number."""
    numbers = set(run.numbers)
    uses = [use for use in run.uses if numbers and not numbers.isdisjoint(attributes_in(use.expression))]
    changing = [use.extent for use in uses if use.extent.columns or not rows.lie_within(use.extent.labels)]
    return np.concatenate([np.zeros(0, np.int64), *(unit_of[extent.labels].ravel() for extent in changing)])


def _pinned(run: Recorder, unit_of: np.ndarray, rows: TableRows) -> Iterator[tuple[np.ndarray, Reason]]:
    """Find the units that must stay so that no position of a pinned dimension disappears or moves."""
    for matrix, reason in run.pins:
        units = unit_of[matrix]
        lone = (units == units[:, :1]).all(axis=1) & (matrix != 0).all(axis=1)
        endangered = units if not rows.lie_within(matrix) and rows.touch(matrix) else units[lone]
        yield endangered.ravel(), reason


@dataclass(frozen=True, eq=False)
class TableRows:
    """In which rows of which tables each atom lies, sorted by atom."""

    atoms: np.ndarray
    table: np.ndarray
    row: np.ndarray  # numbered through all tables
    tables: frozenset[bytes]  # digests of those in which no label stands twice
    _found: dict[bytes, bool] = field(default_factory=dict)  # answers to `lie_within`, which come at a price

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
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), frozenset())
        order = np.argsort(np.concatenate(atoms), kind="stable")
        single = frozenset(digest(each) for each, _ in tables if each.all() and len(distinct(each)) == each.size)
        return cls(np.concatenate(atoms)[order], np.concatenate(table)[order], np.concatenate(row)[order], single)

    def touch(self, labels: np.ndarray) -> bool:
        """Tell whether any table has one of these labels."""
        return len(self._cells(labels)[0]) > 0

    def lie_within(self, labels: np.ndarray) -> bool:
        """Tell whether, in some table, every position of (positions, m) labels holds rows, none of them only in part.

        Several positions may hold the same row, as where keys are repeated for several queries.
        """
        key = digest(labels)
        if key in self.tables:  # the usual case: each position holds a row
            return True
        if min(labels.shape) > 1 and digest(labels.T) in self.tables:  # and here one of each
            return False
        if key not in self._found:
            self._found[key] = self._hold(labels)
        return self._found[key]

    def _hold(self, labels: np.ndarray) -> bool:
        if (at := self._lone_cells(labels)) is not None:
            row, place = self.row[at], np.arange(len(labels))[:, None]
            holder = np.empty(row.max() + 1, np.int64)
            holder[row] = place
            return bool((holder[row] == place).all())
        cells, places = self._cells(labels)
        for table in distinct(self.table[cells]):
            own = self.table[cells] == table
            met = distinct(cells[own] * len(labels) + places[own])
            cell, place = met // len(labels), met % len(labels)
            held, counts = np.unique(self.row[cell] * len(labels) + place, return_counts=True)
            rows, sizes = np.unique(self.row[distinct(cell)], return_counts=True)
            whole = counts == sizes[np.searchsorted(rows, held // len(labels))]
            if whole.all() and len(distinct(place)) == len(labels):
                return True
        return False

    @cached_property
    def _lone(self) -> np.ndarray:
        """Whether no other cell has the atom of this one."""
        apart = np.concatenate([[True], self.atoms[1:] != self.atoms[:-1], [True]])
        return apart[1:] & apart[:-1]

    def _lone_cells(self, labels: np.ndarray) -> np.ndarray | None:
        """Return the cell of each label, in the usual case: each is in one cell, of one table, and stands here once."""
        at = np.minimum(np.searchsorted(self.atoms, labels), len(self.atoms) - 1)
        usual = (
            labels.size
            and labels.all()
            and len(self.atoms)
            and (self.atoms[at] == labels).all()
            and self._lone[at].all()
        )
        if not usual or np.bincount(at.ravel()).max() > 1 or (self.table[at] != self.table[at.flat[0]]).any():
            return None
        return at

    def _cells(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells with these labels, and the position of each."""
        flat = labels.ravel()
        place = np.repeat(np.arange(len(labels)), labels.shape[1])[flat != 0]
        flat = flat[flat != 0]
        start, end = (np.searchsorted(self.atoms, flat, side) for side in ("left", "right"))
        counts = end - start
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(start, counts) + offsets, np.repeat(place, counts)


def _without_repeats(arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return each array once: a second run of the same code, in training or by another call, adds nothing."""
    return list({(array.shape, array.tobytes()): array for array in arrays}.values())


def _signatures(run: Recorder, units: Units) -> np.ndarray:
    """Add up, for every unit, numbers that stand for its axes and its rows in the tables: (units, 2) uint64."""
    sums = np.zeros((units.count, 2), np.uint64)
    if run.atoms.axes:
        of_axis = np.zeros((len(units.twin), 2), np.uint64)
        np.add.at(of_axis, units.twin, run.atoms.hashes())
        for column in range(2):  # one by one, for which numpy is much faster
            np.add.at(sums[:, column], units.of_leads(), of_axis[units.axis, column])
    generator = np.random.default_rng(0)
    for matrix in _without_repeats(matrix for matrix, _ in run.tables):
        marks = generator.integers(0, 2**63, (len(matrix), 2)).astype(np.uint64)
        cells = matrix != 0
        np.add.at(sums, units.of_atom[matrix[cells]], marks[np.nonzero(cells)[0]])
    for labels in _without_repeats(run.parts):
        mark = generator.integers(0, 2**63, 2).astype(np.uint64)
        np.add.at(sums, distinct(units.of_atom[labels[labels != 0]]), mark)
    return sums


def _families(marks: np.ndarray, free: np.ndarray, units: Units) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units with the same signature form a family; families and units in the order of their first atoms."""
    members = np.flatnonzero(free)
    members = members[np.argsort(units.first_atoms()[members], kind="stable")]
    by_mark = np.lexsort(marks[members].T)
    new = np.ones(len(members), bool)
    new[1:] = (np.diff(marks[members][by_mark], axis=0) != 0).any(axis=1)
    first = by_mark[new]  # of every family its first member
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    family_of = np.full(units.count, -1, np.int64)
    rank_of = np.full(units.count, -1, np.int64)
    family_of[members[by_mark]] = number[np.cumsum(new) - 1]
    sizes = np.bincount(family_of[members], minlength=len(first)).astype(np.int64)
    by_family = np.argsort(family_of[members], kind="stable")
    rank_of[members[by_family]] = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return family_of, rank_of, sizes
