"""Operations that move elements without changing them: the sheets move along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from secateur.graph import labels
from secateur.graph.joining import Operand, join
from secateur.graph.labels import Sheet
from secateur.graph.provenance import Expression, Extent, is_literal
from secateur.graph.registry import rule
from secateur.graph.running import VIEW, WEIGHT, LabelRun, extent_of


def give_view(run: LabelRun, out: torch.Tensor, x: torch.Tensor, sheets: Sequence[Sheet | None]) -> None:
    """Set the sheets of a tensor that may share its storage with another."""
    run.give(out, sheets)
    if out is not x:
        setattr(out, VIEW, True)
        setattr(x, VIEW, True)
        if hasattr(x, WEIGHT):
            setattr(out, WEIGHT, True)


# -- views: split and merge dimensions -------------------------------------------------------------------------------


@rule("view", "reshape", "_unsafe_view", "flatten", "_reshape_alias", "view_as", "reshape_as")
def view(run: LabelRun, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """Labels follow the elements; sizes must come out right after the cut, too."""
    computed = run.operation._schema.name == "aten::flatten"  # its integers are dimensions, not sizes
    sheets = run.sheets(x)
    origins = [None] * out.ndim if computed or not sheets else run.sizes_provenance(out.shape)
    sizes_given = bool(args) and isinstance(args[0], (list, tuple))
    result = []
    for sheet in sheets:
        moved = labels.reshaped(sheet, x.shape, out.shape)
        if moved is not None and (sizes_given or moved.shape != sheet.shape):
            moved = _checked_sizes(run, sheet, moved, x.shape, out.shape, origins)
        result.append(moved)
    give_view(run, out, x, result)


def _checked_sizes(
    run: LabelRun,
    sheet: Sheet,
    moved: Sheet,
    old: Sequence[int],
    new: Sequence[int],
    origins: Sequence[Expression | None],
) -> Sheet | None:
    for old_dims, new_dims in labels.blocks(old, new):
        if len(old_dims) == len(new_dims) == 1 and _only_stays(run, moved, new_dims[0], origins):
            continue
        if any(sheet.shape[dim] > 1 for dim in old_dims):
            checked = _checked_block(run, moved, new_dims, new, origins)
            if checked is None:
                return None
            moved = checked
    return moved


def _only_stays(run: LabelRun, moved: Sheet, dim: int, origins: Sequence[Expression | None]) -> bool:
    """Tell whether a dimension that is what it was, by a number in the code, need only keep something everywhere.

    So it is with the 3 of queries, keys and values, while channels go from within each.
    """
    size = moved.shape[dim]
    if size in (1, moved.size) or not _stiff(origins[dim]):
        return False
    run.pin(moved, [dim], f"the size {size} is a number in the code")
    return True


def _checked_block(
    run: LabelRun, moved: Sheet, dims: range, sizes: Sequence[int], origins: Sequence[Expression | None]
) -> Sheet | None:
    dims_labelled = [dim for dim in dims if moved.shape[dim] > 1]
    free = [dim for dim in dims_labelled if not _stiff(origins[dim])]
    if not free:
        run.fix(moved, f"the size {_written(sizes, dims)} is a number in the code")
        return None
    shrinking = free[0] if len(free) > 1 and run.splits_heads(moved) else free[-1]
    inner = [dim for dim in dims_labelled if dim > shrinking]
    if inner:
        moved = run.tied(moved, inner)
    outer = [dim for dim in dims_labelled if dim < shrinking]
    if outer:
        run.rows(_table(moved, shrinking), "the dimension is split into equal parts")
    for dim in [*(dim for dim in outer if dim in free), shrinking]:
        origin = origins[dim]
        if origin is not None:
            run.use(origin, extent_of(moved, dim, columns=bool(outer) and dim == shrinking))
    return moved


def _stiff(origin: Expression | None) -> bool:
    return origin is not None and is_literal(origin)


def _table(sheet: Sheet, column: int) -> np.ndarray:
    """Lay the labels out with `column` as columns and everything else as rows."""
    last = np.moveaxis(sheet, column, -1)
    return last.reshape(-1, last.shape[-1])


def _written(sizes: Sequence[int], dims: range) -> str:
    return " x ".join(str(int(sizes[dim])) for dim in dims)


@rule("unflatten")
def unflatten(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int, sizes: Sequence[int]) -> None:
    """A view of one dimension."""
    dim = dim % x.ndim
    origins = [None] * dim + run.sizes_provenance(sizes, after=1) + [None] * (x.ndim - dim - 1)
    result = []
    for sheet in run.sheets(x):
        moved = labels.reshaped(sheet, x.shape, out.shape)
        if moved is not None and sheet.shape[dim] > 1:
            moved = _checked_sizes(run, sheet, moved, x.shape, out.shape, origins)
        result.append(moved)
    give_view(run, out, x, result)


# -- order of dimensions ---------------------------------------------------------------------------------------------


@rule("permute")
def permute(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dims: Sequence[int]) -> None:
    """Dimensions in another order."""
    give_view(run, out, x, [sheet.transpose([int(dim) for dim in dims]) for sheet in run.sheets(x)])


@rule("transpose", "transpose_", "swapaxes", "swapdims")
def transpose(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim0: int, dim1: int) -> None:
    """Two dimensions exchanged."""
    give_view(run, out, x, [sheet.swapaxes(dim0, dim1) for sheet in run.sheets(x)])


@rule("t", "numpy_T", "mT", "mH", "adjoint", "matrix_H")
def matrix_transpose(run: LabelRun, out: torch.Tensor, x: torch.Tensor) -> None:
    """The last two dimensions exchanged."""
    sheets = run.sheets(x)
    give_view(run, out, x, [sheet.swapaxes(-1, -2) for sheet in sheets] if x.ndim > 1 else sheets)


@rule("squeeze")
def squeeze(run: LabelRun, out: torch.Tensor, x: torch.Tensor, *dims: Any) -> None:
    """Dimensions of size 1 carry no labels and go."""
    give_view(run, out, x, [labels.reshaped(sheet, x.shape, out.shape) for sheet in run.sheets(x)])


@rule("unsqueeze", "unsqueeze_")
def unsqueeze(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int) -> None:
    """A new dimension of size 1."""
    dim = dim if dim >= 0 else dim + out.ndim
    give_view(run, out, x, [np.expand_dims(sheet, dim) for sheet in run.sheets(x)])


# -- copies ----------------------------------------------------------------------------------------------------------


@rule("expand", "expand_as", "broadcast_to")
def expand(run: LabelRun, out: torch.Tensor, x: torch.Tensor, sizes: Any = None, **kwargs: Any) -> None:
    """Broadcasting adds no label; a labelled dimension keeps its size."""
    sheets = [labels.aligned(sheet, out.ndim) for sheet in run.sheets(x)]
    origins = run.sizes_provenance(out.shape) if not isinstance(sizes, torch.Tensor) else []
    for sheet in sheets:
        for dim in labels.varying(sheet):
            origin = origins[dim] if origins else None
            if origin is not None:
                run.use(origin, extent_of(sheet, dim))
    lent = run.sheets(sizes) if isinstance(sizes, torch.Tensor) else sheets_of_sizes(origins)
    widened = [_size(x, dim, out) == 1 for dim in range(out.ndim)]
    sheets += [sheet for sheet in lent if any(widened[dim] for dim in labels.varying(sheet))]
    give_view(run, out, x, sheets)


def _size(x: torch.Tensor, dim: int, out: torch.Tensor) -> int:
    lead = out.ndim - x.ndim
    return 1 if dim < lead else x.shape[dim - lead]


def sheets_of_sizes(origins: Sequence[Expression | None]) -> list[Sheet]:
    """Return the sheets of a tensor made in live sizes: it shrinks with the tensors that these are read from."""
    sheets: dict[int, Sheet] = {}
    for dim, origin in enumerate(origins):
        if isinstance(origin, Extent) and origin.labels.shape[1] == 1:
            sheets[dim] = labels.along(origin.labels[:, 0], len(origins), dim)
        elif isinstance(origin, Extent) and origin.sheet is not None and origin.sheet.ndim == len(origins):
            sheets[-id(origin.sheet)] = origin.sheet  # the shape of one tensor, as a whole
    return list(sheets.values())


@rule("zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty")
def made(run: LabelRun, out: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """A new tensor; in the live sizes of another it shrinks with it."""
    run.give(out, sheets_of_sizes(run.sizes_provenance(out.shape)))


@rule("repeat")
def repeat(run: LabelRun, out: torch.Tensor, x: torch.Tensor, times: Sequence[int]) -> None:
    """Every copy has the same labels; a single position repeated as often as a live size shrinks with that."""
    result = []
    for sheet in run.sheets(x):
        wide = labels.aligned(sheet, out.ndim)
        counts = [int(n) if size > 1 else 1 for n, size in zip(times, wide.shape, strict=True)]
        result.append(np.tile(wide, counts))
    widened = [_size(x, dim, out) == 1 for dim in range(out.ndim)]
    lent = sheets_of_sizes(run.sizes_provenance(times))
    run.give(out, [*result, *(sheet for sheet in lent if all(widened[dim] for dim in labels.varying(sheet)))])


@rule("repeat_interleave.self_int")
def repeat_interleave(
    run: LabelRun, out: torch.Tensor, x: torch.Tensor, times: int, dim: int | None = None, **kwargs: Any
) -> None:
    """Every position several times in a row; without a dimension, those of all."""
    result: list[Sheet | None] = []
    for sheet in run.sheets(x):
        if dim is None:
            flat = labels.reshaped(sheet, x.shape, [x.numel()])
            result.append(None if flat is None else np.repeat(flat, int(times)))
        else:
            result.append(np.repeat(sheet, int(times) if sheet.shape[dim] > 1 else 1, axis=dim))
    run.give(out, result)


@rule("cat", "concat", "concatenate")
def cat(run: LabelRun, out: torch.Tensor, tensors: Sequence[torch.Tensor], dim: int = 0) -> None:
    """Along `dim` the labels stand side by side; along the other dimensions the parts are unified."""
    parts = [part for part in tensors if part.ndim == out.ndim]
    dim = dim % out.ndim
    crossing = []
    for part in parts:
        shape = [1 if at == dim else size for at, size in enumerate(part.shape)]
        crossing.append(Operand([sheet for sheet in run.sheets(part) if sheet.shape[dim] == 1], shape))
    run.give(out, [*join(run, crossing), *_side_by_side(run, parts, dim)])


def _side_by_side(run: LabelRun, parts: Sequence[torch.Tensor], dim: int) -> list[Sheet]:
    rows = [[sheet for sheet in run.sheets(part) if sheet.shape[dim] > 1] for part in parts]
    result = []
    for level in range(max((len(row) for row in rows), default=0)):
        own = [row[level] if level < len(row) else _blank(part, dim) for row, part in zip(rows, parts, strict=True)]
        result.append(_laid_side_by_side(run, own, dim))
    return result


def _laid_side_by_side(run: LabelRun, sheets: Sequence[Sheet], dim: int) -> Sheet:
    """Concatenate sheets; where some change along further dimensions, positions there must stay for the others."""
    across = np.broadcast_shapes(*((*sheet.shape[:dim], 1, *sheet.shape[dim + 1 :]) for sheet in sheets))
    wide = [at for at, size in enumerate(across) if size > 1]
    for sheet in sheets:
        if wide and not all(other.shape[at] > 1 for other in sheets for at in wide):
            run.pin(sheet, wide, "these positions are put beside others that have none to cut")
    return np.concatenate(
        [np.broadcast_to(sheet, (*across[:dim], sheet.shape[dim], *across[dim + 1 :])) for sheet in sheets], dim
    )


def _blank(part: torch.Tensor, dim: int) -> Sheet:
    return labels.along(np.zeros(part.shape[dim], np.int64), part.ndim, dim)


@rule("stack")
def stack(run: LabelRun, out: torch.Tensor, tensors: Sequence[torch.Tensor], dim: int = 0) -> None:
    """A new dimension; the parts are unified along all others."""
    dim = dim % out.ndim
    joined = join(run, [Operand(run.sheets(part), part.shape) for part in tensors])
    run.give(out, [np.expand_dims(sheet, dim) for sheet in joined])


@rule(
    "constant_pad_nd",
    "pad",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def pad(run: LabelRun, out: torch.Tensor, x: torch.Tensor, widths: Sequence[int], *args: Any, **kwargs: Any) -> None:
    """Padding between channels belongs to no channel; padding at the border of a picture belongs to all."""
    result: list[Sheet | None] = []
    amounts = {x.ndim - 1 - i // 2: (int(widths[i]), int(widths[i + 1])) for i in range(0, len(widths), 2)}
    mode = args[0] if args and isinstance(args[0], str) else kwargs.get("mode", "constant")
    for sheet in run.sheets(x):
        padded = [amounts.get(dim, (0, 0)) if size > 1 else (0, 0) for dim, size in enumerate(sheet.shape)]
        computed = [run.provenance(width) for pair in padded for width in pair if width]
        live = any(origin is not None and not is_literal(origin) for origin in computed)
        if live or min(min(pair) for pair in padded) < 0 or (mode != "constant" and any(map(any, padded))):
            run.fix(sheet, "these channels are cropped, mirrored or filled up by padding")
        else:
            result.append(np.pad(sheet, padded) if any(map(any, padded)) else sheet)
    run.give(out, result)


@rule("flip", "fliplr", "flipud")
def flip(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dims: Sequence[int]) -> None:
    """The other way round."""
    run.give(out, [np.flip(sheet, tuple(dims)) for sheet in run.sheets(x)])


@rule("rot90")
def rot90(run: LabelRun, out: torch.Tensor, x: torch.Tensor, times: int = 1, dims: Sequence[int] = (0, 1)) -> None:
    """A plane turned by quarters."""
    first, second = (int(dim) for dim in dims)
    run.give(out, [np.rot90(sheet, int(times), (first, second)) for sheet in run.sheets(x)])


@rule("roll")
def roll(run: LabelRun, out: torch.Tensor, x: torch.Tensor, shifts: Any, dims: Any = ()) -> None:
    """Dimensions without labels may turn; labelled ones stay whole."""
    turned = (dims,) if isinstance(dims, int) else tuple(dims)
    result = []
    for sheet in run.sheets(x):
        if not turned or any(sheet.shape[dim] > 1 for dim in turned):
            run.fix(sheet, "these channels are rolled by a number in the code")
        else:
            result.append(sheet)
    run.give(out, result)


@rule("im2col")
def im2col(run: LabelRun, out: torch.Tensor, x: torch.Tensor, kernel: Sequence[int], *args: Any) -> None:
    """(N, C, H, W) to (N, C * kh * kw, positions): every label is repeated over the window."""
    result = []
    for sheet in run.sheets(x):
        if any(size > 1 for size in sheet.shape[-2:]):
            run.fix(sheet, "windows are taken across these positions")
            continue
        window = int(kernel[0]) * int(kernel[1])
        result.append(np.repeat(sheet, window if sheet.shape[-3] > 1 else 1, axis=-3).reshape(*sheet.shape[:-3], -1, 1))
    run.give(out, result)


@rule("col2im")
def col2im(run: LabelRun, out: torch.Tensor, x: torch.Tensor, size: Any, kernel: Sequence[int], *args: Any) -> None:
    """(N, C * kh * kw, positions) to (N, C, H, W): the places of a channel's window go together."""
    result: list[Sheet | None] = []
    for sheet in run.sheets(x):
        if sheet.shape[-1] > 1:
            run.fix(sheet, "windows are put together across these positions")
            continue
        window = int(kernel[0]) * int(kernel[1]) if sheet.shape[-2] > 1 else 1
        cells = sheet.reshape(*sheet.shape[:-2], -1, window, 1)
        result.append(run.tied(cells, [cells.ndim - 2]))
    run.give(out, result)


@rule("pixel_shuffle")
def pixel_shuffle(run: LabelRun, out: torch.Tensor, x: torch.Tensor, factor: int) -> None:
    """(N, C * r * r, H, W) to (N, C, H * r, W * r): the r * r channels of a pixel go together."""
    result = []
    for sheet in run.sheets(x):
        if sheet.shape[-3] == 1 or any(size > 1 for size in sheet.shape[-2:]):
            run.fix(sheet, "pixels are shuffled across these positions")
            continue
        cells = sheet.reshape(*sheet.shape[:-3], -1, int(factor) ** 2, 1, 1)
        first = cells[..., :1, :, :]
        run.unify(cells, first)
        result.append(first.reshape(*first.shape[:-3], 1, 1))
    run.give(out, result)


@rule("pixel_unshuffle")
def pixel_unshuffle(run: LabelRun, out: torch.Tensor, x: torch.Tensor, factor: int) -> None:
    """(N, C, H * r, W * r) to (N, C * r * r, H, W): every channel becomes r * r."""
    result = []
    for sheet in run.sheets(x):
        if any(size > 1 for size in sheet.shape[-2:]):
            run.fix(sheet, "pixels are shuffled across these positions")
        else:
            result.append(np.repeat(sheet, int(factor) ** 2, axis=-3))
    run.give(out, result)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(run: LabelRun, out: torch.Tensor, x: torch.Tensor, groups: int) -> None:
    """(N, g * c, H, W) to (N, c * g, H, W)."""
    result: list[Sheet | None] = []
    for sheet in run.sheets(x):
        if sheet.shape[1] == 1:
            result.append(sheet)
            continue
        cells = sheet.reshape(sheet.shape[0], int(groups), -1, *sheet.shape[2:])
        run.rows(_table(cells, 2), "channels are shuffled in equal parts")
        result.append(cells.swapaxes(1, 2).reshape(sheet.shape))
    run.give(out, result)
