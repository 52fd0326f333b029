"""The way of one unit of channels through the operations that a witness saw: who takes part, and along which path."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from secateur.graph.explanation.witnessing import Finding, Occurrence, Witness
from secateur.graph.groups import TensorInfo

Role = Literal["written", "filtered", "normalised", "beside", "taken", "read"]

BY_INDEX = frozenset({"embedding", "index", "index_select", "gather", "take"})  # operations that choose rows


@dataclass(frozen=True)
class Step:
    """A station on the way of a channel: a layer, or an operation in the code of a module."""

    module: str  # path of the layer, or of the module whose code runs the operation
    op: str = ""  # "add_", ...; empty: the layer itself
    source: str = ""  # "file.py:123" of the user's code


@dataclass(frozen=True)
class Partner:
    """A layer that a unit takes part in: how, and the way from where the question was asked."""

    layer: str
    role: Role
    chain: tuple[Step, ...] = ()


class Archive:
    """What a witness saw, sorted by units."""

    def __init__(self, witness: Witness, tensors: dict[str, TensorInfo], unit_of: np.ndarray) -> None:
        self.witness, self.tensors, self.unit_of = witness, tensors, unit_of
        self.axis_of = witness.atoms.axis_of()
        self.number_of = {place: number for number, place in enumerate(witness.atoms.axes)}
        carried = list(_carried(witness.occurrences))
        rows = [np.stack([atoms, *np.broadcast_arrays(at, slot, atoms)[:2]], axis=1) for atoms, at, slot in carried]
        seen = np.concatenate([np.zeros((0, 3), np.int64), *rows])
        self._seen = seen[np.lexsort((seen[:, 1], unit_of[seen[:, 0]]))]
        self._units = unit_of[self._seen[:, 0]]

        self._found = _by_unit([finding.atoms for finding in witness.findings], unit_of)

    def findings(self, unit: int) -> list[Finding]:
        """Return what rules found about a unit."""
        return [self.witness.findings[at] for at in self._found.get(unit, ())]

    def history(self, unit: int) -> History:
        """Return what happened to a unit."""
        start, end = np.searchsorted(self._units, [unit, unit + 1])
        return History(self, [(atom, at, slot) for atom, at, slot in self._seen[start:end].tolist()])


def _carried(occurrences: Sequence[Occurrence]) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield (atoms, occurrence, place among its operands or -1 for its result)."""
    for occurrence in occurrences:
        for slot, operand in enumerate(occurrence.operands):
            yield operand.atoms, occurrence.number, slot
        yield occurrence.made, occurrence.number, -1


def _by_unit(atoms: Sequence[np.ndarray], unit_of: np.ndarray) -> dict[int, list[int]]:
    """Return the numbers of the arrays in which each unit has an atom."""
    found: dict[int, list[int]] = {}
    for number, own in enumerate(atoms):
        for unit in np.unique(unit_of[own]).tolist():
            found.setdefault(unit, []).append(number)
    return found


class Meeting:
    """The atoms of one unit in one operation, and which of them end there in a sum."""

    def __init__(self, occurrence: Occurrence, seen: Sequence[tuple[int, int]]) -> None:
        self.occurrence = occurrence
        self.seen = seen  # (atom, place among the operands)
        operands = occurrence.operands
        self.of_parameters = all(operand.of_parameters for operand in operands) and not occurrence.is_layer
        self.parameters = [(atom, slot) for atom, slot in seen if self._is_own(slot)]
        self.own = dict.fromkeys(atom for atom, _ in self.parameters)
        self.passing = dict.fromkeys(atom for atom, slot in seen if not self._is_own(slot))
        self._atoms = np.array([*self.own, *self.passing], np.int64)

    @cached_property
    def _pairs(self) -> list[tuple[int, int]]:
        met = [(a, b, np.isin(a, self._atoms) & np.isin(b, self._atoms)) for a, b in self.occurrence.edges]
        return [pair for a, b, here in met for pair in zip(a[here].tolist(), b[here].tolist(), strict=True)]

    def _is_own(self, slot: int) -> bool:
        """Tell whether an operand is a parameter; what comes first into a layer is its input in any case."""
        is_input = slot == 0 and self.occurrence.is_layer and self.occurrence.op != "embedding"
        return self.occurrence.operands[slot].of_parameters and not is_input

    @property
    def tied(self) -> bool:
        """Tell whether the operation itself ties some of these atoms."""
        return bool(self._pairs)

    @cached_property
    def _made(self) -> set[int]:
        return self._among(self.occurrence.made)

    @cached_property
    def _left(self) -> set[int]:
        return _closure(self._made, self._pairs)

    @cached_property
    def _ended(self) -> set[int]:
        return _closure({atom for read in self.occurrence.read for atom in self._among(read)}, self._pairs)

    @cached_property
    def _through(self) -> set[int]:
        return _closure(set(self.passing), self._pairs)

    def _among(self, ascending: np.ndarray) -> set[int]:
        at = np.searchsorted(ascending, self._atoms)
        inside = self._atoms[at < len(ascending)]
        return set(inside[ascending[at[at < len(ascending)]] == inside].tolist())

    def ends(self, atom: int, slot: int) -> bool:
        """Tell whether an atom of an operand ends here in a sum, and is not among those that begin."""
        begins = self._is_own(slot) and atom in self._made
        return self.occurrence.contracts and not begins and (atom in self._ended or atom not in self._left)

    def role(self, atom: int, slot: int) -> Role:
        """Return what a parameter does to the unit here."""
        if self.ends(atom, slot):
            return "read"
        if self.occurrence.op in BY_INDEX and atom not in self._left:
            return "taken"
        begins = atom in self._left and atom not in self._through
        if begins or (self.occurrence.contracts and atom in self._ended):
            return "written"
        if "conv" in self.occurrence.op:
            return "filtered"
        return "normalised" if "norm" in self.occurrence.op else "beside"


def _closure(atoms: set[int], pairs: Sequence[tuple[int, int]]) -> set[int]:
    """Return the atoms with all that the pairs tie to them."""
    reached, size = set(atoms), -1
    while len(reached) > size:
        size = len(reached)
        for a, b in pairs:
            if a in reached or b in reached:
                reached |= {a, b}
    return reached


class History:
    """A unit's atoms wherever they were seen, as a graph: operations are tied where a tensor goes from one to another.

    An operation is two stations: an even number where channels pass or begin, an odd one where they end in a sum, so
    that no way leads through a layer from its inputs to its outputs. Axes of parameters are stations below zero.
    """

    def __init__(self, archive: Archive, rows: Sequence[tuple[int, int, int]]) -> None:
        self.archive = archive
        self.rows = rows  # (atom, occurrence, place among its operands or -1 for its result)
        seen: dict[int, list[tuple[int, int]]] = {}
        for atom, at, slot in rows:
            seen.setdefault(at, [])
            if slot >= 0:
                seen[at].append((atom, slot))
        self.meetings = {at: Meeting(archive.witness.occurrences[at], entries) for at, entries in seen.items()}
        self._neighbours: dict[int, list[int]] = {}
        self._tie()

    def _tie(self) -> None:
        known: set[tuple[int, int]] = set()
        for at, meeting in self.meetings.items():
            for atom, slot in meeting.seen:
                operand, here = meeting.occurrence.operands[slot], 2 * at + meeting.ends(atom, slot)
                self._link(here, 2 * operand.maker if operand.maker >= 0 else self._axis(atom))
                known.add((atom, here))
        for atom, at, slot in self.rows:
            if slot < 0 and (atom, 2 * at) not in known:  # such as a tensor made in the size of another
                self._link(2 * at, self._axis(atom))

    def _axis(self, atom: int) -> int:
        return -1 - int(self.archive.axis_of[atom])

    def _link(self, one: int, other: int) -> None:
        for a, b in ((one, other), (other, one)):
            near = self._neighbours.setdefault(a, [])
            if b not in near:
                near.append(b)

    def paths(self, start: Iterable[int]) -> Paths:
        """Return the shortest ways from some axes, given by number."""
        parents: dict[int, int | None] = {-1 - axis: None for axis in start}
        waiting = deque(parents)
        while waiting:
            here = waiting.popleft()
            for near in self._neighbours.get(here, ()):
                if near not in parents:
                    parents[near] = here
                    waiting.append(near)
        return Paths(self, parents)

    def step(self, station: int) -> Step | None:
        """Return how a person calls an operation; None for one that lets channels pass without a word."""
        if station < 0:
            return None
        occurrence = self.archive.witness.occurrences[station // 2]
        layers = [layer for layer, _ in self.layers_at.get(station, ())]
        if layers or not occurrence.speaks:
            return Step(layers[0]) if layers else None
        is_layer = occurrence.module in self.archive.witness.leaves
        return Step(occurrence.module, "" if is_layer else occurrence.op, occurrence.source)

    def last_with(self, finding: Finding) -> int | None:
        """Return the number of the operation in which something was found, else the last that had its atoms."""
        if finding.occurrence >= 0:
            return finding.occurrence
        atoms = set(finding.atoms.tolist())
        return next((at for atom, at, _ in reversed(self.rows) if atom in atoms), None)

    # -- who takes part ----------------------------------------------------------------------------------------------

    @cached_property
    def roles(self) -> list[tuple[int, int, Role]]:
        """What parameters do: (station, atom, role)."""
        return [
            (2 * at + meeting.ends(atom, slot), atom, meeting.role(atom, slot))
            for at, meeting in self.meetings.items()
            if not meeting.of_parameters
            for atom, slot in meeting.parameters
        ]

    @cached_property
    def layers_at(self) -> dict[int, list[tuple[str, Role]]]:
        """The layers that take part at each station, with their roles."""
        found: dict[int, list[tuple[str, Role]]] = {}
        for station, atom, role in [*self.roles, *self._beside_parameters()]:
            entry = (self._owner(atom, station // 2), role)
            if entry not in found.setdefault(station, []):
                found[station].append(entry)
        for at, meeting in self.meetings.items():
            if meeting.occurrence.op.endswith("_norm") and not found.get(2 * at):  # a norm without parameters
                found[2 * at] = [(meeting.occurrence.module, "normalised")]
        return found

    def _beside_parameters(self) -> Iterator[tuple[int, int, Role]]:
        """Yield the parameters that meet nothing but others, such as a mask over a weight."""
        known = {self._axis(atom) for _, atom, _ in self.roles}
        for at, meeting in self.meetings.items():
            for atom, slot in meeting.seen:
                if meeting.occurrence.operands[slot].kind == "parameter" and self._axis(atom) not in known:
                    known.add(self._axis(atom))
                    yield 2 * at + meeting.ends(atom, slot), atom, "beside"

    @cached_property
    def joints(self) -> tuple[Step, ...]:
        """The operations in which the unit comes from several sides."""
        steps = [self.step(2 * at) for at, meeting in self.meetings.items() if self._joins(meeting)]
        return tuple(step for step in dict.fromkeys(steps) if step is not None)

    def _joins(self, meeting: Meeting) -> bool:
        operands = [meeting.occurrence.operands[slot] for _, slot in meeting.seen]
        sides = {operand.maker for operand in operands if not operand.of_parameters}
        side_by_side = "cat" in meeting.occurrence.op
        return len(sides) > 1 and not (side_by_side and not meeting.tied)

    def _owner(self, atom: int, at: int) -> str:
        """Return the layer that holds a parameter, of several the one that runs; the parameter if that is no layer."""
        tensor = self.archive.witness.atoms.axes[self.archive.axis_of[atom]][0]
        module = self.archive.witness.occurrences[at].module
        owners = [name.rpartition(".")[0] for name in self.archive.tensors[tensor].aliases]
        owner = module if module in owners else owners[0]
        return tensor if owner in self.archive.witness.containers else owner


@dataclass(frozen=True)
class Paths:
    """The shortest ways of a unit from where the question was asked."""

    history: History
    parents: dict[int, int | None]

    def to_operation(self, number: int) -> tuple[Step, ...]:
        """Return the stations up to an operation and with it."""
        return self._steps(2 * number) or self._steps(2 * number + 1)

    def partners(self) -> tuple[Partner, ...]:
        """Return all layers that take part, in the order in which they run."""
        found: dict[tuple[str, Role], Partner] = {}
        for station, entries in sorted(self.history.layers_at.items()):
            for layer, role in entries:
                if (layer, role) not in found:
                    found[layer, role] = Partner(layer, role, self._steps(station))
        return tuple(found.values())

    def _steps(self, station: int) -> tuple[Step, ...]:
        steps: list[Step] = []
        here: int | None = station if station in self.parents else None
        while here is not None:
            step = self.history.step(here)
            if step is not None and (not steps or steps[-1] != step):
                steps.append(step)
            here = self.parents[here]
        return tuple(reversed(steps))
