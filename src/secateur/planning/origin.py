"""What the groups of a model that was cut before were in the full-size model, so that shares stay shares of that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.errors import PlanError
from secateur.graph.groups import Axis, Graph, Group
from secateur.planning.composition import remaining_groups
from secateur.planning.manual import kept_units
from secateur.planning.outputs import axis_length, elements_per_unit, outputs_of
from secateur.planning.plans import Plan, fingerprint_of


def origin_of(full: Graph, plan: Plan, graph: Graph) -> Origin:
    """Return where the model of `graph` comes from, checked.

    Raises:
        PlanError: the plan was made for another full-size model, or makes another one of it; names a tensor.
    """
    for what, known, wanted in (
        ("was made for another full-size model", plan.fingerprint, fingerprint_of(full)),
        ("makes another model", {name: plan.shape_after(name) for name in plan.fingerprint}, fingerprint_of(graph)),
    ):
        differing = next((name for name in [*wanted, *known] if known.get(name) != wanted.get(name)), None)
        if differing is not None:
            raise PlanError(
                f"The plan in after= {what}: {differing} has shape {wanted.get(differing)} in the graph, and the plan "
                f"says {known.get(differing)}. Give the graph of the full-size model and the plan of all cuts so far."
            )
    return Origin(full, plan)


@dataclass(frozen=True, eq=False)
class Origin:
    """A full-size model and the plan that made the present one of it."""

    graph: Graph  # of the full-size model
    plan: Plan

    def sizes(self, graph: Graph) -> np.ndarray:
        """Return how many units of the full-size model each group of the present one stands for, the cut ones included.

        NaN where the full-size model had no units to cut: (groups,) float64.
        """
        alive = np.array([kept_units(self.plan, group).sum() for group in self.graph.groups])
        sizes = np.array([group.size for group in self.graph.groups])
        return np.array([units.sum() for units in self._spread(graph, sizes / np.maximum(alive, 1))])

    def elements(self, graph: Graph) -> np.ndarray:
        """Return how many elements a unit of each group of the present model had in the filters that made it."""
        elements = elements_per_unit(self.graph, outputs_of(self.graph))
        return np.array([np.nan_to_num(units).mean() for units in self._spread(graph, elements)])

    def _spread(self, graph: Graph, values: np.ndarray) -> list[np.ndarray]:
        """Return a value for each unit of each group of the present model: that of its group in the full-size one."""
        owners = self._owners()
        with_nothing = np.append(values.astype(np.float64), np.nan)
        return [with_nothing[self._owner_of_units(group, owners)] for group in graph.groups]

    def _owners(self) -> dict[tuple[str, Axis], np.ndarray]:
        """Return, along each axis of the full-size model, the group that owns each index; -1 for none."""
        owners: dict[tuple[str, Axis], np.ndarray] = {}
        for number, group in enumerate(self.graph.groups):
            for member in group.members:
                width = axis_length(self.graph.tensors[member.tensor], member.axis)
                along = owners.setdefault((member.tensor, member.axis), np.full(width, -1))
                along[member.indices] = number
        return owners

    def _owner_of_units(self, group: Group, owners: dict[tuple[str, Axis], np.ndarray]) -> np.ndarray:
        member = group.members[0]
        along = owners.get((member.tensor, member.axis))
        if along is None:
            return np.full(group.size, -1)
        return along[self.kept(member.tensor, member.axis)[member.indices[:, 0]]]

    def kept(self, tensor: str, axis: Axis) -> np.ndarray:
        """Return the indices of the full-size model along an axis that are left, in the order of the present one."""
        info, axes = self.graph.tensors[tensor], self.plan.keep.get(tensor, {})
        if axis not in axes:
            return np.arange(axis_length(info, axis))
        if axis != "grouped":
            return np.asarray(axes[axis])
        each = info.shape[0] // info.conv_groups
        rows = np.asarray(axes[axis])
        groups = remaining_groups(axes.get(0, range(info.shape[0])), each, len(rows))  # type: ignore[arg-type]
        return (groups[:, None] * info.shape[1] + rows).reshape(-1)
