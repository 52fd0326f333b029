"""Importance of the units of a group: one function a criterion, joined to the table `CRITERIA` by a decorator."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Axis, Graph, Group, Member
from secateur.planning.names import names_of
from secateur.planning.origin import Origin
from secateur.planning.outputs import Outputs, axis_length


@dataclass(frozen=True)
class Evidence:
    """What a criterion sees of one group."""

    graph: Graph
    group: Group
    makers: tuple[Member, ...]  # rows of the weights, biases and norms that make the channels
    producers: tuple[Member, ...]  # those of weights with filters; never empty
    tensors: Mapping[str, torch.Tensor]
    argument: str = ""  # what follows the colon in "lp:3"
    seed: int = 0

    def filters(self) -> Iterator[torch.Tensor]:
        """Yield, for each producer, its elements unit by unit: float64, (units, elements)."""
        return (self.rows(member) for member in self.producers)

    def rows(self, member: Member) -> torch.Tensor:
        """Return the elements of a member, unit by unit: float64, (units, elements)."""
        tensor = self.tensors[member.tensor].detach()
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        indices = torch.from_numpy(np.ascontiguousarray(member.indices)).to(tensor.device)
        groups = self.graph.tensors[member.tensor].conv_groups
        along = _along(tensor, member.axis, groups).index_select(0, indices.reshape(-1))
        return along.reshape(len(indices), -1).to(torch.float64)


Criterion = Callable[[Evidence], torch.Tensor]

CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Join a function to the table of criteria: it gives one number a unit, the larger the more important."""

    def join(function: Criterion) -> Criterion:
        CRITERIA[name] = function
        return function

    return join


@criterion("l1")
def l1(evidence: Evidence) -> torch.Tensor:
    """Return the mean L1 norm of a unit's filters (Li et al., 2017, arXiv 1608.08710)."""
    return _mean(rows.abs().sum(dim=1) for rows in evidence.filters())


@criterion("l2")
def l2(evidence: Evidence) -> torch.Tensor:
    """Return the mean L2 norm of a unit's filters."""
    return _mean(torch.linalg.vector_norm(rows, dim=1) for rows in evidence.filters())


@criterion("lp")
def lp(evidence: Evidence) -> torch.Tensor:
    """Return the mean p-norm of a unit's filters; written `"lp:3"`."""
    power = _power(evidence.argument)
    return _mean(torch.linalg.vector_norm(rows, ord=power, dim=1) for rows in evidence.filters())


@criterion("random")
def random(evidence: Evidence) -> torch.Tensor:
    """Return random numbers, the same for the same seed and group: the baseline that a criterion has to beat."""
    generator = np.random.default_rng([evidence.seed, zlib.crc32(evidence.group.name.encode())])
    return torch.from_numpy(generator.random(evidence.group.size))


@criterion("uniform")
def uniform(evidence: Evidence) -> torch.Tensor:
    """Return the same for every unit: to try out widths, where it does not matter which channels go."""
    return torch.ones(evidence.group.size, dtype=torch.float64)


WITHOUT_DATA = frozenset({"random", "uniform"})  # criteria that look at no weight


def check_criterion(name: str) -> tuple[str, str]:
    """Return a criterion's name and argument, `("lp", "3")` for `"lp:3"`.

    Raises:
        PlanError: there is no such criterion (offers the nearest), or its argument makes no sense.

    Example:
        >>> check_criterion("lp:3")
        ('lp', '3')
    """
    if not isinstance(name, str):
        raise PlanError(f'criterion={name!r} is no name. Give one of the criteria, such as criterion="l1".')
    base, _, argument = name.partition(":")
    if base not in CRITERIA:
        raise PlanError(f"There is no criterion {name!r}.{nearest(base, CRITERIA)}")
    if base == "lp":
        _power(argument)
    elif argument:
        raise PlanError(f'The criterion {base!r} takes nothing after a colon. Write criterion="{base}".')
    return base, argument


def importances(
    graph: Graph,
    outputs: Outputs,
    tensors: Mapping[str, torch.Tensor],
    name: str = "l1",
    scores: Mapping[str, Any] | None = None,
    seed: int = 0,
    origin: Origin | None = None,
) -> list[np.ndarray]:
    """Return the importance of every unit, an array per group of the graph.

    Groups for whose layers `scores` are given (one number per output channel, by layer or tensor) take the mean of
    these; all others take the criterion. Importances compare within a group; `normalised` makes groups comparable.
    Where the model was cut before, scores are those of the full-size model's channels.

    Raises:
        PlanError: an unknown criterion or layer, scores of the wrong length, or importances that are not finite.
    """
    base, argument = check_criterion(name)
    given = _checked_scores(graph, outputs, scores or {}, origin)
    found = []
    for group, makers, producers in zip(graph.groups, outputs.makers, outputs.producers, strict=True):
        importance = _from_scores(makers, given)
        if importance is None:
            # A group that no weight makes is judged by all that belongs to it.
            seen = Evidence(graph, group, makers, producers or group.members, tensors, argument, seed)
            importance = _measured(CRITERIA[base], seen, name)
        found.append(importance)
    return found


def normalised(importance: np.ndarray) -> np.ndarray:
    """Return importances divided by their mean absolute value, so that groups of any scale compare."""
    scale = float(np.abs(importance).mean())
    return importance / scale if scale > 0 else importance


def _mean(norms: Iterator[torch.Tensor]) -> torch.Tensor:
    found = list(norms)
    return torch.stack([norm.cpu() for norm in found]).mean(dim=0)


def _power(argument: str) -> float:
    try:
        power = float(argument)
    except ValueError:
        power = math.nan
    if not 0 < power < math.inf:
        raise PlanError(f'The criterion "lp:{argument}" needs a power above 0. Write, for instance, criterion="lp:3".')
    return power


def _along(tensor: torch.Tensor, axis: Axis, groups: int) -> torch.Tensor:
    """Return the tensor with an axis first."""
    if axis != "grouped":
        return tensor.movedim(axis, 0)
    # (O, I/groups, *k) -> (groups, O/groups, I/groups, *k) -> (groups * I/groups, O/groups, *k)
    split = tensor.reshape(groups, -1, *tensor.shape[1:]).transpose(1, 2)
    return split.reshape(-1, *split.shape[2:])


def _measured(function: Criterion, evidence: Evidence, name: str) -> np.ndarray:
    if name not in WITHOUT_DATA and any(evidence.tensors[member.tensor].is_meta for member in evidence.producers):
        raise PlanError(
            f"{evidence.producers[0].tensor} has no data (it is on the meta device), so {name!r} cannot rank its "
            'channels. Load weights, pass scores, or use criterion="random" or "uniform".'
        )
    importance = function(evidence).detach().cpu().to(torch.float64).numpy()
    if not np.isfinite(importance).all():
        where = ", ".join(dict.fromkeys(member.tensor for member in evidence.producers))
        raise PlanError(
            f"The importance of channels of {evidence.group.name} is not finite, because {where} holds NaN or infinite "
            "values. Repair the weights, or leave the layer alone with ignore."
        )
    return importance


def _from_scores(makers: tuple[Member, ...], given: Mapping[str, np.ndarray]) -> np.ndarray | None:
    found = [given[member.tensor][member.indices].mean(axis=1) for member in makers if member.tensor in given]
    return np.mean(found, axis=0) if found else None


def _checked_scores(
    graph: Graph, outputs: Outputs, scores: Mapping[str, Any], origin: Origin | None
) -> dict[str, np.ndarray]:
    """Return the scores by tensor, checked; those of layers whose output is protected anyway are not needed."""
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
