"""From a choice of units to what every tensor keeps, in order, and to the integers of the model's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from secateur.errors import PlanError, TraceError
from secateur.graph.atoms import Place
from secateur.graph.coupling import Coupling, couple
from secateur.graph.groups import Axis, Graph, Realized, Scale
from secateur.graph.labels import distinct
from secateur.graph.provenance import DECISIONS, Attribute, Extent, attributes_in, evaluate, extents_in, solved
from secateur.graph.recording import Decision, Use
from secateur.graph.tracing import record

COPIES = (1, 2)
Kept = list[int] | list[list[int]]


def realize(graph: Graph, kept: Sequence[np.ndarray]) -> Realized:
    """See `Graph.realize`."""
    coupling = graph.coupling
    assert coupling is not None, "a graph made by hand cannot be realised"
    _check(graph, kept)
    alive = _alive(coupling, kept)
    attributes = solve(coupling, alive, graph)
    keep = _kept_indices(coupling, alive)
    empty = next((tensor for (tensor, _), indices in keep.items() if not len(indices)), None)
    if empty is not None:
        error = PlanError(f"Nothing is left of {empty}: a layer needs at least one channel. Keep one or more.")
        error.tensors = (empty,)
        raise error
    if any((~alive[coupling.unit_of[matrix]]).any() for matrix, _ in coupling.tables) and not graph.on_data:
        keep = _in_order(graph, coupling, alive, keep)
    changed = {str(attribute): value for attribute, value in attributes.items() if value != _now(graph, attribute)}
    return Realized(_named(graph, keep), changed, _scales(graph, coupling, alive, attributes))


def harmonize(graph: Graph, counts: Sequence[int]) -> list[int] | None:
    """See `Graph.harmonize`."""
    coupling = graph.coupling
    if coupling is None or graph.on_data or not coupling.tables:
        return list(counts)
    alive = _alive(coupling, [np.arange(count) for count in counts])
    for copies in COPIES:
        found = _counts_at_widths(graph, coupling, alive, copies)
        if found is not None and (copies > 1 or all(found)):  # a single channel shows only with two of each
            return found
    return None


def _counts_at_widths(graph: Graph, coupling: Coupling, alive: np.ndarray, copies: int) -> list[int] | None:
    fresh = _at_widths(graph, coupling, alive, copies)
    if fresh is None:
        return None
    units = _numbered_once(coupling)
    kinds, kind_of, sizes = np.unique(coupling.marks[units], axis=0, return_inverse=True, return_counts=True)
    place = {tuple(mark): at for at, mark in enumerate(kinds.tolist())}
    present = np.zeros(len(kinds), np.int64)
    for mark, size in zip(*np.unique(fresh.marks[_numbered_once(fresh)], axis=0, return_counts=True), strict=True):
        if tuple(mark.tolist()) not in place:
            return None
        present[place[tuple(mark.tolist())]] = size
    free = coupling.family_of[units] >= 0
    free_sizes = np.bincount(kind_of.ravel()[free], minlength=len(kinds))
    left, rest = np.divmod(present - (sizes - free_sizes), copies)
    if rest.any() or (left < 0).any() or (left > free_sizes).any():
        return None
    result = np.zeros(len(coupling.sizes), np.int64)
    result[coupling.family_of[units][free]] = left[kind_of.ravel()[free]]
    return result.tolist()


def _check(graph: Graph, kept: Sequence[np.ndarray]) -> None:
    counts = [len(units) for units in kept]
    equalities = graph.equalities
    broken = np.flatnonzero(equalities.matrix @ np.asarray(counts, np.int64) != equalities.target) if counts else []
    if len(broken):
        names = [graph.groups[number].name for number in np.flatnonzero(equalities.matrix[broken[0]])]
        reason = equalities.reasons[broken[0]]
        raise PlanError(
            f"The numbers of channels kept of {', '.join(names[:4])} do not fit together: {reason.text} "
            f"({reason.source}). Keep as many in each."
        )


def _alive(coupling: Coupling, kept: Sequence[np.ndarray]) -> np.ndarray:
    starts = np.cumsum(coupling.sizes) - coupling.sizes
    flat = np.zeros(int(coupling.sizes.sum()), bool)
    for start, units in zip(starts, kept, strict=True):
        flat[start + np.asarray(units, np.int64)] = True
    alive = np.ones(len(coupling.family_of), bool)
    free = coupling.family_of >= 0
    alive[free] = flat[starts[coupling.family_of[free]] + coupling.rank_of[free]]
    return alive


def _kept_indices(coupling: Coupling, alive: np.ndarray, every: bool = False) -> dict[Place, np.ndarray]:
    """Return the kept indices, ascending, of every axis that loses some; `every`: also of those that lose none."""
    atoms_alive = alive[coupling.unit_of[1:]]
    result = {}
    for place, start, size in zip(coupling.atoms.axes, coupling.atoms.starts, coupling.atoms.sizes(), strict=True):
        own = atoms_alive[start - 1 : start - 1 + size]
        if not own.all() or (every and place[1] != "grouped"):
            result[place] = np.flatnonzero(own)
    return result


# -- integers --------------------------------------------------------------------------------------------------------


def solve(coupling: Coupling, alive: np.ndarray, graph: Graph, copies: int = 1) -> dict[Attribute, int]:
    """Return the value of every attribute that gives a size, so that every use comes out right.

    Raises:
        PlanError: there is none; names the attribute and the line.
    """
    known: dict[Attribute, int] = {}
    size = _Size(coupling, alive, copies)

    def value(attribute: Attribute) -> int:
        return known.get(attribute, _now(graph, attribute))

    pending = sorted(coupling.uses, key=lambda use: len(attributes_in(use.expression)))
    for use in pending:
        unknown = [attribute for attribute in dict.fromkeys(attributes_in(use.expression)) if attribute not in known]
        target = size(use.extent)
        if unknown and evaluate(use.expression, value, size) != target:
            found = solved(use.expression, target, unknown[-1], value, size)
            known[unknown[-1]] = found if found is not None else value(unknown[-1])
        elif len(unknown) == 1:
            known[unknown[0]] = value(unknown[0])
    for use in pending:
        if evaluate(use.expression, value, size) != size(use.extent):
            raise _refused(_unsolved(use, size(use.extent)), coupling, [use.extent])
    for decision in coupling.decisions:
        left, right = (evaluate(side, value, size) for side in (decision.left, decision.right))
        if DECISIONS[decision.name](left, right) != decision.result:
            raise _refused(_undecided(decision, left, right), coupling, _extents_of(coupling, decision))
    return known


@dataclass(frozen=True)
class _Size:
    """The size of an extent once the dead units are gone."""

    coupling: Coupling
    alive: np.ndarray
    copies: int  # of every kept unit

    def __call__(self, extent: Extent) -> int:
        labels = self.coupling.narrowed(extent)
        living = (labels == 0) | self.alive[self.coupling.unit_of[labels]]
        weight = np.where(self.coupling.families(labels) >= 0, self.copies, 1)
        return int((living * weight).sum(axis=0).max(initial=0))


def _undecided(decision: Decision, left: int, right: int) -> str:
    return (
        f"The code at {decision.reason.source} would go another way: {left} {decision.name} {right} is no longer "
        f"{decision.result}. Leave these channels whole (ignore=), or choose other widths."
    )


def _extents_of(coupling: Coupling, decision: Decision) -> list[Extent]:
    attributes = {*attributes_in(decision.left), *attributes_in(decision.right)}
    given = [use.extent for use in coupling.uses if not attributes.isdisjoint(attributes_in(use.expression))]
    return [*extents_in(decision.left), *extents_in(decision.right), *given]


def _refused(what: str, coupling: Coupling, extents: Sequence[Extent]) -> PlanError:
    error = PlanError(what)
    error.tensors = tuple(name for extent in extents for name in _tensors_at(coupling, extent))
    return error


def _tensors_at(coupling: Coupling, extent: Extent) -> tuple[str, ...]:
    labels = distinct(extent.labels[extent.labels != 0])
    return tuple(dict.fromkeys(coupling.atoms.find(int(label))[0] for label in labels))


def _now(graph: Graph, attribute: Attribute) -> int:
    assert graph.model is not None
    value = vars(graph.model.get_submodule(attribute.module))[attribute.key]
    return value if attribute.index is None else value[attribute.index]


def _unsolved(use: Use, size: int) -> str:
    names = ", ".join(str(attribute) for attribute in attributes_in(use.expression)) or "the size"
    return (
        f"{names} cannot be rewritten so that the size at {use.reason.source} becomes {size}. "
        "Leave these channels whole (ignore=), or give the layer an integer of its own."
    )


def _scales(
    graph: Graph, coupling: Coupling, alive: np.ndarray, attributes: dict[Attribute, int]
) -> dict[str, tuple[Scale, ...]]:
    """Return the rows to multiply so that factors that follow a size stay what they were."""
    small, full = _Size(coupling, alive, 1), _Size(coupling, np.ones_like(alive), 1)
    found: dict[str, dict[Scale, None]] = {}
    for scaling in coupling.scalings:
        before = evaluate(scaling.size, partial(_now, graph), full)
        after = evaluate(scaling.size, lambda attribute: attributes.get(attribute, _now(graph, attribute)), small)
        if before != after:
            factor = (before / after) ** scaling.power
            for tensor, rows in _rows_of(coupling, scaling.atoms[alive[coupling.unit_of[scaling.atoms]]]).items():
                whole = len(rows) == graph.tensors[tensor].shape[0]
                for alias in graph.tensors[tensor].aliases:
                    found.setdefault(alias, {})[Scale(factor, None if whole else rows)] = None
    return {name: tuple(scales) for name, scales in found.items()}


def _rows_of(coupling: Coupling, atoms: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Return the indices of atoms of axes 0, by tensor."""
    atoms = np.sort(atoms)
    axes, indices = coupling.atoms.axis_of()[atoms], coupling.atoms.index_of()[atoms]
    pieces = zip(*np.unique(axes, return_index=True), strict=True)
    starts = {coupling.atoms.axes[axis][0]: start for axis, start in pieces}
    parts = np.split(indices, [*starts.values()][1:])
    return {tensor: tuple(part.tolist()) for tensor, part in zip(starts, parts, strict=True)}


# -- order -----------------------------------------------------------------------------------------------------------


def _in_order(
    graph: Graph, coupling: Coupling, alive: np.ndarray, keep: dict[Place, np.ndarray]
) -> dict[Place, np.ndarray]:
    """Put kept indices into the order that the code wants.

    Where channels are shuffled, the kept ones need not stay ascending. The model's code is run on fresh labels at the
    new widths; units of the same kind are interchangeable, so each new unit is given to an old one of its kind, in
    order, and every axis follows.

    Raises:
        PlanError: other kinds of units appear at these widths; names their tensors.
    """
    for copies in COPIES:
        fresh = _at_widths(graph, coupling, alive, copies)
        partners = None if fresh is None else _partners(fresh, coupling, alive, copies)
        if fresh is not None and partners is not None:
            return {place: _ordered(coupling, fresh, partners, place, indices) for place, indices in keep.items()}
    matrix, reason = next(table for table in coupling.tables if not alive[coupling.unit_of[table[0]]].all())
    raise _refused(
        f"At the chosen widths the code takes other channels together than at full width: {reason.text} "
        f"({reason.source}). Choose other widths, or leave these layers whole (ignore=).",
        coupling,
        [Extent(matrix)],
    )


def _at_widths(graph: Graph, coupling: Coupling, alive: np.ndarray, copies: int) -> Coupling | None:
    """Run the model's code on fresh labels at new widths, every kept unit `copies` times; None if it does not run.

    A dimension of size 1 carries no labels, so where a single channel is left the order shows only with two of each.
    """
    assert graph.model is not None
    keep = _kept_indices(coupling, alive, every=copies > 1)
    shapes = _shapes(graph, coupling, keep, copies)
    try:
        integers = {str(attribute): value for attribute, value in solve(coupling, alive, graph, copies).items()}
        return couple(
            record(graph.model, graph.example, graph.free_outputs, integers, shapes, graph.tensors, graph.heads)
        )
    except (PlanError, TraceError):
        return None


def _shapes(graph: Graph, coupling: Coupling, keep: dict[Place, np.ndarray], copies: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, list[int]] = {}
    for (tensor, axis), indices in keep.items():
        shape = shapes.setdefault(tensor, list(graph.tensors[tensor].shape))
        free = coupling.families(coupling.atoms.known(tensor, axis)[indices]) >= 0
        size = len(indices) + (copies - 1) * int(free.sum())
        if axis != "grouped":
            shape[axis] = size
        elif len(indices) < len(distinct(indices // shape[1])) * shape[1]:  # rows go, not whole groups
            shape[1] = size // len(distinct(indices // graph.tensors[tensor].shape[1]))
    return {tensor: tuple(shape) for tensor, shape in shapes.items()}


Partners = tuple[
    np.ndarray, np.ndarray
]  # of each new unit: the old unit in its place, and whether it is its first copy


def _partners(fresh: Coupling, coupling: Coupling, alive: np.ndarray, copies: int) -> Partners | None:
    """Give each new unit to an old one; None if units of other kinds appear at the new widths."""
    new, old = fresh.marks, coupling.marks
    living = np.flatnonzero(alive & np.isin(np.arange(len(alive)), _numbered_once(coupling)))
    living = living[np.lexsort((_first_atoms(coupling)[living], old[living, 1], old[living, 0]))]
    living = np.repeat(living, np.where(coupling.family_of[living] >= 0, copies, 1))
    units = _numbered_once(fresh)
    order = units[np.lexsort((_first_atoms(fresh)[units], new[units, 1], new[units, 0]))]
    if len(living) != len(order) or (old[living] != new[order]).any():
        return None
    partner, first = np.full(len(new), -1), np.zeros(len(new), bool)
    partner[order] = living
    first[order] = np.diff(living, prepend=-1) != 0
    return partner, first


def _numbered_once(coupling: Coupling) -> np.ndarray:
    """Return the units, without axis 1 of weights whose inputs are numbered by convolution group instead."""
    unused = [
        coupling.atoms.known(tensor, 1)
        for tensor, axis in coupling.atoms.axes
        if axis == "grouped" and (tensor, 1) in coupling.atoms
    ]
    return np.setdiff1d(
        np.arange(len(coupling.family_of)), coupling.unit_of[np.concatenate([*unused, [0]]).astype(int)]
    )


def _first_atoms(coupling: Coupling) -> np.ndarray:
    first = np.full(len(coupling.family_of), len(coupling.unit_of), np.int64)
    np.minimum.at(first, coupling.unit_of, np.arange(len(coupling.unit_of)))
    return first


def _ordered(coupling: Coupling, fresh: Coupling, partners: Partners, place: Place, indices: np.ndarray) -> np.ndarray:
    partner, first = partners
    old_units = coupling.unit_of[coupling.atoms.known(*place)[indices]]
    fresh_units = fresh.unit_of[fresh.atoms.known(*place)]
    new_units = partner[fresh_units[first[fresh_units]]]
    result = np.empty(len(indices), np.int64)
    result[np.lexsort((np.arange(len(indices)), new_units))] = indices[np.lexsort((indices, old_units))]
    return result


# -- names -----------------------------------------------------------------------------------------------------------


def _named(graph: Graph, keep: dict[Place, np.ndarray]) -> dict[str, dict[Axis, Kept]]:
    """Return kept indices by every name of a tensor; a grouped convolution's rows as a list per remaining group."""
    result: dict[str, dict[Axis, Kept]] = {}
    for (tensor, axis), indices in keep.items():
        info = graph.tensors[tensor]
        value: Kept = indices.tolist() if axis != "grouped" else _by_group(indices, info.shape[1])
        for alias in info.aliases:
            result.setdefault(alias, {})[axis] = value
    return result


def _by_group(indices: np.ndarray, rows: int) -> list[list[int]]:
    groups = indices // rows
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return [(part % rows).tolist() for part in np.split(indices, starts[1:])]
