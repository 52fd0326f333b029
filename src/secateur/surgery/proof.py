"""`verify`: prove that a pruned model is what its plan promises (docs/design.md, section 5)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from secateur.errors import ProofError
from secateur.graph.calls import Call, calls_of
from secateur.graph.groups import Axis, Graph, Group
from secateur.graph.staging import one_thread, same_dice, tensor_infos
from secateur.graph.tracing import tensors_in, trace
from secateur.planning.plans import Plan
from secateur.surgery.cutting import check_fits, named_tensor, pruned_values
from secateur.surgery.masking import Silencer, silenced
from secateur.surgery.randomizing import (
    Sides,
    random_call,
    randomized,
    settle_statistics,
    smaller_sides,
    with_values_of,
)
from secateur.surgery.structure import check_structure

TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-3}
SEEDS = (0, 1, 2)
LEAST_SPREAD = 1e-6  # of the largest value: an output that varies less would hide any error


@dataclass(frozen=True)
class Proof:
    """What was checked, and how exact it came out.

    Errors are the largest difference between two outputs, relative to how much the output varies: the standard
    deviation of the output itself, or of the difference between the outputs for two random inputs, whichever is less.
    """

    values: bool  # every tensor is the original's at the kept indices, bit for bit; False: not compared
    structure: bool  # whatever meets in the pruned model is the same channel
    mask_error: float | None  # pruned against masked original, random weights; None: no data to compute with
    mask_error_float32: float | None  # the same in float32
    permutation_error: float | None  # original against itself with channels exchanged within groups, float64
    sides: tuple[int, int] | None  # height and width used instead of the example's; None: the example's own
    notes: tuple[str, ...] = ()
    precision: Literal["float64", "float32"] = "float64"  # of the errors; float32 where the model insists on it

    def before(self, change: str) -> Proof:
        """Return the proof of a cut whose weights were changed since: compensated, trained."""
        return replace(self, notes=(*self.notes, f"all of the cut alone, before the weights were {change}"))

    def __str__(self) -> str:
        parts = ["values identical" if self.values else "values not compared"]
        parts += ["structure sound"] if self.structure else []
        if self.mask_error is not None:
            parts.append(
                f"equals the masked original to {self.mask_error:.1e} "
                f"(in float32 {self.mask_error_float32:.1e}, on random weights)"
            )
        if self.permutation_error is not None:
            parts.append(f"channels interchangeable to {self.permutation_error:.1e}")
        if self.sides is not None:
            parts.append(f"computed at {self.sides[0]}x{self.sides[1]}")
        return "; ".join([*parts, *self.notes])


def verify(
    model: nn.Module, small: nn.Module, plan: Plan, example: Any, values: bool = True, graph: Graph | None = None
) -> Proof:
    """Prove that `small` is `model` without the channels that `plan` removes.

    Four checks: values, structure, mask, permutation. The numbers are computed on copies in evaluation, in float64, on
    weights and inputs drawn anew; neither model is touched.

    Args:
        model: the full-size model.
        small: what was cut from it.
        plan: the plan.
        example: how the model is called, as for `trace`.
        values: compare the weights; False once they were trained or compensated.
        graph: the model's graph, if there is one already.

    Raises:
        ProofError: names the check, the tensor and the channel.
        CutError: `plan` was made for another model.
        TraceError: there is no `graph`, and the model does not run on the example.
    """
    check_fits(model, plan)
    calls = calls_of(example)
    _check_shapes(small, plan)
    if values:
        _check_values(model, small, plan)
    graph = graph if graph is not None else trace(model, example, plan.free_outputs, plan.attention)
    if graph.on_data:
        notes: tuple[str, ...] = ("structure not checked: the forward reads values",)
    else:
        check_structure(graph, small, plan, calls)
        notes = ()
    if any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()]):
        return Proof(False, True, None, None, None, None, ("no numbers: the model has no data",))
    with same_dice(), one_thread(), torch.no_grad():
        return _numbers(model, small, plan, calls, graph, values, notes)


# -- values ----------------------------------------------------------------------------------------------------------


def _check_shapes(small: nn.Module, plan: Plan) -> None:
    shapes = {alias: info.shape for info in tensor_infos(small).values() for alias in info.aliases}
    for name in plan.fingerprint:
        if name not in shapes:
            raise _failed("Values", name, "is missing from the pruned model")
        if tuple(shapes[name]) != plan.shape_after(name):
            raise _failed("Values", name, f"has shape {tuple(shapes[name])}, the plan leaves {plan.shape_after(name)}")


def _check_values(model: nn.Module, small: nn.Module, plan: Plan) -> None:
    for name in tensor_infos(small):
        wanted = pruned_values(named_tensor(model, name).detach(), plan, name)
        found = named_tensor(small, name).detach()
        if found.is_meta or wanted.is_meta:
            continue
        wanted = wanted.to(found.device)
        same = (found == wanted) | (found.isnan() & wanted.isnan())
        if not bool(same.all()):
            place = tuple(int(i) for i in (~same).nonzero()[0])
            raise _failed("Values", name, f"differs from the original at {place}")


def _failed(check: str, name: str, what: str) -> ProofError:
    error = ProofError(
        f"{check}: {name} {what}. Cut the model again with this plan; "
        "if its weights were trained since, pass values=False."
    )
    error.tensors = (name,)
    return error


# -- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    calls: Sequence[Call],
    graph: Graph,
    values: bool,
    notes: tuple[str, ...],
) -> Proof:
    sides = None if graph.on_data else smaller_sides(model, calls)
    trial, dtype = _most_precise_trial(model, plan, calls, sides)
    pruned = with_values_of(trial.full, small, plan)
    with _InDouble():
        error = _mask_error(trial, pruned, plan, TOLERANCE[dtype])
    cut = {(tensor, axis) for tensor, axes in plan.keep.items() for axis in axes}
    groups = [group for group in graph.groups if not cut.isdisjoint((one.tensor, one.axis) for one in group.members)]
    with _InDouble():
        permutation = _permutation_error(_trial(model, None, calls, sides, dtype), graph, groups, TOLERANCE[dtype])
    single = _single_precision(trial, pruned, plan)
    if dtype is torch.float32:
        notes = (*notes, f"computed in float32, to {TOLERANCE[dtype]:.0e}: the model does not run in float64")
    if max(error, permutation) >= TOLERANCE[dtype]:
        notes = (*notes, f"above {TOLERANCE[dtype]:.0e}, but within what this network itself makes of rounding")
    if not trial.alive:
        notes = (*notes, "the output hardly depends on the input with random weights, so the numbers prove little")
    precision = "float64" if dtype is torch.float64 else "float32"
    return Proof(values, not graph.on_data, error, single, permutation, sides, notes, precision)


def _most_precise_trial(
    model: nn.Module, plan: Plan, calls: Sequence[Call], sides: Sides | None
) -> tuple[_Trial, torch.dtype]:
    """Try in float64; a model that does not run so is tried in float32."""
    with _InDouble() as double, suppress(Exception):
        trial = _trial(model, plan, calls, sides, torch.float64)
        if not double.left:
            return trial, torch.float64
    return _trial(model, plan, calls, sides, torch.float32), torch.float32


class _InDouble(TorchDispatchMode):
    """Keeps in float64 what is computed there, also where the model's code casts it down."""

    casts = ("aten::to", "aten::_to_copy", "aten::type_as")

    def __init__(self) -> None:
        super().__init__()
        self.left = False  # an operation that is no cast turned double precision into less

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.is_floating_point() and out.dtype != torch.float64:
            inputs = [one for one in tree_leaves(args) if isinstance(one, torch.Tensor)]
            if any(one.dtype == torch.float64 for one in inputs):
                if func._schema.name in self.casts:
                    return inputs[0].clone()
                self.left = True
        return out


@dataclass(frozen=True)
class _Trial:
    """The original on random weights, what it is called with, and what it returns (masked, if there is a plan)."""

    full: nn.Module
    inputs: list[Call]
    reference: list[torch.Tensor]
    spreads: list[float]  # how much each output varies between two inputs

    @property
    def alive(self) -> bool:
        """Tell whether every output depends on the input; a constant one would hide any error."""
        varies = [spread > _least(tensor) for tensor, spread in zip(self.reference, self.spreads, strict=True)]
        return bool(varies) and all(varies)

    def rounding(self, plan: Plan | None, reference: Sequence[torch.Tensor] | None = None) -> float:
        """Return the error that is no more than this network's own rounding.

        That is a hundred times what the smallest change of the inputs does to the outputs, a millionth at most: a deep
        network without norms amplifies rounding, whoever computes it.
        """
        smallest = torch.finfo(next((t.dtype for t in self.reference), torch.float64)).eps
        nudged = [call.map(lambda t: t * (1 + 2 * smallest) if t.is_floating_point() else t) for call in self.inputs]
        return min(100 * self.error_of(_masked_outputs(self.full, plan, nudged), reference), 1e-6)

    def error_of(self, outputs: Sequence[torch.Tensor], reference: Sequence[torch.Tensor] | None = None) -> float:
        """Return the largest difference from the reference, relative to the spread of each output."""
        reference = self.reference if reference is None else reference
        if len(outputs) != len(reference) or any(a.shape != b.shape for a, b in zip(outputs, reference, strict=True)):
            return math.inf
        errors = [
            float((a.double() - b.double()).abs().max()) / max(spread, _least(b)) if a.numel() else 0.0
            for a, b, spread in zip(outputs, reference, self.spreads, strict=True)
        ]
        return max((error if math.isfinite(error) else math.inf for error in errors), default=0.0)


def _trial(
    model: nn.Module, plan: Plan | None, calls: Sequence[Call], sides: Sides | None, dtype: torch.dtype
) -> _Trial:
    """Draw weights and inputs until every output varies, a few times at most."""
    trials = (_drawn(model, plan, calls, sides, dtype, seed) for seed in SEEDS)
    last = next(trials)
    while not last.alive:
        following = next(trials, None)
        if following is None:
            break
        last = following
    return last


def _drawn(
    model: nn.Module, plan: Plan | None, calls: Sequence[Call], sides: Sides | None, dtype: torch.dtype, seed: int
) -> _Trial:
    full = randomized(model, seed, dtype)
    inputs, others = ([random_call(call, seed, sides, dtype) for call in calls] for seed in (seed, seed + len(SEEDS)))
    with _masked(full, plan):  # without the cut channels, or what is left of them could fall silent behind a ReLU
        settle_statistics(full, inputs, seed)
    reference, other = (_masked_outputs(full, plan, calls) for calls in (inputs, others))
    return _Trial(full, inputs, reference, [_spread(a, b) for a, b in zip(reference, other, strict=True)])


def _spread(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return how much an output varies: within itself and from one input to another, whichever is less."""
    if one.shape != other.shape:  # its size depends on values
        return float(one.std()) if one.numel() > 1 else 0.0
    if one.numel() < 2:
        return float((one - other).abs().sum())
    within, between = float(one.std()), float((one - other).std())
    return min(within, between) if between else within  # inputs of integers are the same both times


def _outputs(model: nn.Module, calls: Iterable[Call]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what the model's own code would draw from
    results = [tensor for call in calls for tensor in tensors_in(model(*call.args, **call.kwargs))]
    numbers = [torch.view_as_real(one) if one.is_complex() else one for one in results]
    return [one for one in numbers if one.is_floating_point()] or [one.double() for one in numbers]


def _masked_outputs(full: nn.Module, plan: Plan | None, calls: Sequence[Call]) -> list[torch.Tensor]:
    with _masked(full, plan) as run:
        outputs = _outputs(full, calls)
        return outputs if run is None or plan is None or not plan.free_outputs else [*map(run.narrowed, outputs)]


def _masked(full: nn.Module, plan: Plan | None) -> AbstractContextManager[Silencer | None]:
    return nullcontext() if plan is None else silenced(full, plan)


def _least(tensor: torch.Tensor) -> float:
    """Return the spread below which an output counts as constant."""
    return max(LEAST_SPREAD * float(tensor.abs().max()), 1e-300) if tensor.numel() else 1e-300


def _mask_error(trial: _Trial, pruned: nn.Module, plan: Plan, tolerance: float) -> float:
    try:
        outputs = _outputs(pruned, trial.inputs)
    except Exception as error:
        raise ProofError(
            f"Mask: the pruned model does not run on random inputs: {type(error).__name__}: {error}. "
            "Leave the layers that it fails in whole (ignore=)."
        ) from error
    error = trial.error_of(outputs)
    if not (error < tolerance or error < trial.rounding(plan)):
        raise ProofError(
            f"Mask: the pruned model differs from the masked original by {error:.1e} of the output's variation "
            f"(allowed {tolerance:.0e}). Leave the layers that it does not treat as separate channels whole (ignore=)."
        )
    return error


def _single_precision(trial: _Trial, pruned: nn.Module, plan: Plan) -> float:
    calls = [call.map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor) for call in trial.inputs]
    reference = _masked_outputs(_in_single(trial.full), plan, calls)
    return trial.error_of(_outputs(_in_single(pruned), calls), reference)


def _in_single(model: nn.Module) -> nn.Module:
    """Bring a model in float64 to float32, with tensors that its code keeps beside its parameters and buffers."""
    for module in model.float().modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                vars(module)[name] = value.float()
    return model


def _permutation_error(trial: _Trial, graph: Graph, groups: Sequence[Group], tolerance: float) -> float:
    generator = np.random.default_rng(0)
    for group in [group for group in groups if not group.leaves]:
        order = generator.permutation(group.size)
        for member in group.members:
            tensor = named_tensor(trial.full, member.tensor)
            _permute(tensor, member.axis, member.indices, order, graph.tensors[member.tensor].conv_groups)
    outputs = _outputs(trial.full, trial.inputs)
    error = trial.error_of(outputs)
    if not (error < tolerance or error < trial.rounding(None, outputs)):
        raise ProofError(
            f"Permutation: exchanging channels within groups changes the original's output by {error:.1e} of its "
            f"variation (allowed {tolerance:.0e}), so they are not interchangeable. Leave these layers whole (ignore=)."
        )
    return error


def _permute(tensor: torch.Tensor, axis: Axis, indices: np.ndarray, order: np.ndarray, conv_groups: int) -> None:
    """Exchange the slices that units own along an axis."""
    target, source = torch.from_numpy(indices.ravel()), torch.from_numpy(indices[order].ravel())
    if axis != "grouped":
        tensor.index_copy_(axis, target, tensor.index_select(axis, source))
        return
    outputs, rows = tensor.shape[:2]
    chosen = torch.arange(rows).repeat(conv_groups, 1)
    chosen[target // rows, target % rows] = source % rows
    table = chosen.repeat_interleave(outputs // conv_groups, dim=0)
    tensor.copy_(tensor.gather(1, table.reshape(outputs, rows, *(1,) * (tensor.ndim - 2)).expand_as(tensor)))
