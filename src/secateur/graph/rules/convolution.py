"""Convolutions, of whole axes and of groups."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from secateur.graph.joining import Operand, join
from secateur.graph.labels import Sheet, along, complete, varying
from secateur.graph.registry import rule
from secateur.graph.rules.contraction import count, project, weigh
from secateur.graph.rules.pooling import passes
from secateur.graph.running import LabelRun, extent_of

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
    if (groups == 1 and _whole_by_whole(run, out, x, weight, bias)) or (
        groups > 1 and weight.shape[1] == 1 and _channel_by_channel(run, out, x, weight, bias, groups)
    ):
        return
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


def _whole_by_whole(
    run: LabelRun, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> bool:
    """Convolve where whole axes meet, the usual case, which the rest would do no otherwise; tell whether it is that."""
    whole = _whole_axes(run, x, weight, bias, [(0,), (1,)])
    if whole is None:
        return False
    channel, entering, (outputs, inputs), biases = whole
    run.unify(entering.ravel(), inputs.ravel())
    run.weighs(outputs, consumed=False)
    run.weighs(inputs, consumed=True)
    run.macs("conv", weight, _positions(x, weight, out), [extent_of(outputs, 0), extent_of(inputs, 1)])
    run.reads(inputs)
    for own in biases:
        run.unify(outputs.ravel(), own)
    run.give(out, [along(outputs.ravel(), out.ndim, channel)])
    return True


def _channel_by_channel(
    run: LabelRun, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int
) -> bool:
    """Convolve each channel by itself, as `_whole_by_whole`."""
    whole = _whole_axes(run, x, weight, bias, [(0,)]) if run.full_cells(weight, groups) == (1, 1) else None
    if whole is None:
        return False
    _, entering, (filters,), biases = whole
    for own in (filters, *biases):
        run.unify(entering.ravel(), own.ravel())
    run.weighs(filters, consumed=False)
    run.macs("conv", weight, _positions(x, weight, out), [extent_of(filters, 0)])
    origin = run.provenance(groups)
    if origin is not None:
        run.use(origin, extent_of(filters, 0))
    run.give(out, [entering])
    return True


def _whole_axes(
    run: LabelRun, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dims: Sequence[tuple[int, ...]]
) -> tuple[int, Sheet, list[Sheet], list[Sheet]] | None:
    """Return the channels' dimension, and the sheets of input, weight along `dims`, and bias; None for any others."""
    channel, entering, filters = x.ndim - weight.ndim + 1, run.sheets(x), run.sheets(weight)
    biases, own = [] if bias is None else run.sheets(bias), filters[: len(dims)]
    if [*map(varying, entering)] != [(channel,)] or [*map(varying, own)] != [*dims]:
        return None
    usual = len(biases) == (bias is not None) and all(map(complete, (*entering, *own, *biases)))
    return (channel, entering[0], own, biases) if usual else None


def _positions(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> int:
    """Return at how many positions a convolution takes how many products of each channel, over all of a batch."""
    positions = weight.ndim - 2
    return prod((*weight.shape[2:], *out.shape[out.ndim - positions :], *x.shape[: x.ndim - positions - 1]))


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
