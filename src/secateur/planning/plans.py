"""The plan: what of every tensor stays, as plain data (docs/design.md, section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Attention, Axis, CallShape, Graph, Scale

Indices = Sequence[int]
Kept = (
    Indices | Sequence[Indices]
)  # tuples, whatever was given; the second under "grouped": rows of each remaining group of a convolution


@dataclass(frozen=True, repr=False)
class Plan:
    """What is kept of a model, tensor by tensor; it applies to any model with the same names and shapes.

    A plan knows no coupling: make one with `secateur.plan` or `Plan.from_indices`, change one with `without`.
    """

    keep: Mapping[str, Mapping[Axis, Kept]]  # every parameter and buffer that shrinks, under each of its names
    fingerprint: Mapping[str, tuple[int, ...]]  # names and shapes of the full model
    attributes: Mapping[str, int] = field(default_factory=dict)  # "branch.layer.sizes[1]" -> what it becomes
    scales: Mapping[str, Sequence[Scale]] = field(default_factory=dict)  # tensor -> rows to multiply, under each name
    attention: Attention = "auto"  # how the model was traced: whether channels of every head go, or whole heads
    free_outputs: bool = False  # likewise: whether what leaves the model may have been cut
    calls: tuple[CallShape, ...] = ()  # the example: MACs hold for these shapes
    statistics: tuple[str, ...] = ()  # cut groups that some norm takes its statistics across
    recipe: Mapping[str, Any] = field(default_factory=dict)  # how the plan came about; any JSON
    proof: Any = field(default=None, compare=False, repr=False)  # the figures of `secateur.prune`

    def __post_init__(self) -> None:
        # Tensors that share one list go on sharing it: a small file could ask for any amount of memory otherwise.
        seen: dict[int, tuple[Any, Any]] = {}
        plain = {name: {axis: _plain(kept, seen) for axis, kept in axes.items()} for name, axes in self.keep.items()}
        object.__setattr__(self, "keep", plain)
        object.__setattr__(self, "fingerprint", {name: _plain(shape, seen) for name, shape in self.fingerprint.items()})
        object.__setattr__(self, "attributes", {path: int(value) for path, value in self.attributes.items()})
        object.__setattr__(self, "scales", {name: tuple(scales) for name, scales in self.scales.items()})
        object.__setattr__(self, "calls", tuple(self.calls))
        object.__setattr__(self, "statistics", tuple(self.statistics))
        object.__setattr__(self, "recipe", _as_json(self.recipe))

    def __repr__(self) -> str:
        cut = [name for name, shape in self.fingerprint.items() if self.shape_after(name) != shape]
        return f"Plan(cuts {len(cut)} of {len(self.fingerprint)} tensors, {len(self.attributes)} integers rewritten)"

    @property
    def is_empty(self) -> bool:
        """Whether the plan removes nothing."""
        return all(self.shape_after(name) == self.fingerprint[name] for name in self.keep)

    def shape_after(self, tensor: str) -> tuple[int, ...]:
        """Return the shape that a parameter or buffer has in the pruned model.

        Raises:
            PlanError: the model has no such tensor.

        Example:
            >>> plan = Plan(keep={"fc.weight": {0: (0, 2)}}, fingerprint={"fc.weight": (3, 5)})
            >>> plan.shape_after("fc.weight"), plan.removed("fc.weight", 0)
            ((2, 5), (1,))
        """
        shape = list(self._shape(tensor))
        for axis, kept in self.keep.get(tensor, {}).items():
            if axis == "grouped":
                shape[1] = len(kept[0])  # type: ignore[arg-type]
            else:
                shape[axis] = len(kept)
        return tuple(shape)

    def removed(self, tensor: str, axis: Axis) -> Kept:
        """Return the indices that go along an axis, ascending; for `"grouped"` those of each remaining group.

        Raises:
            PlanError: the model has no such tensor or axis.
        """
        shape = self._shape(tensor)
        if axis != "grouped" and not 0 <= axis < len(shape):
            raise PlanError(f"{tensor} has shape {shape} and no axis {axis}. Give an axis below {len(shape)}.")
        kept = self.keep.get(tensor, {}).get(axis)
        if kept is None:
            return ()
        if axis == "grouped":
            return tuple(_missing(rows, shape[1]) for rows in kept)  # type: ignore[arg-type]
        return _missing(kept, shape[axis])  # type: ignore[arg-type]

    def to_json(self) -> str:
        """Return the plan as JSON: every distinct index list once, its members referring to it by number."""
        from secateur.planning.serialization import plan_to_json

        return plan_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote, and trust nothing in it.

        Raises:
            PlanError: the text is no plan, or contradicts itself; says where.
        """
        from secateur.planning.serialization import plan_from_json

        return plan_from_json(text)

    @classmethod
    def from_indices(cls, graph: Graph, removed: Mapping[str, Iterable[int]]) -> Plan:
        """Return the plan that removes these output channels, and what is coupled with them.

        `removed` maps a layer, or a tensor, to numbers of its output channels.

        Raises:
            PlanError: an unknown name, a channel that is protected (says why) or does not exist, a layer left empty,
                or numbers that the graph's equalities forbid.

        Example:
            >>> import torch
            >>> from secateur.graph.tracing import trace
            >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            >>> plan = Plan.from_indices(trace(model, torch.zeros(1, 3)), {"0": [1, 6]})
            >>> plan.shape_after("0.weight"), plan.shape_after("2.weight")
            ((6, 3), (2, 6))
        """
        from secateur.planning.manual import plan_from_indices

        return plan_from_indices(graph, removed)

    def without(self, graph: Graph, layer: str, indices: Iterable[int]) -> Plan:
        """Return the plan minus some of its cuts: these output channels of a layer stay, and what is coupled with them.

        Channels that the plan keeps anyway may be named too.

        Raises:
            PlanError: the plan was made for another model, the name or a channel does not exist, or the numbers that
                remain break the graph's equalities.

        Example:
            >>> import torch
            >>> from secateur.graph.tracing import trace
            >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            >>> graph = trace(model, torch.zeros(1, 3))
            >>> Plan.from_indices(graph, {"0": [1, 6]}).without(graph, "0", [6]).removed("0.weight", 0)
            (1,)
        """
        from secateur.planning.manual import plan_without

        return plan_without(self, graph, layer, indices)

    def after(self, earlier: Plan) -> Plan:
        """Return the one plan that does what `earlier` and then this one do, bit for bit.

        This plan is for the model that `earlier` leaves, the returned one for the model that `earlier` is for.

        Raises:
            PlanError: this plan is for another model; names the first tensor that differs.

        Example:
            >>> first = Plan(keep={"fc.weight": {0: (0, 2, 3)}}, fingerprint={"fc.weight": (4, 5)})
            >>> then = Plan(keep={"fc.weight": {0: (2, 1)}}, fingerprint={"fc.weight": (3, 5)})
            >>> then.after(first).keep
            {'fc.weight': {0: (3, 2)}}
        """
        from secateur.planning.composition import plan_after

        return plan_after(self, earlier)

    def since(self, earlier: Plan) -> Plan:
        """Return what this plan does beyond `earlier`, for the model that `earlier` leaves: `after` undone.

        Both are plans of the full-size model, as `secateur.prune_steps` hands them out.

        Raises:
            PlanError: this plan keeps something that the earlier one removes.

        Example:
            >>> first = Plan(keep={"fc.weight": {0: (0, 2, 3)}}, fingerprint={"fc.weight": (4, 5)})
            >>> both = Plan(keep={"fc.weight": {0: (3, 2)}}, fingerprint={"fc.weight": (4, 5)})
            >>> both.since(first).keep
            {'fc.weight': {0: (2, 1)}}
        """
        from secateur.planning.composition import plan_since

        return plan_since(self, earlier)

    def original(self, tensor: str, axis: int, index: int) -> int:
        """Return which index of the full-size model an index of the pruned one was.

        Raises:
            PlanError: there is no such tensor, axis or index.

        Example:
            >>> Plan(keep={"fc.weight": {0: (0, 2, 3)}}, fingerprint={"fc.weight": (4, 5)}).original("fc.weight", 0, 1)
            2
        """
        shape = self.shape_after(tensor)
        if not (0 <= axis < len(shape) and 0 <= index < shape[axis]):
            raise PlanError(
                f"The pruned {tensor} has shape {shape}, and so no index {index} along axis {axis}. Give one within it."
            )
        kept: Any = self.keep.get(tensor, {}).get(axis)
        return index if kept is None else int(kept[index])

    def with_proof(self, proof: Any) -> Plan:
        """Return the plan with the figures of its proof; they are no part of its equality or JSON."""
        return replace(self, proof=proof)

    def _shape(self, tensor: str) -> tuple[int, ...]:
        if tensor not in self.fingerprint:
            raise PlanError(f"The plan knows no tensor {tensor!r}.{nearest(tensor, self.fingerprint)}")
        return self.fingerprint[tensor]


def assemble(graph: Graph, kept: Sequence[np.ndarray], recipe: Mapping[str, Any]) -> Plan:
    """Return the plan that keeps these units, an ascending array of unit numbers for each group of the graph.

    Raises:
        PlanError: the numbers break the graph's equalities, or an integer of the model has no value for them.
    """
    realized = graph.realize(kept)
    return Plan(
        keep=realized.keep,
        fingerprint=fingerprint_of(graph),
        attributes=realized.attributes,
        scales=realized.scales,
        attention=graph.attention,
        free_outputs=graph.free_outputs,
        calls=graph.calls,
        statistics=tuple(
            group.name
            for group, units in zip(graph.groups, kept, strict=True)
            if group.statistics and len(units) < group.size
        ),
        recipe=recipe,
    )


def fingerprint_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a graph's model, by every name of every parameter and buffer."""
    return {name: tuple(info.shape) for info in graph.tensors.values() for name in info.aliases}


def _plain(values: Sequence[Any], seen: dict[int, tuple[Any, Any]]) -> Any:
    """Return a list of integers, or of such lists, as tuples of Python's own ints; the same tuple for the same list.

    What was `seen` is held beside its tuple, so that no other object can take its id.
    """
    if values is None or len(values) == 0:
        return ()
    if id(values) not in seen:
        if isinstance(values[0], int):
            plain = tuple(map(int, values))
        else:
            plain = tuple(_plain(value, seen) if hasattr(value, "__len__") else int(value) for value in values)
        seen[id(values)] = values, plain
    return seen[id(values)][1]


def _missing(kept: Indices, size: int) -> Indices:
    inside = set(kept)
    return tuple(index for index in range(size) if index not in inside)


def _as_json(value: Any) -> Any:
    """Return a value as `json.loads(json.dumps(value))` would, so that plans equal what is read back."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value
