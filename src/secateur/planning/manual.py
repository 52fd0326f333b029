"""Plans changed by hand: channels named by the user, with all that the graph couples to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Axis, Graph, Group, Member
from secateur.planning.names import names_of
from secateur.planning.outputs import axis_length, output_axis
from secateur.planning.plans import Plan, assemble, fingerprint_of


def plan_from_indices(graph: Graph, removed: Mapping[str, Iterable[int]]) -> Plan:
    """Return the plan that removes these output channels, and what is coupled with them; see `Plan.from_indices`."""
    kept = [np.ones(group.size, dtype=bool) for group in graph.groups]
    for name, indices in removed.items():
        tensor, axis = _output_of(graph, name)
        wanted = _checked(graph, tensor, axis, name, indices)
        _check_free(graph, tensor, axis, name, wanted)
        for number, units in _units(graph, tensor, axis, wanted):
            kept[number][units] = False
    recipe = {"by_hand": {name: sorted({int(index) for index in indices}) for name, indices in removed.items()}}
    return _assembled(graph, kept, recipe)


def plan_without(plan: Plan, graph: Graph, layer: str, indices: Iterable[int]) -> Plan:
    """Return the plan in which these output channels of a layer stay after all; see `Plan.without`."""
    if plan.fingerprint != fingerprint_of(graph):
        raise PlanError("The plan was made for another model than the graph. Trace the model that it was made for.")
    tensor, axis = _output_of(graph, layer)
    wanted = _checked(graph, tensor, axis, layer, indices)
    kept = [kept_units(plan, group) for group in graph.groups]
    for number, units in _units(graph, tensor, axis, wanted):
        kept[number][units] = True
    taken_back = [*plan.recipe.get("taken_back", []), {layer: wanted.tolist()}]
    return _assembled(graph, kept, {**plan.recipe, "taken_back": taken_back})


def _assembled(graph: Graph, kept: list[np.ndarray], recipe: Mapping[str, Any]) -> Plan:
    for group, mask in zip(graph.groups, kept, strict=True):
        if not mask.any():
            raise PlanError(
                f"Nothing would be left of {group.name}: all {group.size} of its units would go. Keep one at least."
            )
    _check_equalities(graph, kept)
    return assemble(graph, [np.flatnonzero(mask) for mask in kept], recipe)


def _check_equalities(graph: Graph, kept: list[np.ndarray]) -> None:
    counts = np.array([mask.sum() for mask in kept], dtype=np.int64)
    broken = np.flatnonzero(graph.equalities.matrix @ counts != graph.equalities.target)
    if not len(broken):
        return
    row = int(broken[0])
    involved = [graph.groups[number] for number in np.flatnonzero(graph.equalities.matrix[row])]
    numbers = ", ".join(f"{group.name} keeps {counts[graph.groups.index(group)]} of {group.size}" for group in involved)
    why = f": {graph.equalities.reasons[row].text}" if row < len(graph.equalities.reasons) else ""
    raise PlanError(f"These numbers of channels do not go together ({numbers}){why}. Remove as many from each.")


def _output_of(graph: Graph, name: str) -> tuple[str, Axis]:
    """Return the tensor that makes the channels of a layer (or that is called so), and its output axis."""
    type_of = {tensor: layer.type for layer in graph.layers for tensor in layer.tensors}
    found = [info for info in graph.tensors.values() if name in info.aliases]
    for layer in graph.layers:
        if name in names_of(layer):
            found = [graph.tensors[tensor] for tensor in layer.tensors]
    found = sorted((info for info in found if info.shape), key=lambda info: -len(info.shape))
    if not found:
        known = [word for layer in graph.layers for word in names_of(layer)] + list(graph.tensors)
        raise PlanError(f"{name!r} is no layer or tensor of the model with channels.{nearest(name, known)}")
    axis = output_axis(found[0], frozenset([type_of.get(found[0].name, "")]))
    assert axis is not None  # only tensors without a shape have none
    return found[0].name, axis


def _checked(graph: Graph, tensor: str, axis: Axis, name: str, indices: Iterable[int]) -> np.ndarray:
    width = axis_length(graph.tensors[tensor], axis)
    wanted = np.unique(np.asarray(list(indices)))
    if wanted.size and wanted.dtype.kind not in "iu":
        raise PlanError(
            f"The channels of {name} are given as {wanted.dtype}. Give whole numbers from 0 to {width - 1}."
        )
    outside = wanted[(wanted < 0) | (wanted >= width)]
    if outside.size:
        raise PlanError(f"{name} has no output channel {outside[0]}. Give numbers from 0 to {width - 1}.")
    return wanted.astype(np.int64)


def _check_free(graph: Graph, tensor: str, axis: Axis, name: str, wanted: np.ndarray) -> None:
    members = (member for group in graph.groups for member in group.members)
    free = [member.indices.reshape(-1) for member in members if (member.tensor, member.axis) == (tensor, axis)]
    held = np.setdiff1d(wanted, np.concatenate([np.empty(0, dtype=np.int64), *free]))
    if not held.size:
        return
    reasons = [
        protected.reason
        for protected in graph.protected
        if (protected.tensor, protected.axis) == (tensor, axis) and np.isin(held[0], protected.indices)
    ]
    why = (
        f": {reasons[0].text.rstrip('.')}" + (f" ({reasons[0].source})" if reasons[0].source else "") if reasons else ""
    )
    raise PlanError(f"Output channel {held[0]} of {name} is protected{why}. Leave it out.")


def _units(graph: Graph, tensor: str, axis: Axis, wanted: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return, for each group along the axis, which of its units own one of the wanted indices."""
    return [
        (number, _owning(member, wanted))
        for number, group in enumerate(graph.groups)
        for member in group.members
        if (member.tensor, member.axis) == (tensor, axis)
    ]


def _owning(member: Member, wanted: np.ndarray) -> np.ndarray:
    inside = np.asarray(np.isin(member.indices, wanted))
    return np.asarray(inside.any(axis=1))


def kept_units(plan: Plan, group: Group) -> np.ndarray:
    """Return of every unit of a group whether a plan keeps it."""
    for member in group.members:
        # The grouped axis is numbered anew where whole groups go; every group has a member along an ordinary one.
        kept = plan.keep.get(member.tensor, {}).get(member.axis) if member.axis != "grouped" else None
        if kept is not None:
            return np.asarray(np.isin(member.indices[:, 0], np.asarray(kept)))
    return np.ones(group.size, dtype=bool)
