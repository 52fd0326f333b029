"""Operations that sum over a dimension: channels end here, and new ones begin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from string import ascii_letters
from typing import Any

import numpy as np
import torch

from secateur.graph.joining import Operand, join, placed
from secateur.graph.labels import Sheet, varying
from secateur.graph.provenance import Extent, TracedFloat, TracedInt
from secateur.graph.registry import rule
from secateur.graph.rules.pooling import passes
from secateur.graph.running import WEIGHT, LabelRun, extent_of


def contract(
    run: LabelRun, joint: str, result: str, operands: Sequence[Operand], op: str, weight: torch.Tensor | None
) -> list[Sheet]:
    """Unify operands in the joint space of the letters `joint`, and return the sheets of what `result` leaves of it."""
    summed = [at for at, letter in enumerate(joint) if letter not in result]
    joined = join(run, operands, summed)
    count(run, joined, operands, op, weight)
    for sheet in [] if weight is not None else [sheet for operand in operands for sheet in operand.sheets]:
        if len(varying(sheet)) > 1:
            run.attends(sheet)
    return project(run, joined, joint, result)


def weigh(run: LabelRun, weight: Operand, summed: Sequence[int]) -> None:
    """Report the labels of a weight, and which of them stand where it sums."""
    for sheet in weight.sheets:
        run.weighs(sheet, consumed=any(dim in summed for dim in varying(sheet)))


def project(run: LabelRun, joined: Sequence[Sheet], joint: str, result: str) -> list[Sheet]:
    """Return the sheets that do not end in the sum, with the dimensions of `result`."""
    order, summed = _order(joint, result)
    sheets = []
    for sheet in joined:
        dims = varying(sheet)
        staying = [dim for dim in dims if dim not in summed]
        if len(staying) < len(dims):
            run.reads(sheet)
            if staying:
                run.pin(sheet, staying, "sums are taken within these positions")
        else:
            sheets.append(sheet.transpose((*order, *summed)).reshape([sheet.shape[at] for at in order]))
    return sheets


@lru_cache(maxsize=256)
def _order(joint: str, result: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where the letters of the result stand in the joint space, and where those that it sums over do."""
    summed = tuple(at for at, letter in enumerate(joint) if letter not in result)
    return tuple(joint.index(letter) for letter in result), summed


def count(
    run: LabelRun,
    joined: Sequence[Sheet],
    operands: Sequence[Operand],
    op: str,
    weight: torch.Tensor | None,
    factor: int = 1,
) -> None:
    """Report the MACs: `factor` times the sizes of all dimensions of the joint space."""
    extents: list[Extent] = []
    for dim in range(len(operands[0].shape)):
        labelled = [sheet for sheet in joined if sheet.shape[dim] > 1]
        if labelled:
            extents.append(extent_of(labelled[0], dim))
        else:
            factor *= max([operand.shape[dim] for operand in operands])
    run.macs(op, weight, factor, extents)


# -- matrices --------------------------------------------------------------------------------------------------------


@rule("linear")
def linear(
    run: LabelRun, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """(..., I) by (O, I) to (..., O)."""
    lead = ascii_letters[: x.ndim - 1]
    target = "O" if weight.ndim == 2 else ""
    _matrices(run, out, f"{lead}I,{target}I->{lead}{target}", [x, weight], "linear", weight)
    if bias is not None:
        added(run, out, bias)


def added(run: LabelRun, out: torch.Tensor, bias: torch.Tensor) -> None:
    """Unify a bias with the last dimensions of a result."""
    lead = (1,) * (out.ndim - bias.ndim)
    shifted = Operand([sheet.reshape(lead + sheet.shape) for sheet in run.sheets(bias)], lead + tuple(bias.shape))
    run.give(out, join(run, [Operand(run.sheets(out), out.shape), shifted]))


def _matrices(
    run: LabelRun,
    out: torch.Tensor,
    spec: str,
    tensors: Sequence[torch.Tensor],
    op: str,
    weight: torch.Tensor | None = None,
) -> None:
    inputs, result = spec.split("->")
    joint = "".join(dict.fromkeys(inputs.replace(",", "")))
    operands = [
        placed(run.sheets(tensor), tensor.shape, dims, joint)
        for tensor, dims in zip(tensors, inputs.split(","), strict=True)
    ]
    summed = [at for at, letter in enumerate(joint) if letter not in result]
    for tensor, operand in zip(tensors, operands, strict=True):
        if tensor is weight or hasattr(tensor, WEIGHT):
            weigh(run, operand, summed)
    run.give(out, contract(run, joint, result, operands, op, weight))


@rule("bilinear")
def bilinear(
    run: LabelRun,
    out: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> None:
    """(..., I) and (..., J) by (O, I, J) to (..., O)."""
    lead = ascii_letters[: a.ndim - 1]
    _matrices(run, out, f"{lead}I,OIJ,{lead}J->{lead}O", [a, weight, b], "linear", weight)
    if bias is not None:
        added(run, out, bias)


@rule("mm", "matmul", "bmm", "mv", "dot", "vdot")
def matmul(run: LabelRun, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """(..., M, K) by (..., K, N) to (..., M, N), with vectors and broadcasting as torch has them."""
    _matrices(run, out, _matmul_spec(a.ndim, b.ndim), [a, b], "matmul")


def _matmul_spec(left: int, right: int) -> str:
    batch = ascii_letters[: max(left, right, 2) - 2]
    rows, columns = "M" if left > 1 else "", "N" if right > 1 else ""
    lead_left = batch[len(batch) - max(left - 2, 0) :] if left > 2 else ""
    lead_right = batch[len(batch) - max(right - 2, 0) :] if right > 2 else ""
    return f"{lead_left}{rows}K,{lead_right}K{columns}->{batch}{rows}{columns}"


@rule("addmm", "baddbmm", "addmv")
def addmm(
    run: LabelRun, out: torch.Tensor, bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **kwargs: Any
) -> None:
    """A product and an addition."""
    for name, number in (("alpha", run.argument("alpha")), ("beta", run.argument("beta"))):
        if isinstance(number, TracedFloat) and name == "alpha":
            run.scaled(number.expression, number.power)
        elif isinstance(number, (TracedFloat, TracedInt)):
            run.as_number(number)
    matmul(run, out, a, b)
    added(run, out, bias)


@rule("cdist")
def distances(run: LabelRun, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """(..., P, M) and (..., R, M) to (..., P, R): a sum over M, like a product."""
    spec = _matmul_spec(a.ndim, b.ndim)
    left, right = spec.split("->")[0].split(",")
    _matrices(run, out, f"{left},{right[:-2]}NK->{spec.split('->')[1]}", [a, b], "matmul")


@rule("einsum")
def einsum(run: LabelRun, out: torch.Tensor, equation: str, tensors: Sequence[torch.Tensor], **kwargs: Any) -> None:
    """Any sum of products; where a letter is repeated within an operand, labels along it stay."""
    inputs, result = _explicit(equation.replace(" ", ""), [tensor.ndim for tensor in tensors])
    joint = "".join(dict.fromkeys("".join(inputs)))
    operands = []
    for tensor, dims in zip(tensors, inputs, strict=True):
        once = "".join(dict.fromkeys(dims))
        sheets = [_diagonal(run, sheet, dims) for sheet in run.sheets(tensor)]
        sizes = [tensor.shape[dims.index(letter)] for letter in once]
        operands.append(placed([sheet for sheet in sheets if sheet is not None], sizes, once, joint))
    run.give(out, contract(run, joint, result, operands, "matmul", None))


def _explicit(equation: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Write an equation out: letters for the dimensions of an ellipsis, and for the result where there is no arrow."""
    given, arrow, result = equation.partition("->")
    inputs = given.split(",")
    spare = [letter for letter in ascii_letters if letter not in equation]
    counts = [ndim - len(dims.replace("...", "")) for dims, ndim in zip(inputs, ndims, strict=True)]
    dots = "".join(spare[: max(counts)])
    written = [dims.replace("...", dots[len(dots) - n :]) for dims, n in zip(inputs, counts, strict=True)]
    if not arrow:
        result = "..." + "".join(sorted(letter for letter in set(given) - set(",.") if given.count(letter) == 1))
    return written, result.replace("...", dots)


def _diagonal(run: LabelRun, sheet: Sheet, dims: str) -> Sheet | None:
    """Return a sheet with one dimension for each letter; None if it changes along one that is repeated."""
    if any(dims.count(dims[dim]) > 1 for dim in varying(sheet)):
        run.fix(sheet, "a diagonal is taken across these")
        return None
    return sheet.reshape([size for dim, size in enumerate(sheet.shape) if dims.index(dims[dim]) == dim])


# -- convolutions ----------------------------------------------------------------------------------------------------

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
JOINT = "ngoc"  # batch, group, output within its group, input within its group


@rule(*CONVOLUTIONS)
def convolution(
    run: LabelRun,
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> None:
    """(N, g * c, *positions) by (g * o, c, *kernel) to (N, g * o, *positions')."""
    shape = (1, int(groups), weight.shape[0] // int(groups), weight.shape[1])
    outputs_each, inputs_each = run.full_cells(weight, shape[1])
    inputs = run.grouped_inputs(weight, shape[1]) if groups > 1 and inputs_each > 1 else None
    cells = [
        sheet.reshape(1, *(shape[1:3] if sheet.shape[0] > 1 else (1, 1)), sheet.shape[1])
        for sheet in run.sheets(weight)
        if _along_channels(sheet) and (inputs is None or sheet.shape[1] == 1)
    ]
    own = [] if inputs is None else [inputs.reshape(1, shape[1], 1, shape[3])]
    apart = inputs is not None and outputs_each > 1
    operands = [Operand(own, shape), Operand(cells, shape)] if apart else [Operand(own + cells, shape)]
    _convolve(run, out, x, weight, operands, bias, prod(out.shape[out.ndim - weight.ndim + 2 :]))


@rule(*TRANSPOSED)
def transposed_convolution(
    run: LabelRun,
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> None:
    """(N, g * c, *positions) by (g * c, o, *kernel) to (N, g * o, *positions'); every group keeps the same outputs."""
    shape = (1, int(groups), weight.shape[1], weight.shape[0] // int(groups))
    cells = []
    for sheet in run.sheets(weight):
        if _along_channels(sheet):
            inner = sheet.reshape(*((shape[1], shape[3]) if sheet.shape[0] > 1 else (1, 1)), sheet.shape[1])
            cells.append(inner.swapaxes(1, 2)[None])
    _convolve(run, out, x, weight, [Operand(cells, shape)], bias, prod(x.shape[x.ndim - weight.ndim + 2 :]))


def _along_channels(filters: Sheet) -> bool:
    """Tell whether labels change along outputs or inputs; along the kernel they couple to nothing."""
    return max(varying(filters), default=0) < 2


def _convolve(
    run: LabelRun,
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    cells: Sequence[Operand],
    bias: torch.Tensor | None,
    out_positions: int,
) -> None:
    """Convolve with a weight whose labels lie in the joint space; those in its second operand meet no input.

    They are apart where each group keeps its own inputs and its own outputs.
    """
    positions, shape = weight.ndim - 2, cells[0].shape
    channel = x.ndim - positions - 1
    operands = [_inputs(run, x, channel, positions, shape), cells[0]]
    joined = join(run, operands, [JOINT.index("c")], within=True)
    for cell in cells:
        weigh(run, cell, [JOINT.index("c")])
    apart = [sheet for operand in cells[1:] for sheet in operand.sheets]
    joined += apart
    count(run, joined, operands, "conv", weight, prod(weight.shape[2:]) * out_positions)
    if shape[1] > 1:
        _groups_kept(run, joined, shape[1], whole=len(cells) == 1)
    sheets = [
        _outputs(sheet, shape).reshape(*sheet.shape[:channel], -1, *(1,) * positions)
        for sheet in (_ended(run, joined, apart) if len(cells) > 1 else project(run, joined, JOINT, "ngo"))
    ]
    if bias is not None:
        laid = [bias.shape[0] if dim == channel else 1 for dim in range(out.ndim)]
        biased = Operand([sheet.reshape(laid) for sheet in run.sheets(bias)], laid)
        sheets = join(run, [Operand(sheets, out.shape), biased])
    run.give(out, sheets)


def _ended(run: LabelRun, joined: Sequence[Sheet], apart: Sequence[Sheet]) -> list[Sheet]:
    """Project where groups keep their own inputs: these end in the sum, even where each group has a single one."""
    inputs = [sheet for sheet in joined if sheet.shape[1] > 1 and not any(sheet is one for one in apart)]
    for sheet in inputs:
        run.reads(sheet)
        run.pin(sheet, [JOINT.index("g")], "sums are taken within these groups")
    return project(run, [sheet for sheet in joined if not any(sheet is one for one in inputs)], JOINT, "ngo")


def _inputs(run: LabelRun, x: torch.Tensor, channel: int, positions: int, shape: Sequence[int]) -> Operand:
    sheets = []
    for sheet in run.sheets(x):
        if passes(run, sheet, positions):
            inner = (shape[1], 1, shape[3]) if sheet.shape[channel] > 1 else (1, 1, 1)
            sheets.append(sheet.reshape(sheet.shape[0] if channel else 1, *inner))
    return Operand(sheets, (x.shape[0] if channel else 1, shape[1], 1, shape[3]))


def _outputs(sheet: Sheet, shape: Sequence[int]) -> Sheet:
    """Merge (n, g, o) into (n, g * o); labels that do not change along both are spread over both."""
    if sheet.shape[1:] in ((1, 1), (shape[1], shape[2])):
        return sheet
    return np.broadcast_to(sheet, (sheet.shape[0], shape[1], shape[2]))


def _groups_kept(run: LabelRun, joined: Sequence[Sheet], groups: int, whole: bool) -> None:
    """Either whole groups go, and their number is rewritten; or all stay, and each keeps as many channels."""
    for sheet in joined:
        if sheet.shape[1] == 1:
            continue
        if whole and sheet.shape[2] == sheet.shape[3] == 1:
            origin = run.provenance(groups)
            if origin is not None:
                run.use(origin, extent_of(sheet, 1))
        else:
            run.rows(np.moveaxis(sheet, 1, 0).reshape(groups, -1), f"the convolution has {groups} equal groups")
