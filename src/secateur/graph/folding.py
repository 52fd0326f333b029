"""Where a factor can be folded in: the weights that a tensor is proportional to.

The scale of attention, 1 / sqrt(head_dim), changes with the channels of a head. Multiplying the rows of the layer that
made the queries makes up for it. A `Fold` travels with a tensor from such a layer on, as long as nothing but movement
and multiplication happens to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from secateur.graph.labels import Sheet, along
from secateur.graph.rules import contraction, indexing, movement, normalization, pointwise
from secateur.graph.running import LabelRun, Rule

FOLD = "_secateur_fold"  # attribute of a tensor: what it is proportional to

PASSING = frozenset({
    movement.view, movement.unflatten, movement.permute, movement.transpose, movement.matrix_transpose,
    movement.squeeze, movement.unsqueeze, movement.expand, movement.repeat, movement.flip, movement.roll,
    indexing.slice_, indexing.narrow, indexing.select, indexing.unbind, indexing.chunk, indexing.split,
    indexing.split_with_sizes, pointwise.same,
})  # fmt: skip
PRODUCTS_OF_TENSORS = frozenset({contraction.matmul, contraction.einsum})
JOINING = frozenset({movement.cat, movement.stack})
PRODUCTS = frozenset({"mul", "mul_", "div", "div_", "neg", "neg_"})
SUMS = frozenset({"add", "add_", "sub", "sub_"})


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows of a weight (and bias), each beside the label that it had in the tensor that they made."""

    keys: Sequence[Sheet]  # the tensor's sheets
    rows: Sequence[Sheet]  # the weight's, along its axis 0
    bias: Sequence[Sheet] | None  # None: there is no bias
    dim: int  # of the tensor: where the rows lie
    ndim: int
    chosen: np.ndarray | None = None  # once the tensor has gone into a product: the atoms

    def atoms(self, sheets: Sequence[Sheet]) -> np.ndarray | None:
        """Return the atoms of the rows that made elements with these labels; None if some are not known."""
        if self.chosen is not None:
            return self.chosen
        columns = [self.keys, self._laid(self.rows), *([] if self.bias is None else [self._laid(self.bias)])]
        if len(sheets) != 1 or any(len(column) != 1 for column in columns):
            return None
        keys, *made = (each.ravel() for each in np.broadcast_arrays(*(column[0] for column in columns)))
        labels = np.unique(sheets[0])
        if not np.isin(labels, keys).all():
            return None
        found = np.unique(np.concatenate([column[np.isin(keys, labels)] for column in made]))
        return found if found.all() else None

    def of_product(self, sheets: Sequence[Sheet]) -> Fold | None:
        """Return what a product with a tensor of these sheets is proportional to."""
        atoms = self.atoms(sheets)
        return None if atoms is None else replace(self, chosen=atoms)

    def _laid(self, sheets: Sequence[Sheet]) -> list[Sheet]:
        """Lay the labels along a weight's axis 0 where they are in the tensor."""
        return [along(sheet.ravel(), self.ndim, self.dim) for sheet in sheets if sheet.shape[0] == sheet.size > 1]


def fold_of(run: LabelRun, func: Any, found: Rule | None, out: Any, args: tuple[Any, ...]) -> Fold | None:
    """Return what the result of an operation is proportional to, if anything."""
    made = made_by(found, args)
    if made is not None:
        weight, bias, dim = made
        return Fold(run.sheets(out), run.sheets(weight), None if bias is None else run.sheets(bias), dim, out.ndim)
    if found in PRODUCTS_OF_TENSORS:
        operands = [arg for arg in tree_leaves(args) if isinstance(arg, torch.Tensor)]
        folds = [(getattr(operand, FOLD, None), operand) for operand in operands]
        return next((fold.of_product(run.sheets(operand)) for fold, operand in folds if fold is not None), None)
    return carried(found, func._schema.name.removeprefix("aten::"), args)


def carried(found: Rule | None, name: str, args: tuple[Any, ...]) -> Fold | None:
    """Return what the result of an operation is proportional to, given what its arguments are."""
    if found in PASSING:
        return getattr(args[0], FOLD, None)
    if found in JOINING:
        folds = {id(fold): fold for fold in (getattr(part, FOLD, None) for part in args[0])}
        return next(iter(folds.values())) if len(folds) == 1 else None
    if found is not pointwise.pointwise:
        return None
    folds = [getattr(arg, FOLD, None) for arg in args if isinstance(arg, torch.Tensor)]
    if name in PRODUCTS:
        own = [fold for fold in folds if fold is not None]
        return own[0] if len(own) == 1 and (len(args) < 2 or not name.startswith("div") or folds[0]) else None
    return folds[0] if name in SUMS and len(folds) == 2 and folds[0] is folds[1] else None


def made_by(found: Rule | None, args: tuple[Any, ...]) -> tuple[torch.Tensor, torch.Tensor | None, int] | None:
    """Return the weight and bias of an operation whose result is proportional to their rows, and along which dim."""
    if found in (contraction.linear, contraction.convolution):
        bias = args[2] if len(args) > 2 else None
        return args[1], bias, -1 if found is contraction.linear else 1 - args[1].ndim
    if found is normalization.channel_norm and isinstance(args[1], torch.Tensor):
        return args[1], args[2], 1
    if found is normalization.layer_norm and len(args) > 2 and isinstance(args[2], torch.Tensor):
        bias = args[3] if len(args) > 3 and isinstance(args[3], torch.Tensor) else None
        return args[2], bias, -1
    return None
