"""The tracer's run: write down every event, to be made into groups afterwards."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from secateur.graph import folding
from secateur.graph.atoms import Atoms, Place
from secateur.graph.following import Follower
from secateur.graph.groups import Reason, TensorInfo
from secateur.graph.labels import Sheet, along, complete, distinct, rows_along, varying
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
from secateur.graph.registry import Rule
from secateur.graph.rules import normalization
from secateur.graph.running import LABELS, MEET_DATA, WEIGHT, LabelRun, cells_of
from secateur.graph.staging import modules_of

if TYPE_CHECKING:
    from secateur.graph.modes import Watch

ONE_OF_EACH_ROW = "each of these belongs to a whole head or part, and channels go from within all of them"
Mark = tuple[list[int], tuple[bool, int, int]]  # how much was recorded, and followed
META = torch.device("meta")
_PLAIN = frozenset({nn.Parameter, torch.Tensor})
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


class Count(NamedTuple):
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
        self.watch: Watch | None = None
        self.attending: set[Place] = set()
        self.scalings: list[Scaling] = []
        self.follower = Follower(at_once=on_data)
        self.sizes: list[folding.Size] = []  # that the running operation multiplies by
        self.spreads: list[tuple[np.ndarray, np.ndarray, Reason]] = []
        self.consumed: list[np.ndarray] = []
        self.weighed: list[np.ndarray] = []
        self.buffers: set[str] = set()
        self.unfolded: list[Expression] = []  # sizes whose scale could not be folded into weights
        self.shapes = shapes or {}
        self.full = full or {}
        self.atoms = Atoms()
        self.modules = modules_of(model)
        self.paths = {id(module): path for path, module in self.modules}
        self.parameters: set[str] = set()  # those with channels
        self.edges: list[tuple[np.ndarray, np.ndarray]] = []
        self.fixed: list[tuple[np.ndarray, Reason]] = []
        self.tables: list[tuple[np.ndarray, Reason]] = []
        self.pins: list[tuple[np.ndarray, Reason]] = []
        self.averaged: list[np.ndarray] = []
        self.read: list[np.ndarray] = []
        self.leaving: list[np.ndarray] = []
        self.uses: list[Use] = []
        self.counts: list[Count] = []
        self.parts: list[np.ndarray] = []
        self.decisions: list[Decision] = []
        self.numbers: list[Attribute] = []
        self._events: tuple[list[Any], ...] = (
            self.counts, self.edges, self.fixed, self.tables, self.pins, self.averaged, self.read, self.leaving,
            self.uses, self.parts, self.decisions, self.numbers, self.spreads, self.consumed, self.weighed,
        )  # fmt: skip
        self.counting = True
        self.single_values = False  # a norm saw one value of each channel, with which it cannot be trained
        self.on_data = on_data
        self.training_batch = 0

    # -- stand-ins ---------------------------------------------------------------------------------------------------

    def without_data(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same kind without data; a named one has atoms along every axis."""
        if not self.shapes and type(tensor) in _PLAIN and tensor.layout is torch.strided:  # takes half the time
            return self._labelled(name, tensor, torch.empty_like(tensor, device=META))
        shape = self.shapes.get(name, tensor.shape)
        return self._labelled(name, tensor, torch.empty(shape, dtype=tensor.dtype, device=META))

    def with_data(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor, with atoms along every axis; the code may write into it."""
        return self._labelled(name, tensor, tensor.detach().clone())

    def _labelled(self, name: str, tensor: torch.Tensor, stand_in: torch.Tensor) -> torch.Tensor:
        kind, shape = type(tensor), tuple(stand_in.shape)
        if kind is nn.Parameter or (kind is not torch.Tensor and isinstance(tensor, nn.Parameter)):
            asks = tensor.requires_grad and stand_in.is_floating_point()
            stand_in = torch.Tensor._make_subclass(nn.Parameter, stand_in, asks)
            setattr(stand_in, WEIGHT, True)
            if max(shape, default=1) > 1:
                self.parameters.add(name)
        elif name:
            self.buffers.add(name)
        if name:
            setattr(stand_in, NAME, name)
            setattr(stand_in, LABELS, partial(self._fresh, name, shape))
        return stand_in

    def _fresh(self, name: str, shape: Sequence[int]) -> list[Sheet]:
        if len(shape) == 1:
            return [self.atoms.of(name, 0, shape[0])] if shape[0] > 1 else []
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

    def idle(self) -> bool:
        """Tell whether some parameter has not been used."""
        return bool(self._idle())

    def _idle(self) -> set[str]:
        return self.parameters - {"", *(tensor for tensor, _ in self.atoms.axes)}

    def hold_all(self) -> None:
        """Keep every channel, as nobody knows which of them enter the layers that have not been used."""
        layer = min(self._idle()).rpartition(".")[0]
        reason = Reason(f"the forward reads values, and {layer or 'a parameter'} was not reached: other inputs may do")
        self.fixed += [(self.atoms.known(*place), reason) for place in self.atoms.axes]

    def mark(self) -> Mark:
        """Remember how much has been recorded."""
        return [*map(len, self._events)], self.follower.mark()

    def back_to(self, mark: Mark) -> None:
        """Forget what was recorded since; atoms once numbered stay so."""
        for events, length in zip(self._events, mark[0], strict=True):
            del events[length:]
        self.follower.back_to(mark[1])

    def tally(self) -> list[int]:
        """Return how many axes are numbered, and how many events of each kind recorded, counts of MACs aside."""
        return [len(self.atoms.axes), *map(len, self._events[1:])]

    # -- events ------------------------------------------------------------------------------------------------------

    @override
    def unify(self, one: Sheet, other: Sheet) -> None:
        if one is other:
            return
        a, b = (one, other) if one.shape == other.shape else np.broadcast_arrays(one, other)
        a, b = a.ravel(), b.ravel()
        if complete(a) and complete(b):
            self.edges.append((a, b))
            return
        met = (a != 0) & (b != 0)
        self.edges.append((a[met], b[met]))
        self.fix(np.where(met, 0, np.maximum(a, b)), MEET_DATA)

    @override
    def spread(self, narrow: Sheet, wide: Sheet) -> None:
        if not self.tables:
            self.unify(narrow, wide)
            return
        shape = np.broadcast_shapes(narrow.shape, wide.shape)
        dims = varying(narrow)
        positions = rows_along(np.broadcast_to(wide, shape), dims)
        self.spreads.append((rows_along(narrow, dims)[:, :1], positions, self.where(ONE_OF_EACH_ROW)))

    @override
    def fix(self, sheet: Sheet, why: str) -> None:
        atoms = distinct(sheet)
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
        self.averaged.append(distinct(sheet))

    @override
    def reads(self, sheet: Sheet) -> None:
        self.read.append(sheet.ravel())

    @override
    def takes_mode(self) -> None:
        if self.watch is not None:
            self.watch.handed_on()

    @override
    def hands_out(self, sheet: Sheet) -> None:
        self.leaving.append(sheet.ravel())

    @override
    def use(self, expression: Expression, extent: Extent) -> None:
        if not is_literal(expression):
            self.uses.append(Use(expression, extent, self.where("the code takes both sizes from one number")))
        elif extent.labels.shape[1] > 1:
            self.rows_stay(extent.labels, f"the size {len(extent.labels)} is a number in the code")
        else:
            self.fix(extent.labels, f"the size {len(extent.labels)} is a number in the code")

    @override
    def apart(self, labels: np.ndarray) -> None:
        self.parts.append(distinct(labels))

    @override
    def found_equal(self, one: TracedInt, other: int) -> None:
        self.decided(one, "==", other, True)
        if is_literal(expression_of(other)):
            self.numbers += attributes_in(one.expression)

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
        self._numeric(number.expression, self.where(f"the size {_now(number.expression)} is used as a number"))

    def _numeric(self, size: Expression, reason: Reason) -> None:
        for extent in extents_in(size):
            atoms = distinct(extent.labels)
            self.fixed.append((atoms[atoms != 0], reason))
        self.numbers += attributes_in(size)

    @override
    def operate(self, func: Any, found: Rule | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.sizes = []
        out = super().operate(func, found, args, kwargs)
        if found is normalization.channel_norm and args[0].ndim > 1 and args[0].numel() == args[0].shape[1]:
            self.single_values = True
        if found not in folding.HEEDING:
            for number in self.traced_arguments():
                if isinstance(number, TracedFloat):
                    self.as_number(number)
        self.follower.follow(self, folding.Ran(func, found, out, args, kwargs, tuple(self.sizes)))
        return out

    @override
    def scaled(self, size: Expression, power: float) -> None:
        self.sizes.append(folding.Size(size, power, self.where(f"the size {_now(size)} is used as a number")))

    @override
    def emits(self, tensor: torch.Tensor) -> None:
        self.follower.emits(self, tensor)

    def settle_scales(self) -> None:
        """Find out which rows make up for numbers that follow sizes; sizes without such rows stay."""
        found, unsolved = folding.solved(self.follower.noticed)
        self.scalings = [Scaling(*each) for each in found]
        self.unfolded = [size.expression for size in unsolved]
        for size in unsolved:
            self._numeric(size.expression, size.reason)

    @override
    def weighs(self, sheet: Sheet, consumed: bool) -> None:
        self.weighed.append(sheet.ravel())
        if consumed:
            self.consumed.append(sheet.ravel())

    def heads_to_cut(self) -> frozenset[Place]:
        """Return the axes of attention, if the scale of some of it cannot follow the channels of a head."""
        attributes = {attribute for size in self.unfolded for attribute in attributes_in(size)}
        extents = [extent for size in self.unfolded for extent in extents_in(size)]
        extents += [use.extent for use in self.uses if not attributes.isdisjoint(attributes_in(use.expression))]
        found = {place for extent in extents for place in self.atoms.places(extent.labels)}
        return frozenset() if found.isdisjoint(self.attending) else frozenset(self.attending)

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


def _now(size: Expression) -> str:
    """Say how large a size is, if it is one of a tensor."""
    extents = extents_in(size)
    return str(len(extents[0].labels)) if extents else "in " + ", ".join(str(one) for one in attributes_in(size))
