"""Importance of the units of every group, by a criterion of the table or by scores of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from secateur.calibration.calibrating import Calibration
from secateur.errors import PlanError, nearest
from secateur.graph.groups import Axis, Graph, Member
from secateur.planning.criteria.data import fisher, obs
from secateur.planning.criteria.evidence import CRITERIA, REDUCTIONS, Criterion, Evidence
from secateur.planning.criteria.weights import power_of
from secateur.planning.names import names_of
from secateur.planning.origin import Origin
from secateur.planning.outputs import Outputs, axis_length

WITHOUT_WEIGHTS = frozenset({"random", "uniform"})  # criteria that look at no weight
LOSSES = frozenset({obs.__name__, fisher.__name__})  # those whose numbers are losses, on one scale for all groups
NORMALIZERS: Mapping[str, Callable[[np.ndarray], float]] = {
    "mean": lambda values: float(np.abs(values).mean()),
    "sum": lambda values: float(np.abs(values).sum()),
    "max": lambda values: float(np.abs(values).max()),
    "deviation": lambda values: float(values.std()),
    "none": lambda _: 1.0,
}


def check_criterion(name: str | Criterion) -> tuple[str, str]:
    """Return a criterion's name and argument, `("lp", "3")` for `"lp:3"`; a function's own name.

    Raises:
        PlanError: there is no such criterion (offers the nearest), or its argument makes no sense.

    Example:
        >>> check_criterion("lp:3")
        ('lp', '3')
    """
    if callable(name):
        return getattr(name, "__qualname__", type(name).__name__), ""
    if not isinstance(name, str):
        raise PlanError(
            f'criterion={name!r} is no name and no function. Give one of the criteria, such as criterion="l1", or a '
            "function of what is known of a group."
        )
    base, _, argument = name.partition(":")
    if base not in CRITERIA:
        raise PlanError(f"There is no criterion {name!r}.{nearest(base, CRITERIA)}")
    if base == "lp":
        power_of(argument)
    elif argument:
        raise PlanError(f'The criterion {base!r} takes nothing after a colon. Write criterion="{base}".')
    return base, argument


def importances(  # noqa: PLR0913
    graph: Graph,
    outputs: Outputs,
    tensors: Mapping[str, torch.Tensor],
    name: str | Criterion = "l1",
    scores: Mapping[str, Any] | None = None,
    seed: int = 0,
    origin: Origin | None = None,
    calibration: Calibration | None = None,
    reduction: str = "mean",
    failures: dict[int, PlanError] | None = None,
) -> list[np.ndarray]:
    """Return the importance of every unit, an array per group of the graph.

    Groups for whose layers `scores` are given (one number per output channel, by layer or tensor) take the mean of
    these; all others take the criterion. Importances compare within a group; `normalised` makes groups comparable.
    Where the model was cut before, scores are those of the full-size model's channels. With `failures`, errors of
    single groups go into it, by number, and these groups get ones: for groups that nobody wants to cut.

    Raises:
        PlanError: an unknown criterion or layer, scores of the wrong length, or importances that are not finite.
    """
    base, argument = check_criterion(name)
    if reduction not in REDUCTIONS:
        raise PlanError(f"There is no reduction {reduction!r}.{nearest(str(reduction), REDUCTIONS)}")
    function = name if callable(name) else CRITERIA[base]
    given = _checked_scores(graph, outputs, scores or {}, origin)
    found = []
    lots = zip(graph.groups, outputs.makers, outputs.producers, strict=True)
    for number, (group, makers, producers) in enumerate(lots):
        importance = _from_scores(makers, given)
        if importance is None:
            # A group that no weight makes is judged by all that belongs to it.
            seen = Evidence(
                graph, group, makers, producers or group.members, tensors, argument, seed, calibration, reduction
            )
            try:
                importance = _measured(function, seen, base)
            except PlanError as error:
                if failures is None:
                    raise
                failures[number], importance = error, np.ones(group.size)
        found.append(importance)
    return found


def normalised(importance: np.ndarray, normalizer: str = "mean") -> np.ndarray:
    """Return importances divided by their mean absolute value, or another scale, so that groups compare.

    Raises:
        PlanError: there is no such normalizer.
    """
    if normalizer not in NORMALIZERS:
        raise PlanError(f"There is no normalizer {normalizer!r}.{nearest(str(normalizer), NORMALIZERS)}")
    scale = NORMALIZERS[normalizer](importance)
    return importance / scale if scale > 0 else importance


def _measured(function: Criterion, evidence: Evidence, name: str) -> np.ndarray:
    if name not in WITHOUT_WEIGHTS and any(evidence.tensors[member.tensor].is_meta for member in evidence.producers):
        raise PlanError(
            f"{evidence.producers[0].tensor} has no data (it is on the meta device), so {name!r} cannot rank its "
            'channels. Load weights, pass scores, or use criterion="random" or "uniform".'
        )
    given = function(evidence)
    try:
        found = given if isinstance(given, torch.Tensor) else torch.as_tensor(given, device="cpu")
        importance = found.detach().cpu().to(torch.float64).numpy()
    except (TypeError, ValueError, RuntimeError):
        raise PlanError(
            f"The criterion {name} gives {given!r} for {evidence.group.name}. Return one number a unit, "
            f"{evidence.group.size} of them."
        ) from None
    if importance.shape != (evidence.group.size,):
        raise PlanError(
            f"The criterion {name} gives {importance.shape} for {evidence.group.name}. Return one number a unit, "
            f"{evidence.group.size} of them."
        )
    if not np.isfinite(importance).all():
        tensors = {member.tensor: evidence.tensors[member.tensor] for member in evidence.producers}
        broken = [tensor for tensor, values in tensors.items() if not bool(torch.isfinite(values).all())]
        why = f", because {', '.join(broken)} holds NaN or infinite values" if broken else f" by the criterion {name}"
        remedy = "Repair the weights" if broken else "Take another criterion"
        raise PlanError(
            f"The importance of channels of {evidence.group.name} is not finite{why}. {remedy}, or leave the layer "
            "alone with ignore."
        )
    return importance


def _from_scores(makers: tuple[Member, ...], given: Mapping[str, np.ndarray]) -> np.ndarray | None:
    found = [given[member.tensor][member.indices].mean(axis=1) for member in makers if member.tensor in given]
    return np.mean(found, axis=0) if found else None


def _checked_scores(
    graph: Graph, outputs: Outputs, scores: Mapping[str, Any], origin: Origin | None
) -> dict[str, np.ndarray]:
    """Return the scores by tensor, checked; those of layers whose output is protected anyway are not needed."""
    if not isinstance(scores, Mapping):
        raise PlanError(f"scores is a {type(scores).__name__}. Give a dict of one list of numbers for each layer.")
    axes: dict[str, Axis] = {member.tensor: member.axis for makers in outputs.makers for member in makers}
    found: dict[str, np.ndarray] = {}
    for name, values in scores.items():
        tensors = [tensor for tensor in _tensors_called(graph, name) if tensor in axes]
        if tensors:
            tensor = max(tensors, key=lambda tensor: len(graph.tensors[tensor].shape))
            whole = (graph if origin is None else origin.graph).tensors[tensor]
            checked = _checked_values(name, values, axis_length(whole, axes[tensor]))
            found[tensor] = checked if origin is None else checked[origin.kept(tensor, axes[tensor])]
    return found


def _tensors_called(graph: Graph, name: str) -> tuple[str, ...]:
    for layer in graph.layers:
        if name in names_of(layer):
            return layer.tensors
    found = tuple(info.name for info in graph.tensors.values() if name in info.aliases)
    if not found:
        known = [word for layer in graph.layers for word in names_of(layer)] + list(graph.tensors)
        raise PlanError(f"scores has {name!r}, which is no layer or tensor of the model.{nearest(name, known)}")
    return found


def _checked_values(name: str, values: Any, width: int) -> np.ndarray:
    try:
        array = torch.as_tensor(values).detach().cpu().to(torch.float64).numpy()
    except (TypeError, ValueError, RuntimeError):
        raise PlanError(
            f"The scores of {name} are no numbers. Give one number per output channel, {width} of them."
        ) from None
    if array.shape != (width,):
        raise PlanError(
            f"The scores of {name} have shape {array.shape}, and it has {width} output channels. "
            "Give one number per output channel."
        )
    if not np.isfinite(array).all():
        raise PlanError(f"The scores of {name} are not all finite. Replace NaN and infinite values.")
    return array
