"""The tracer's run: write down every event, to be made into groups afterwards."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from secateur.graph import folding
from secateur.graph.atoms import Atoms, Place
from secateur.graph.groups import Reason, TensorInfo
from secateur.graph.labels import Sheet, along
from secateur.graph.provenance import (
    Attribute,
    Expression,
    Extent,
    TracedFloat,
    TracedInt,
    attributes_in,
    expression_of,
    extents_in,
    is_literal,
)
from secateur.graph.running import LABELS, MEET_DATA, WEIGHT, LabelRun, Rule, cells_of
from secateur.graph.staging import tensor_infos

NAME = "_secateur_name"  # attribute of a stand-in: the tensor's first name


@dataclass(frozen=True)
class Use:
    """An integer that must be equal to a size."""

    expression: Expression
    extent: Extent
    reason: Reason


@dataclass(frozen=True)
class Decision:
    """The way that the code went: `left NAME right` was `result`, and must be after the cut."""

    name: str  # a key of DECISIONS
    left: Expression
    right: Expression
    result: int
    reason: Reason


@dataclass(frozen=True, eq=False)
class Scaling:
    """Rows to multiply so that a factor proportional to `size ** power` stays what it was."""

    atoms: np.ndarray
    size: Expression
    power: float


@dataclass(frozen=True)
class Count:
    """The MACs of one operation: `factor` times the sizes of the extents."""

    op: str
    layer: str
    factor: int
    extents: tuple[Extent, ...]


class Recorder(LabelRun):
    """Sheets of fresh atoms, and lists of what happened to them."""

    def __init__(
        self,
        model: nn.Module,
        shapes: Mapping[str, Sequence[int]] | None = None,
        full: Mapping[str, TensorInfo] | None = None,
        on_data: bool = False,
        heads: frozenset[Place] = frozenset(),
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attending: set[Place] = set()
        self.scalings: list[Scaling] = []
        self.consumed: list[np.ndarray] = []
        self.weighed: list[np.ndarray] = []
        self.buffers = {name for name, info in tensor_infos(model).items() if info.is_buffer}
        self.unfolded = False  # some scale could not be folded into weights
        self.shapes = shapes or {}
        self.full = full or {}
        self.atoms = Atoms()
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.edges: list[tuple[np.ndarray, np.ndarray]] = []
        self.fixed: list[tuple[np.ndarray, Reason]] = []
        self.tables: list[tuple[np.ndarray, Reason]] = []
        self.pins: list[tuple[np.ndarray, Reason]] = []
        self.averaged: list[np.ndarray] = []
        self.read: list[np.ndarray] = []
        self.uses: list[Use] = []
        self.counts: list[Count] = []
        self.parts: list[np.ndarray] = []
        self.decisions: list[Decision] = []
        self.numbers: list[Attribute] = []
        self.counting = True
        self.on_data = on_data
        self.training_batch = 0

    # -- stand-ins ---------------------------------------------------------------------------------------------------

    def without_data(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same kind without data; a named one has atoms along every axis."""
        shape = tuple(self.shapes.get(name, tensor.shape))
        return self._labelled(name, tensor, torch.empty(shape, dtype=tensor.dtype, device="meta"))

    def with_data(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor, with atoms along every axis; the code may write into it."""
        return self._labelled(name, tensor, tensor.detach().clone())

    def _labelled(self, name: str, tensor: torch.Tensor, stand_in: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, nn.Parameter):
            stand_in = nn.Parameter(stand_in, requires_grad=tensor.requires_grad and stand_in.is_floating_point())
            setattr(stand_in, WEIGHT, True)
        if name:
            setattr(stand_in, NAME, name)
            setattr(stand_in, LABELS, lambda: self._fresh(name, tuple(stand_in.shape)))
        return stand_in

    def _fresh(self, name: str, shape: Sequence[int]) -> list[Sheet]:
        ndim = len(shape)
        return [along(self.atoms.of(name, axis, size), ndim, axis) for axis, size in enumerate(shape) if size > 1]

    @override
    def grouped_inputs(self, weight: torch.Tensor, groups: int) -> np.ndarray | None:
        """Give the inputs of a grouped convolution atoms of their own, one for each group and row."""
        name = getattr(weight, NAME, None)
        return None if name is None else self.atoms.of(name, "grouped", groups * weight.shape[1])

    @override
    def full_cells(self, weight: torch.Tensor, groups: int) -> tuple[int, int]:
        info = self.full.get(getattr(weight, NAME, ""))
        return super().full_cells(weight, groups) if info is None else cells_of(info)

    def idle(self, model: nn.Module) -> bool:
        """Tell whether some parameter has not been used."""
        used = {tensor for tensor, _ in self.atoms.axes}
        return any(
            name not in used for name, parameter in model.named_parameters() if max(parameter.shape, default=1) > 1
        )

    def mark(self) -> tuple[int, ...]:
        """Remember how much has been recorded."""
        return tuple(len(events) for events in self._lists())

    def back_to(self, mark: tuple[int, ...]) -> None:
        """Forget what was recorded since; atoms once numbered stay so."""
        for events, length in zip(self._lists(), mark, strict=True):
            del events[length:]

    def _lists(self) -> tuple[list[Any], ...]:
        return (
            self.edges,
            self.fixed,
            self.tables,
            self.pins,
            self.averaged,
            self.read,
            self.uses,
            self.counts,
            self.parts,
            self.decisions,
            self.numbers,
            self.scalings,
        )

    # -- events ------------------------------------------------------------------------------------------------------

    @override
    def unify(self, one: Sheet, other: Sheet) -> None:
        if one is other:
            return
        a, b = (one, other) if one.shape == other.shape else np.broadcast_arrays(one, other)
        a, b = a.ravel(), b.ravel()
        if a.all() and b.all():
            self.edges.append((a, b))
            return
        met = (a != 0) & (b != 0)
        self.edges.append((a[met], b[met]))
        self.fix(np.where(met, 0, np.maximum(a, b)), MEET_DATA)

    @override
    def fix(self, sheet: Sheet, why: str) -> None:
        atoms = np.unique(sheet)
        atoms = atoms[atoms != 0]
        if len(atoms):
            self.fixed.append((atoms, self.where(why)))

    @override
    def rows(self, matrix: np.ndarray, why: str) -> None:
        self.tables.append((np.array(matrix), self.where(why)))

    @override
    def rows_stay(self, matrix: np.ndarray, why: str) -> None:
        self.pins.append((np.array(matrix), self.where(why)))

    @override
    def statistics(self, sheet: Sheet) -> None:
        self.averaged.append(np.unique(sheet))

    @override
    def reads(self, sheet: Sheet) -> None:
        self.read.append(sheet.ravel())

    @override
    def use(self, expression: Expression, extent: Extent) -> None:
        if not is_literal(expression):
            self.uses.append(Use(expression, extent, self.where("an integer gives this size")))
        elif extent.labels.shape[1] > 1:
            self.rows_stay(extent.labels, f"the size {len(extent.labels)} is a number in the code")
        else:
            self.fix(extent.labels, f"the size {len(extent.labels)} is a number in the code")

    @override
    def apart(self, labels: np.ndarray) -> None:
        self.parts.append(np.unique(labels))

    @override
    def decided(self, one: TracedInt, name: str, other: int, result: int) -> None:
        if name in (
            "<",
            "<=",
            ">",
            ">=",
        ):  # the other side may be a size of the picture, which changes from call to call
            for extent in extents_in(one.expression):
                self.fix(extent.labels, f"the size {int.__int__(one)} is compared in size with another number")
        reason = self.where("the code goes one way or the other by this size")
        self.decisions.append(Decision(name, one.expression, expression_of(other), result, reason))

    @override
    def as_number(self, number: TracedInt | TracedFloat) -> None:
        self._numeric(number.expression)

    def _numeric(self, size: Expression) -> None:
        for extent in extents_in(size):
            self.fix(extent.labels, f"the size {len(extent.labels)} is used as a number")
        self.numbers += attributes_in(size)

    @override
    def operate(self, func: Any, found: Rule | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = super().operate(func, found, args, kwargs)
        fold = folding.fold_of(self, func, found, out, args)
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if fold is not None:
                setattr(tensor, folding.FOLD, fold)
        return out

    @override
    def scaled(self, tensors: Sequence[torch.Tensor], size: Expression, power: float) -> None:
        for tensor in tensors:
            fold = getattr(tensor, folding.FOLD, None)
            atoms = None if fold is None else fold.atoms(self.sheets(tensor))
            if atoms is not None:
                self.scalings.append(Scaling(atoms, size, power))
                return
        if attributes_in(size) or extents_in(size):
            self.unfolded = True
            self._numeric(size)

    @override
    def weighs(self, sheet: Sheet, consumed: bool) -> None:
        self.weighed.append(sheet.ravel())
        if consumed:
            self.consumed.append(sheet.ravel())

    @override
    def attends(self, sheet: Sheet) -> None:
        self.attending.update(self.atoms.places(sheet))

    @override
    def splits_heads(self, sheet: Sheet) -> bool:
        return bool(self.heads) and not self.heads.isdisjoint(self.atoms.places(sheet))

    @override
    def macs(self, op: str, weight: torch.Tensor | None, factor: int, extents: Sequence[Extent]) -> None:
        if self.counting:
            layer = getattr(weight, NAME, None)
            name = self.running_module() if layer is None else layer.rpartition(".")[0]
            self.counts.append(Count(op, name, factor, tuple(extents)))

    def running_module(self) -> str:
        """Return the path of the innermost module of the model whose code is running."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            path = self.paths.get(id(frame.f_locals.get("self")))
            if path is not None:
                return path
            frame = frame.f_back
        return ""
