"""How labels of several operands meet: the one place where channels are coupled.

Operands are laid into a joint space, one dimension per letter of the operation ("nchw" for an addition, "n", "o", "c"
for a linear layer). Sheets that meet there are unified; a sheet that meets data without labels is fixed, or, if it also
changes along other dimensions, its positions along the data's dimensions must stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np

from secateur.graph.labels import Shape, Sheet, aligned, complete, compressed, merged, varying
from secateur.graph.running import MEET_DATA, LabelRun


class Operand(NamedTuple):
    """A tensor in the joint space: its sheets, and its size along every dimension there (1: absent)."""

    sheets: Sequence[Sheet]
    shape: Shape


def placed(sheets: Sequence[Sheet], shape: Shape, dims: str, joint: str) -> Operand:
    """Lay a tensor whose dimensions are the letters `dims` into the space of the letters `joint`."""
    order = [dims.index(letter) for letter in joint if letter in dims]

    def spread(sizes: Shape) -> list[int]:
        return [sizes[dims.index(letter)] if letter in dims else 1 for letter in joint]

    return Operand([sheet.transpose(order).reshape(spread(sheet.shape)) for sheet in sheets], spread(shape))


def broadcast(sheets: Sequence[Sheet], shape: Shape, ndim: int) -> Operand:
    """Lay a tensor into the space of a result that it broadcasts to."""
    lead = (1,) * (ndim - len(shape))
    return Operand([aligned(sheet, ndim) for sheet in sheets], lead + tuple(shape))


def join(run: LabelRun, operands: Sequence[Operand], summed: Sequence[int] = (), within: bool = False) -> list[Sheet]:
    """Unify what meets and return the sheets of the joint space.

    Args:
        operands: the operands, all in one joint space.
        summed: dimensions that the operation sums over; labels that meet there always go together.
        within: labels go together, too, with all labels that they meet along further dimensions: those of one group.
    """
    by_dim = _by_dimension(operands)
    if by_dim is not None:
        for first, *others in by_dim:
            for sheet in others:
                run.unify(first, sheet)
        return [first for first, *_ in by_dim]
    joined: list[Sheet] = []
    for operand in operands:
        new: list[Sheet] = []
        for sheet in operand.sheets:
            joined, met = _absorbed(run, joined, sheet, summed, within)
            new += [] if met else [sheet]  # sheets of one operand say different things of it, and never meet
        joined += new
    covered = [{dim for sheet in operand.sheets for dim in varying(sheet)} for operand in operands]
    kept = [_beside_data(run, sheet, operands, covered) for sheet in joined]
    return [sheet for sheet in kept if sheet is not None]


def _by_dimension(operands: Sequence[Operand]) -> Iterable[list[Sheet]] | None:
    """Return the sheets along each dimension, where all meet one by one; None where it is not so simple.

    Every sheet changes along one dimension and has no gap, and along a dimension all operands have one sheet, or none.
    """
    by_dim: dict[int, list[Sheet]] = {}
    for operand in operands:
        own: set[int] = set()
        for sheet in operand.sheets:
            dims = varying(sheet)
            if len(dims) != 1 or dims[0] in own or not complete(sheet):
                return None
            own.add(dims[0])
            by_dim.setdefault(dims[0], []).append(sheet)
    for dim, sheets in by_dim.items():
        if len(sheets) < len([operand for operand in operands if operand.shape[dim] > 1]):
            return None
    return by_dim.values()


def _absorbed(
    run: LabelRun, joined: list[Sheet], sheet: Sheet, summed: Sequence[int], within: bool
) -> tuple[list[Sheet], bool]:
    """Unify a sheet with those it meets; tell whether it met any."""
    result: list[Sheet] = []
    met = False
    for one in joined:
        if one is sheet:
            return joined, True
        if _coupled(run, one, sheet, summed):
            met = True
            both = _met(run, one, sheet, summed, within)
            result += [both] if np.count_nonzero(both) else []
        else:
            result.append(one)
    return result, met


def _met(run: LabelRun, one: Sheet, other: Sheet, summed: Sequence[int], within: bool) -> Sheet:
    """Unify two sheets, of which one may be labelled along fewer dimensions, and return what they become."""
    narrow, wide = sorted((one, other), key=lambda sheet: len(varying(sheet)))
    if len(varying(narrow)) == len(varying(wide)) or within or not set(varying(narrow)).isdisjoint(summed):
        run.unify(one, other)
        return merged(one, other)
    run.spread(narrow, wide)
    return wide if narrow.all() and wide.all() else np.where((narrow != 0) & (wide != 0), wide, 0)


def _coupled(run: LabelRun, one: Sheet, other: Sheet, summed: Sequence[int]) -> bool:
    a, b = set(varying(one)), set(varying(other))
    shared = a & b
    if not shared:
        return False
    if a <= b or b <= a or not shared.isdisjoint(summed):
        return True
    for sheet in (one, other):
        run.pin(sheet, sorted(shared), "two labelled dimensions share this one")
    return False


def _beside_data(
    run: LabelRun, sheet: Sheet, operands: Sequence[Operand], covered: Sequence[AbstractSet[int]]
) -> Sheet | None:
    """Return the sheet unless data without labels stand along all of its dimensions."""
    dims = varying(sheet)
    for operand, labelled in zip(operands, covered, strict=True):
        bare = [dim for dim in dims if dim not in labelled and operand.shape[dim] > 1]
        if bare and len(bare) == len(dims):
            run.fix(sheet, MEET_DATA)
            return None
        if bare:
            run.pin(sheet, bare, "these positions meet values that have none to cut")
    return sheet if complete(sheet) else compressed(sheet)
