"""The tracer's run once more, noting which operation did what: the material that explanations are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from secateur.graph.groups import Reason
from secateur.graph.labels import Sheet
from secateur.graph.provenance import Attribute, Expression, Extent, TracedFloat, TracedInt, attributes_in
from secateur.graph.recording import NAME, Recorder
from secateur.graph.registry import Rule
from secateur.graph.running import LABELS

ORIGIN = "_secateur_origin"  # attribute of a tensor: (number of the operation that made it, of parameters alone)
CONSTANT = "_secateur_constant"  # attribute of a stand-in for a tensor that is neither parameter nor buffer

OperandKind = Literal["parameter", "constant", "input", "result"]
FindingKind = Literal["fixed", "pinned", "table", "statistics", "use", "number"]


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor that enters an operation: where it comes from, and the atoms that it carries."""

    kind: OperandKind
    maker: int  # the number of the operation that made it, -1 for none
    of_parameters: bool  # computed from parameters and buffers alone
    atoms: np.ndarray


@dataclass(eq=False)
class Occurrence:
    """An operation that ran."""

    number: int
    op: str  # the ATen name, e.g. "add_"
    source: str  # "file.py:123" of the user's code
    module: str  # path of the innermost module whose code ran
    operands: list[Operand] = field(default_factory=list)
    made: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # atoms that the result carries
    edges: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    read: list[np.ndarray] = field(default_factory=list)  # atoms that a sum ends
    contracts: bool = False  # it sums products over a dimension
    speaks: bool = False  # it did more than let its channels pass

    @property
    def is_layer(self) -> bool:
        """Tell whether this is an operation of a layer with weights, whatever it is given."""
        return self.op.startswith(("linear", "conv", "embedding"))


@dataclass(frozen=True, eq=False)
class Finding:
    """What a rule found, and the operation in which it did: -1 between operations."""

    kind: FindingKind
    atoms: np.ndarray
    reason: Reason
    occurrence: int
    attributes: tuple[Attribute, ...] = ()


class Witness(Recorder):
    """A recorder that writes down the operations, too."""

    def __init__(self, model: nn.Module, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.occurrences: list[Occurrence] = []
        self.findings: list[Finding] = []
        self._events += self.occurrences, self.findings
        # Layers of torch's own, which go by their path and not by the operation that they run.
        self.leaves = {path for path, module in model.named_modules() if _is_torchs_leaf(module)}
        self.containers = {path for path, module in model.named_modules() if next(module.children(), None) is not None}
        self._current: Occurrence | None = None

    # -- operations --------------------------------------------------------------------------------------------------

    @override
    def operate(self, func: Any, found: Rule | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.partition("::")[2]
        now = Occurrence(len(self.occurrences), name, self.where("").source, self.running_module())
        now.operands = [self._operand(tensor) for tensor in _tensors_in((args, kwargs))]
        self.occurrences.append(now)
        self._current, before = now, len(self.edges)
        try:
            out = super().operate(func, found, args, kwargs)
        finally:
            self._current = None
        now.edges += self.edges[before:]
        now.speaks |= bool(now.edges) or len(now.operands) > 1
        self._note_results(now, _tensors_in(out))
        return out

    def _operand(self, tensor: torch.Tensor) -> Operand:
        maker, of_parameters = getattr(tensor, ORIGIN, (-1, False))
        kind: OperandKind = "result" if maker >= 0 else "input"
        if kind == "input" and hasattr(tensor, CONSTANT):
            kind, of_parameters = "constant", True
        elif kind == "input" and hasattr(tensor, NAME):
            kind, of_parameters = "parameter", True
            self.sheets(tensor)  # a parameter's labels are made when they are first asked for
        return Operand(kind, maker, of_parameters, _atoms_of([tensor]))

    def _note_results(self, now: Occurrence, results: Sequence[torch.Tensor]) -> None:
        now.made = _atoms_of(results)
        of_parameters = bool(now.operands) and all(operand.of_parameters for operand in now.operands)
        of_parameters &= not now.is_layer  # a layer on learned queries makes activations, too
        for result in results:
            setattr(result, ORIGIN, (now.number, of_parameters))

    @override
    def _labelled(self, name: str, tensor: torch.Tensor, stand_in: torch.Tensor) -> torch.Tensor:
        labelled = super()._labelled(name, tensor, stand_in)
        if not name:
            setattr(labelled, CONSTANT, True)
        return labelled

    @override
    def grouped_inputs(self, weight: torch.Tensor, groups: int) -> np.ndarray | None:
        atoms = super().grouped_inputs(weight, groups)
        if atoms is not None and self._current is not None:
            self._current.operands.append(Operand("parameter", -1, True, atoms))
        return atoms

    # -- findings ----------------------------------------------------------------------------------------------------

    def _find(
        self, kind: FindingKind, labels: np.ndarray, reason: Reason, attributes: tuple[Attribute, ...] = ()
    ) -> None:
        if self._current is not None and kind != "use":
            self._current.speaks = True
        number = -1 if self._current is None else self._current.number
        self.findings.append(Finding(kind, _unique(labels), reason, number, attributes))

    @override
    def fix(self, sheet: Sheet, why: str) -> None:
        before = len(self.fixed)
        super().fix(sheet, why)
        self._find_fixed(before)

    def _find_fixed(self, before: int) -> None:
        for atoms, reason in self.fixed[before:]:
            self._find("fixed", atoms, reason)

    @override
    def settle_scales(self) -> None:
        before = len(self.fixed)
        super().settle_scales()
        self._find_fixed(before)

    @override
    def spread(self, narrow: Sheet, wide: Sheet) -> None:
        before = len(self.spreads)
        super().spread(narrow, wide)
        for one, other, reason in self.spreads[before:]:  # whether these go together or stay is settled afterwards
            if self._current is not None:
                a, b = np.broadcast_arrays(one, other)
                self._current.edges.append((a.ravel(), b.ravel()))
            self._find("pinned", one, reason)

    @override
    def rows(self, matrix: np.ndarray, why: str) -> None:
        super().rows(matrix, why)
        self._find("table", *self.tables[-1])

    @override
    def rows_stay(self, matrix: np.ndarray, why: str) -> None:
        super().rows_stay(matrix, why)
        self._find("pinned", *self.pins[-1])

    @override
    def statistics(self, sheet: Sheet) -> None:
        super().statistics(sheet)
        self._find("statistics", sheet, self.where("a statistic is taken across these channels"))

    @override
    def apart(self, labels: np.ndarray) -> None:
        super().apart(labels)
        if self._current is not None:
            self._current.speaks = True

    @override
    def reads(self, sheet: Sheet) -> None:
        super().reads(sheet)
        if self._current is not None:
            self._current.read.append(_unique(sheet))

    @override
    def macs(self, op: str, weight: torch.Tensor | None, factor: int, extents: Sequence[Extent]) -> None:
        super().macs(op, weight, factor, extents)
        if self._current is not None:
            self._current.contracts = True

    @override
    def use(self, expression: Expression, extent: Extent) -> None:
        before = len(self.uses)
        super().use(expression, extent)
        for used in self.uses[before:]:
            self._find("use", used.extent.labels, used.reason, attributes_in(used.expression))

    @override
    def as_number(self, number: TracedInt | TracedFloat) -> None:
        before = len(self.fixed)
        super().as_number(number)
        self._find_fixed(before)
        reason = self.where("it is used as a number")
        self._find("number", np.zeros(1, np.int64), reason, attributes_in(number.expression))


def _is_torchs_leaf(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.") and next(module.children(), None) is None


def _tensors_in(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _atoms_of(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the atoms that tensors carry; labels that appear only when they are read are left unread."""
    found = [getattr(tensor, LABELS, None) for tensor in tensors]
    sheets = [sheet for sheets in found if isinstance(sheets, list) for sheet in sheets]
    return _unique(np.concatenate([sheet.ravel() for sheet in sheets])) if sheets else np.zeros(0, np.int64)


def _unique(labels: np.ndarray) -> np.ndarray:
    atoms = np.unique(labels)
    return atoms[atoms != 0]
