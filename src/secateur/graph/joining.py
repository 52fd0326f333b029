"""How labels of several operands meet: the one place where channels are coupled.

Operands are laid into a joint space, one dimension per letter of the operation ("nchw" for an addition, "n", "o", "c"
for a linear layer). Sheets that meet there are unified; a sheet that meets data without labels is fixed, or, if it also
changes along other dimensions, its positions along the data's dimensions must stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.graph.labels import Shape, Sheet, aligned, compressed, merged, varying
from secateur.graph.running import MEET_DATA, LabelRun


@dataclass(frozen=True)
class Operand:
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


def join(run: LabelRun, operands: Sequence[Operand], summed: Sequence[int] = ()) -> list[Sheet]:
    """Unify what meets and return the sheets of the joint space.

    Args:
        operands: the operands, all in one joint space.
        summed: dimensions that the operation sums over; labels that meet there always go together.
    """
    joined: list[Sheet] = []
    for operand in operands:
        new: list[Sheet] = []
        for sheet in operand.sheets:
            joined, met = _absorbed(run, joined, sheet, summed)
            new += [] if met else [sheet]  # sheets of one operand say different things of it, and never meet
        joined += new
    kept = [_beside_data(run, sheet, operands) for sheet in joined]
    return [sheet for sheet in kept if sheet is not None]


def _absorbed(run: LabelRun, joined: list[Sheet], sheet: Sheet, summed: Sequence[int]) -> tuple[list[Sheet], bool]:
    """Unify a sheet with those it meets; tell whether it met any."""
    result: list[Sheet] = []
    met = False
    for one in joined:
        if one is sheet:
            return joined, True
        if _coupled(run, one, sheet, summed):
            met = True
            run.unify(one, sheet)
            both = merged(one, sheet)
            result += [both] if both.any() else []
        else:
            result.append(one)
    return result, met


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


def _beside_data(run: LabelRun, sheet: Sheet, operands: Sequence[Operand]) -> Sheet | None:
    """Return the sheet unless data without labels stand along all of its dimensions."""
    dims = varying(sheet)
    for operand in operands:
        covered = {dim for own in operand.sheets for dim in varying(own)}
        bare = [dim for dim in dims if operand.shape[dim] > 1 and dim not in covered]
        if bare and len(bare) == len(dims):
            run.fix(sheet, MEET_DATA)
            return None
        if bare:
            run.pin(sheet, bare, "these positions meet values that have none to cut")
    return compressed(sheet) if not sheet.all() else sheet
