"""Operations that take a part: bounds must come out right after the cut, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from secateur.graph import labels
from secateur.graph.joining import Operand, join
from secateur.graph.labels import Sheet
from secateur.graph.provenance import Expression, Operation, is_literal
from secateur.graph.registry import rule
from secateur.graph.rules.movement import give_view
from secateur.graph.rules.pointwise import known_before
from secateur.graph.running import LabelRun, extent_of

LITERAL = "the bound {} is a number in the code"


def part(sheet: Sheet, dim: int, start: int, end: int, step: int = 1) -> Sheet:
    """Slice a sheet along a dimension, if its labels change there."""
    if sheet.shape[dim] == 1:
        return sheet
    return sheet[(slice(None),) * dim + (slice(start, end, step),)]


@rule("slice")
def slice_(
    run: LabelRun,
    out: torch.Tensor,
    x: torch.Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    """`x[start:end]` along one dimension."""
    size, dim = x.shape[dim], dim % x.ndim
    begin = start or 0
    first = min(max(begin + size if begin < 0 else begin, 0), size)
    last = size if end is None or end >= size else max(end + size if end < 0 else end, first)
    result: list[Sheet | None] = []
    for sheet in run.sheets(x):
        if sheet.shape[dim] == 1:
            result.append(sheet)
        elif step != 1:
            run.fix(sheet, "every second channel is taken")
        else:
            kept = _bounded(run, sheet, dim, start, first, size)
            kept = _bounded(run, kept, dim, end, last, size)
            result.append(labels.compressed(part(kept, dim, first, last)))
    give_view(run, out, x, result)


def _bounded(run: LabelRun, sheet: Sheet, dim: int, given: int | None, bound: int, size: int) -> Sheet:
    """Make sure that a bound is where it was, seen from the channels that are left."""
    if given is None or bound in (0, size):
        return sheet
    origin = run.provenance(given, size)
    head, tail = part(sheet, dim, 0, bound), part(sheet, dim, bound, size)
    for side in (head, tail):
        run.apart(side)
        _rectangular(run, side, dim)
        run.rows_stay(side.reshape(1, -1), "both sides of a bound must keep a channel")
    if origin is None or is_literal(origin):
        fixed = tail if given < 0 else head
        run.fix(fixed, LITERAL.format(given))
        return _without(sheet, dim, bound, size) if given < 0 else _without(sheet, dim, 0, bound)
    if given < 0:
        run.use(Operation("-", 0, origin), extent_of(tail, dim))
    else:
        run.use(origin, extent_of(head, dim))
    return sheet


def _rectangular(run: LabelRun, sheet: Sheet, dim: int) -> None:
    """A part must keep as many channels beside every position of another labelled dimension, such as heads."""
    if len(labels.varying(sheet)) > 1 and sheet.shape[dim] > 1:
        run.rows(np.moveaxis(sheet, dim, -1).reshape(-1, sheet.shape[dim]), "a part is taken in equal pieces")


def _without(sheet: Sheet, dim: int, start: int, end: int) -> Sheet:
    left = sheet.copy()
    left[(slice(None),) * dim + (slice(start, end),)] = 0
    return left


@rule("narrow")
def narrow(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, start: int, length: int) -> None:
    """`x[start:start + length]` along one dimension."""
    dim, first, last = dim % x.ndim, int(start) % x.shape[dim], int(start) % x.shape[dim] + int(length)
    result: list[Sheet | None] = []
    for sheet in run.sheets(x):
        if sheet.shape[dim] == 1:
            result.append(sheet)
        else:
            kept = _sized(run, sheet, dim, [first, int(length)], run.sizes_provenance([start, length], after=1))
            result.append(labels.compressed(part(kept, dim, first, last)))
    give_view(run, out, x, result)


@rule("select")
def select(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, index: int) -> None:
    """`x[index]`: the positions along a labelled dimension must stay where they are."""
    dim = dim % x.ndim
    result: list[Sheet | None] = []
    for sheet in run.sheets(x):
        kept: Sheet | None = sheet
        if sheet.shape[dim] > 1:
            kept = _stays(run, sheet, dim, index)
        taken = None if kept is None else part(kept, dim, index % x.shape[dim], index % x.shape[dim] + 1)
        result.append(None if taken is None else labels.compressed(taken.squeeze(dim)))
    give_view(run, out, x, result)


def _stays(run: LabelRun, sheet: Sheet, dim: int, index: int) -> Sheet | None:
    if len(labels.varying(sheet)) > 1:
        run.pin(sheet, [dim], f"position {int(index)} is taken by number")
        return sheet
    size = sheet.shape[dim]
    run.fix(
        part(sheet, dim, 0, index + 1) if index >= 0 else part(sheet, dim, index % size, size),
        f"channel {int(index)} is taken by number",
    )
    return None


@rule("unbind")
def unbind(run: LabelRun, out: Sequence[torch.Tensor], x: torch.Tensor, dim: int = 0) -> None:
    """Every position along a dimension, one tensor each."""
    dim = dim % x.ndim
    for index, piece in enumerate(out):
        select(run, piece, x, dim, index)


# -- splits ----------------------------------------------------------------------------------------------------------


def _pieces(run: LabelRun, out: Sequence[torch.Tensor], x: torch.Tensor, sheets: Sequence[Sheet], dim: int) -> None:
    start = 0
    for piece in out:
        end = start + piece.shape[dim]
        give_view(
            run,
            piece,
            x,
            [labels.compressed(part(sheet, dim, start, end)) if sheet.shape[dim] > 1 else sheet for sheet in sheets],
        )
        start = end


@rule("chunk")
def chunk(run: LabelRun, out: Sequence[torch.Tensor], x: torch.Tensor, chunks: int, dim: int = 0) -> None:
    """Equal parts, computed by torch from the size."""
    dim = dim % x.ndim
    kept = [
        sheet
        for sheet in run.sheets(x)
        if _equal_parts(run, sheet, dim, len(out), "the dimension is split into equal chunks")
    ]
    _pieces(run, out, x, kept, dim)


def _equal_parts(run: LabelRun, sheet: Sheet, dim: int, parts: int, why: str) -> bool:
    if sheet.shape[dim] == 1:
        return True
    if sheet.shape[dim] % parts:
        run.fix(sheet, f"{sheet.shape[dim]} channels are split into {parts} unequal parts")
        return False
    cells = np.moveaxis(sheet, dim, -1)
    run.rows(cells.reshape(-1, sheet.shape[dim] // parts), why)
    return True


@rule("split.Tensor", "unsafe_split.Tensor")
def split(run: LabelRun, out: Sequence[torch.Tensor], x: torch.Tensor, size: int, dim: int = 0) -> None:
    """Parts of a given size."""
    dim = dim % x.ndim
    origin = run.provenance(size)
    kept = []
    for sheet in run.sheets(x):
        if sheet.shape[dim] > 1 and origin is not None and is_literal(origin):
            run.fix(sheet, f"the part size {int(size)} is a number in the code")
        elif _equal_parts(run, sheet, dim, len(out), "the dimension is split into parts of one size"):
            _use_parts(run, sheet, dim, [origin] * len(out), [int(size)] * len(out))
            kept.append(sheet)
    _pieces(run, out, x, kept, dim)


def _use_parts(
    run: LabelRun, sheet: Sheet, dim: int, origins: Sequence[Expression | None], sizes: Sequence[int]
) -> None:
    start = 0
    for origin, size in zip(origins, sizes, strict=True):
        if origin is not None and sheet.shape[dim] > 1:
            run.use(origin, extent_of(part(sheet, dim, start, start + size), dim))
        start += size


@rule("split_with_sizes", "split.sizes", "unsafe_split_with_sizes")
def split_with_sizes(
    run: LabelRun, out: Sequence[torch.Tensor], x: torch.Tensor, sizes: Sequence[int], dim: int = 0
) -> None:
    """Parts of given sizes: what an attribute gives is rewritten, what the code gives stays."""
    dim = dim % x.ndim
    given = [int(size) for size in sizes]
    kept = [
        sheet if sheet.shape[dim] == 1 else _sized(run, sheet, dim, given, run.sizes_provenance(sizes))
        for sheet in run.sheets(x)
    ]
    _pieces(run, out, x, kept, dim)


def _sized(run: LabelRun, sheet: Sheet, dim: int, sizes: Sequence[int], origins: Sequence[Expression | None]) -> Sheet:
    """Make sure that parts have the sizes that the code gives them."""
    start = 0
    for size, origin in zip(sizes, origins, strict=True):
        own = part(sheet, dim, start, start + size)
        if size:
            run.apart(own)
            _rectangular(run, own, dim)
            if origin is None or is_literal(origin):
                run.fix(own, f"the part size {size} is a number in the code")
                sheet = _without(sheet, dim, start, start + size)
            else:
                run.use(origin, extent_of(own, dim))
                run.rows_stay(own.reshape(1, -1), "every part of a split must keep a channel")
        start += size
    return sheet


# -- gathering -------------------------------------------------------------------------------------------------------


def _taken(run: LabelRun, sheet: Sheet, dim: int) -> bool:
    """Tell whether labels change along a dimension that is indexed; then they stay."""
    if sheet.shape[dim] > 1:
        run.fix(sheet, "these channels are taken by index")
    return sheet.shape[dim] > 1


@rule("index_select")
def index_select(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, index: torch.Tensor) -> None:
    """Labelled dimensions that are indexed by data must stay."""
    run.give(out, [sheet for sheet in run.sheets(x) if not _taken(run, sheet, dim)])


@rule("index")
def index(run: LabelRun, out: torch.Tensor, x: torch.Tensor, indices: Sequence[torch.Tensor | None]) -> None:
    """`x[:, places]`: dimensions that tensors of integers index must stay, the others pass; flags are not followed."""
    given = {dim: places for dim, places in enumerate(indices) if places is not None}
    if any(places.dtype in (torch.bool, torch.uint8) for places in given.values()):
        run.unknown(run.operation, out, (x, *given.values()), {})
        return
    for places in given.values():
        for sheet in run.sheets(places):
            run.fix(sheet, "channels are taken by these numbers")
    side_by_side = list(given) == list(range(min(given), max(given) + 1))
    place, added = min(given) if side_by_side else 0, out.ndim - x.ndim + len(given)
    result = []
    for sheet in run.sheets(x):
        if any(sheet.shape[dim] > 1 for dim in given):
            run.fix(sheet, "these channels are taken by index")
            continue
        passing = [size for dim, size in enumerate(sheet.shape) if dim not in given]
        result.append(sheet.reshape(*passing[:place], *(1,) * added, *passing[place:]))
    run.give(out, result)


@rule("gather")
def gather(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, places: torch.Tensor, **kwargs: Any) -> None:
    """Along `dim` positions are taken by index and must stay; along all others `x` and the index are side by side."""
    dim = dim % x.ndim if x.ndim else 0
    operands = []
    for tensor in (x, places):
        along_others = [sheet for sheet in run.sheets(tensor) if not _taken(run, sheet, dim)]
        operands.append(Operand(along_others, [1 if at == dim else size for at, size in enumerate(tensor.shape)]))
    run.give(out, join(run, operands))


@rule("index_put", "index_put_")
def put(
    run: LabelRun,
    out: torch.Tensor,
    x: torch.Tensor,
    indices: Sequence[torch.Tensor | None],
    values: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> None:
    """`x[flags] = value`: one value goes to places chosen by flags or numbers; several values are not followed."""
    if values.numel() > 1:
        run.unknown(run.operation, out, (x, indices, values), {})
        return
    dim, flags, kept = 0, [], list(run.sheets(x))
    for places in indices:
        if places is not None and places.dtype == torch.bool:
            flags.append(_spread(run, places, dim, x.ndim))
        elif places is not None:
            kept = [sheet for sheet in kept if not _taken(run, sheet, dim)]
        dim += places.ndim if places is not None and places.dtype == torch.bool else 1
    run.give(out, known_before(run, out, join(run, [Operand(kept, x.shape), *flags])))


def _spread(run: LabelRun, flags: torch.Tensor, dim: int, ndim: int) -> Operand:
    """Lay flags along some dimensions of what they choose from, beginning with `dim`."""
    before, behind = (1,) * dim, (1,) * (ndim - dim - flags.ndim)
    sheets = [sheet.reshape(before + sheet.shape + behind) for sheet in run.sheets(flags)]
    return Operand(sheets, before + tuple(flags.shape) + behind)


@rule("index_add", "index_add_", "index_copy", "index_copy_", "scatter", "scatter_", "scatter_add", "scatter_add_")
def scatter(
    run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, places: torch.Tensor, source: Any, **kwargs: Any
) -> None:
    """Along `dim` values are written or added by index; along all others they are side by side with what was there."""
    operands = []
    for tensor in (x, places, source):
        if isinstance(tensor, torch.Tensor) and tensor.ndim == x.ndim > 0:
            sheets = [sheet for sheet in run.sheets(tensor) if not _taken(run, sheet, dim % x.ndim)]
            operands.append(Operand(sheets, [1 if at == dim % x.ndim else n for at, n in enumerate(tensor.shape)]))
    run.give(out, known_before(run, out, join(run, operands)) if out is x else join(run, operands))


@rule("embedding")
def embedding(run: LabelRun, out: torch.Tensor, weight: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """(V, C) by indices (...) to (..., C)."""
    result = []
    for sheet in run.sheets(weight):
        if sheet.shape[0] == 1:
            result.append(labels.aligned(sheet[0], out.ndim))
        else:
            run.fix(sheet, "rows of the embedding are taken by index")
    run.give(out, result)
