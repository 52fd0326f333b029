"""Operations that sum over a dimension: channels end here, and new ones begin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from string import ascii_letters
from typing import Any

import torch

from secateur.graph.joining import Operand, join, placed
from secateur.graph.labels import Sheet, varying
from secateur.graph.provenance import Extent, TracedFloat, TracedInt
from secateur.graph.registry import rule
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
