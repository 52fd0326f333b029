"""Which members of a group make its channels: the rows of weights, biases and norms at the layers' output axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from secateur.graph.groups import Axis, Graph, Member, TensorInfo

Kinds = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Outputs:
    """The makers of every group of a graph, in the order of its groups.

    A maker is a member at the output axis of its layer (a convolution's weight and bias, a norm's weight); a producer
    is a maker with filters: a weight of two or more dimensions.
    """

    makers: tuple[tuple[Member, ...], ...]
    producers: tuple[tuple[Member, ...], ...]
    layer_of: Mapping[str, str]  # tensor -> the layer that owns it

    @cached_property
    def layers_with_filters(self) -> frozenset[str]:
        """The layers that make channels by weights of two or more dimensions; a norm only passes them on."""
        return frozenset(self.layer_of[member.tensor] for members in self.producers for member in members)

    def making_layers(self, group: int) -> tuple[str, ...]:
        """Return the layers that make the channels of the group with this number."""
        return tuple(dict.fromkeys(self.layer_of[member.tensor] for member in self.makers[group]))


def outputs_of(graph: Graph, kinds: Kinds | None = None) -> Outputs:
    """Find the makers of every group; `kinds` (from `kinds_of`) lets subclasses count as what they derive from."""
    kinds = kinds or {layer.name: frozenset([layer.type]) for layer in graph.layers}
    layer_of = {name: name.rpartition(".")[0] for name in graph.tensors}
    for layer in reversed(graph.layers):
        layer_of.update(dict.fromkeys(layer.tensors, layer.name))
    axes = {name: output_axis(info, kinds.get(layer_of[name], frozenset())) for name, info in graph.tensors.items()}
    makers = tuple(tuple(m for m in group.members if axes[m.tensor] == m.axis) for group in graph.groups)
    return Outputs(makers, tuple(_with_filters(graph, members) for members in makers), layer_of)


def kinds_of(graph: Graph, model: nn.Module) -> Kinds:
    """Return, for each layer, the names of its class and of what that derives from."""
    modules = dict(model.named_modules(remove_duplicate=False))
    return {
        layer.name: frozenset([layer.type, *(base.__name__ for base in type(modules[layer.name]).__mro__)])
        for layer in graph.layers
        if layer.name in modules
    }


def output_axis(info: TensorInfo, kinds: frozenset[str]) -> Axis | None:
    """Return the axis along which a tensor's layer makes its channels, or None for a tensor without axes."""
    if not info.shape:
        return None
    transposed = any("ConvTranspose" in kind or kind.startswith("Embedding") for kind in kinds)
    if len(info.shape) < 2 or not transposed:
        return 0
    return "grouped" if info.conv_groups > 1 else 1


def axis_length(info: TensorInfo, axis: Axis) -> int:
    """Return how many indices there are along an axis, `"grouped"` included."""
    return info.conv_groups * info.shape[1] if axis == "grouped" else info.shape[axis]


def producing_axes(outputs: Outputs) -> dict[tuple[str, Axis], dict[int, int]]:
    """Return, for each output axis of a weight, the groups along it, each with its number of indices a unit."""
    found: dict[tuple[str, Axis], dict[int, int]] = {}
    for number, members in enumerate(outputs.producers):
        for member in members:
            along = found.setdefault((member.tensor, member.axis), {})
            along[number] = along.get(number, 0) + member.indices.shape[1]
    return found


def floors(graph: Graph, outputs: Outputs, min_channels: int) -> np.ndarray:
    """Return how many units each group must keep, so that no layer falls under `min_channels` channels.

    A layer whose channels are split over several groups shares its floor among them by size; every group keeps one
    unit at least, and none is asked for more than it has.
    """
    sizes = np.array([group.size for group in graph.groups], dtype=np.int64)
    lowest = np.zeros(len(sizes), dtype=np.int64)
    for (tensor, axis), along in producing_axes(outputs).items():
        width = axis_length(graph.tensors[tensor], axis)
        numbers = list(along)
        lowest[numbers] = np.maximum(lowest[numbers], -(-min_channels * sizes[numbers] // width))
    lowest[lowest == 0] = min_channels
    return np.clip(lowest, 1, sizes)


def elements_per_unit(graph: Graph, outputs: Outputs) -> np.ndarray:
    """Return how many elements a unit of each group has in the filters that make it."""
    elements = np.zeros(len(graph.groups))
    for number, members in enumerate(outputs.producers):
        for member in members:
            info = graph.tensors[member.tensor]
            elements[number] += np.prod(info.shape) / axis_length(info, member.axis) * member.indices.shape[1]
    return elements


def _with_filters(graph: Graph, members: tuple[Member, ...]) -> tuple[Member, ...]:
    return tuple(member for member in members if len(graph.tensors[member.tensor].shape) >= 2)
