"""The proof of structure: the pruned model runs on labels, and whatever meets must be the same channel.

Each tensor of the pruned model carries, at each place, the atom of the original that its plan put there; atoms that
meet must be of one unit. It needs no data and no weights. It catches stale integers, wrong order, and shapes that fit
by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from secateur.errors import ProofError, SecateurError
from secateur.graph.calls import Call
from secateur.graph.coupling import Coupling
from secateur.graph.groups import Axis, Graph
from secateur.graph.labels import Sheet, along
from secateur.graph.recording import NAME
from secateur.graph.registry import Rule
from secateur.graph.running import LABELS, LabelRun, cells_of, user_frame
from secateur.graph.settling import solve
from secateur.graph.tracing import repeated, run_calls
from secateur.planning.composition import remaining_groups
from secateur.planning.plans import Plan


def check_structure(graph: Graph, small: nn.Module, plan: Plan, calls: Sequence[Call]) -> None:
    """Run the pruned model on labels of the original's units.

    Raises:
        ProofError: two places that meet are not the same channel, or the pruned model does not run; names the tensors.
    """
    _check_integers(graph, small, plan)
    run = _Checker(graph, plan)
    calls = [call.map(lambda tensor: torch.empty_like(tensor, device="meta")) for call in calls]
    runs = [(calls, False)]
    if graph.training_batch:
        runs.append(([call.map(partial(repeated, times=graph.training_batch)) for call in calls], True))
    for inputs, training in runs:
        try:
            run_calls(run, small, inputs, run.stand_in, graph.free_outputs, None, training)
        except SecateurError:
            raise
        except Exception as error:
            raise run.failure(f"the pruned model does not run: {type(error).__name__}: {error}") from error


def _check_integers(graph: Graph, small: nn.Module, plan: Plan) -> None:
    """Compare the integers of the pruned model with what the channels that it keeps want of them."""
    assert graph.coupling is not None
    alive = alive_units(graph, plan)
    for attribute, wanted in solve(graph.coupling, alive, graph).items():
        value = vars(small.get_submodule(attribute.module))[attribute.key]
        found = value if attribute.index is None else value[attribute.index]
        if found != wanted:
            raise ProofError(
                f"Structure: the integer {attribute} of the pruned model is {found}, its channels want {wanted}. "
                "Cut the model again with this plan, or make a new plan."
            )


def alive_units(graph: Graph, plan: Plan) -> np.ndarray:
    """Return of every unit whether the plan keeps it."""
    coupling = graph.coupling
    assert coupling is not None
    alive = np.ones(len(coupling.family_of), bool)
    for name, axis in coupling.atoms.axes:
        labels = labels_of(coupling, plan, name, axis, graph.tensors[name].shape)
        every = coupling.atoms.known(name, axis)
        if labels is not None and len(labels) < len(every):
            alive[coupling.unit_of[np.setdiff1d(every, labels)]] = False
    return alive


class _Checker(LabelRun):
    """Labels are the original's atoms."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        super().__init__()
        assert graph.coupling is not None
        self.graph, self.plan, self.coupling = graph, plan, graph.coupling
        self.arguments: tuple[Any, ...] = ()
        self.single = _single_units(graph, plan)

    def stand_in(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor without data that carries the labels of a tensor of the pruned model."""
        stand_in: torch.Tensor = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        if isinstance(tensor, nn.Parameter):
            stand_in = nn.Parameter(stand_in, requires_grad=tensor.requires_grad)
        if name:
            setattr(stand_in, NAME, name)
            setattr(stand_in, LABELS, lambda: self._sheets(name, tuple(tensor.shape)))
        return stand_in

    def _sheets(self, name: str, shape: Sequence[int]) -> list[Sheet]:
        sheets = []
        for axis, size in enumerate(shape):
            rows_apart = axis == 1 and (name, "grouped") in self.coupling.atoms
            labels = None if rows_apart else self._labels(name, axis)
            if rows_apart:
                sheets.append(along(np.zeros(size, np.int64), len(shape), axis))
            elif labels is not None and self.graph.tensors[name].shape[axis] > 1:
                if len(labels) != size:
                    raise ProofError(
                        f"Structure: {name} has {size} entries along axis {axis}, the plan keeps {len(labels)}. "
                        "Cut the model again with this plan."
                    )
                if size > 1:
                    sheets.append(along(labels, len(shape), axis))
        return sheets

    def _labels(self, name: str, axis: Axis) -> np.ndarray | None:
        return labels_of(self.coupling, self.plan, name, axis, self.graph.tensors[name].shape)

    @override
    def grouped_inputs(self, weight: torch.Tensor, groups: int) -> np.ndarray | None:
        name = getattr(weight, NAME, None)
        if name is None:
            return None
        labels = self._labels(name, "grouped")
        return np.zeros(groups * weight.shape[1], np.int64) if labels is None else labels

    @override
    def full_cells(self, weight: torch.Tensor, groups: int) -> tuple[int, int]:
        name = getattr(weight, NAME, None)
        return super().full_cells(weight, groups) if name is None else cells_of(self.graph.tensors[name])

    # -- events ------------------------------------------------------------------------------------------------------

    @override
    def operate(self, func: Any, found: Rule | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.arguments = args
        return super().operate(func, found, args, kwargs)

    @override
    def unify(self, one: Sheet, other: Sheet) -> None:
        if one is other:
            return
        a, b = np.broadcast_arrays(one, other)
        a, b = a.ravel(), b.ravel()
        units = self.coupling.unit_of
        differ = (units[a] != units[b]) & (a != 0) & (b != 0)
        wrong = np.flatnonzero(differ & ~self.single[units[a]] & ~self.single[units[b]])
        if len(wrong):
            at = wrong[0]
            raise self.failure(f"at place {at} channel {self.channel(a[at])} meets channel {self.channel(b[at])}")
        lone = np.maximum(a, b)[(a == 0) != (b == 0)]
        self._must_be_whole(lone, "meets values that have no channels")

    @override
    def spread(self, narrow: Sheet, wide: Sheet) -> None:
        if (self.coupling.families(narrow) >= 0).any():
            self.unify(narrow, wide)

    @override
    def fix(self, sheet: Sheet, why: str) -> None:
        self._must_be_whole(np.unique(sheet), why)

    def _must_be_whole(self, labels: np.ndarray, why: str) -> None:
        free = labels[(self.coupling.families(labels) >= 0) & ~self.single[self.coupling.unit_of[labels]]]
        if len(free):
            raise self.failure(f"channel {self.channel(free[0])}: {why}, though it may be cut")

    @override
    def splits_heads(self, sheet: Sheet) -> bool:
        heads = self.graph.heads
        return bool(heads) and not heads.isdisjoint(self.coupling.atoms.places(sheet))

    @override
    def rows(self, matrix: np.ndarray, why: str) -> None: ...

    # -- words -------------------------------------------------------------------------------------------------------

    def channel(self, label: Any) -> str:
        """Name an atom."""
        tensor, axis, index = self.coupling.atoms.find(int(label))
        return f"{index} of {tensor} (axis {axis})"

    def failure(self, what: str) -> ProofError:
        """Return the error, with the tensors of the operation that is running."""
        names = [name for leaf in tree_leaves(self.arguments) if (name := getattr(leaf, NAME, None))]
        source, _ = user_frame()
        error = ProofError(
            f"Structure: in {' and '.join(names) or 'an operation without weights'} ({source}), {what}. "
            "The plan does not fit the model's coupling: make a new plan, or leave these layers whole (ignore=)."
        )
        error.tensors = tuple(names)
        return error


def _single_units(graph: Graph, plan: Plan) -> np.ndarray:
    """Tell of every unit whether it is the only one left somewhere; a dimension of size 1 carries no labels there."""
    coupling = graph.coupling
    assert coupling is not None
    single = np.zeros(len(coupling.family_of), bool)
    for name, axis in coupling.atoms.axes:
        labels = labels_of(coupling, plan, name, axis, graph.tensors[name].shape)
        units = np.zeros(0, np.int64) if labels is None else np.unique(coupling.unit_of[labels])
        if len(units) == 1:
            single[units] = True
    alive = alive_units(graph, plan)
    for matrix, _ in coupling.tables:
        living = alive[coupling.unit_of[matrix]]
        single[coupling.unit_of[matrix[living.sum(axis=1) == 1]]] = True
    for part in coupling.parts:
        if alive[coupling.unit_of[part]].sum() == 1:
            single[coupling.unit_of[part]] = True
    return single


def labels_of(coupling: Coupling, plan: Plan, name: str, axis: Axis, shape: Sequence[int]) -> np.ndarray | None:
    """Return the labels along an axis of the pruned model; None if the full-size trace never used it."""
    if (name, axis) not in coupling.atoms:
        return None
    atoms = coupling.atoms.known(name, axis)
    kept = plan.keep.get(name, {}).get(axis)
    if axis != "grouped" or kept is None:
        return atoms if kept is None else atoms[list(kept)]
    table = atoms.reshape(-1, shape[1])
    outputs = plan.keep[name].get(0, range(shape[0]))
    groups = remaining_groups(outputs, shape[0] // len(table), len(kept))  # type: ignore[arg-type]
    return np.concatenate([table[group, list(rows)] for group, rows in zip(groups, kept, strict=True)])  # type: ignore[arg-type]
