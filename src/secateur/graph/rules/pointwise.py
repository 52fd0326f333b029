"""Operations element by element: operands are unified where they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from secateur.graph.joining import Operand, broadcast, join
from secateur.graph.labels import Sheet
from secateur.graph.provenance import TracedFloat
from secateur.graph.registry import rule, tagged
from secateur.graph.running import VIEW, LabelRun

# Operations element by element that this version of torch does not tag as such.
UNTAGGED = (
    "relu_", "relu6", "relu6_", "silu_", "gelu_", "elu_", "celu", "celu_", "selu", "selu_", "mish_", "hardswish",
    "hardswish_", "hardsigmoid_", "hardtanh_", "leaky_relu_", "threshold_", "softplus", "log_sigmoid", "masked_fill",
    "masked_fill_", "clamp_", "clamp_min_", "clamp_max_", "sigmoid_", "tanh_", "add_", "sub_", "mul_", "div_", "pow_",
    "exp_", "sqrt_", "square_", "abs_", "neg_", "lerp_", "addcmul_", "addcdiv_", "nan_to_num", "where",
)  # fmt: skip


POWERS = {
    "mul": 1.0,
    "mul_": 1.0,
    "div": -1.0,
    "div_": -1.0,
}  # of a number by which these multiply


@rule(*UNTAGGED)
@tagged(torch.Tag.pointwise)
def pointwise(run: LabelRun, out: Any, *args: Any, **kwargs: Any) -> None:
    """Unify the operands; an in-place operation that brings new labels into a view is not followed further."""
    operands = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
    _scalars(run, operands)
    if len(operands) == 1:
        run.give(out, run.sheets(operands[0]))
        return
    ndim = out.ndim
    parts = [broadcast(run.sheets(operand), operand.shape, ndim) for operand in operands]
    joined = join(run, parts)
    run.give(out, joined if operands[0] is not out else known_before(run, out, joined))


def _scalars(run: LabelRun, operands: list[torch.Tensor]) -> None:
    """Note the sizes among the arguments of an operation that computes with them."""
    for argument in run.traced_arguments():
        name = run.operation._schema.name.removeprefix("aten::")
        if name in POWERS and len(operands) == 1:
            power = argument.power if isinstance(argument, TracedFloat) else 1.0
            run.scaled(argument.expression, power * POWERS[name])
        else:
            run.as_number(argument)


def known_before(run: LabelRun, out: torch.Tensor, joined: list[Sheet]) -> list[Sheet]:
    """Return the labels of what was written in place; new ones are not followed out of a view into the whole."""
    if run.sheets(out) or not hasattr(out, VIEW):
        return joined
    for sheet in joined:
        run.fix(sheet, "these channels are written in place into a part of a tensor without channels to cut")
    return []


@rule(
    "dropout",
    "dropout_",
    "feature_dropout",
    "alpha_dropout",
    "native_dropout",
    "clone",
    "detach",
    "alias",
    "contiguous",
    "to",
    "_to_copy",
    "lift_fresh",
    "positive",
    "type_as",
    "float",
    "rrelu",
    "rrelu_with_noise",
)
def same(run: LabelRun, out: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """The labels stay with their elements."""
    run.give(out[0] if isinstance(out, tuple) else out, run.sheets(x))


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_empty_strided")
def filled_like(run: LabelRun, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """A tensor made in the shape of another shrinks with it."""
    run.give(out, run.sheets(x))


@rule("fill_", "zero_", "normal_", "uniform_", "bernoulli_")
def refilled(run: LabelRun, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """New values in the same places."""


@rule("copy_")
def copied(run: LabelRun, out: torch.Tensor, x: torch.Tensor, source: torch.Tensor, *args: Any) -> None:
    """What is written over a whole tensor takes the labels of its source; into a part, it is a pointwise write."""
    own = [size if stride else 1 for size, stride in zip(source.shape, source.stride(), strict=True)]  # not repeated
    given = broadcast(run.sheets(source), own, out.ndim)
    if hasattr(x, VIEW) or run.sheets(x):
        run.give(out, known_before(run, out, join(run, [Operand(run.sheets(x), x.shape), given])))
    else:
        run.give(out, given.sheets)


@rule("prelu", "_prelu_kernel")
def prelu(run: LabelRun, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    """One slope for all, or one a channel (dimension 1)."""
    sheets = run.sheets(weight)
    if weight.numel() > 1 and weight.ndim == 1 and x.ndim > 1:
        shape = [1] * x.ndim
        shape[1] = weight.shape[0]
        operand = broadcast([sheet.reshape(shape) for sheet in sheets], shape, x.ndim)
    else:
        operand = broadcast(sheets, weight.shape, x.ndim)
    run.give(out, join(run, [broadcast(run.sheets(x), x.shape, x.ndim), operand]))


@rule("glu")
def glu(run: LabelRun, out: torch.Tensor, x: torch.Tensor, dim: int = -1) -> None:
    """One half of a dimension times the sigmoid of the other: a channel and its gate go together."""
    dim = dim % x.ndim
    result = []
    for sheet in run.sheets(x):
        if sheet.shape[dim] == 1:
            result.append(sheet)
        else:
            half, gate = np.split(sheet, 2, axis=dim)
            table = np.stack([np.moveaxis(side, dim, 0).ravel() for side in (half, gate)])
            run.rows(table, "a gated unit has equal halves")
            run.unify(half, gate)
            result.append(half)
    run.give(out, result)
