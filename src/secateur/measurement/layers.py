"""A pruned model beside its original, layer by layer: channels, parameters, MACs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from secateur.graph.costs import Costs
from secateur.graph.groups import Graph

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_WIDE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, nn.Linear)


@dataclass(frozen=True)
class Change:
    """A count before and after."""

    before: int
    after: int

    @property
    def share(self) -> float:
        """What is left, between 0 and 1."""
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True)
class LayerChange:
    """A convolution or linear layer before and after: output channels, parameters, MACs."""

    name: str
    type: str
    channels: Change
    params: Change
    macs: Change


@dataclass(frozen=True)
class ModelChange:
    """A model before and after: its layers in the order in which they run, and everything summed."""

    layers: tuple[LayerChange, ...]
    params: Change
    macs: Change


def compare_layers(model: nn.Module, small: nn.Module, graph: Graph, small_graph: Graph) -> ModelChange:
    """Set a pruned model beside its original; both graphs are of the same example.

    Layers other than convolutions and linear ones have no line of their own, but count in the sums.
    """
    modules, small_modules = dict(model.named_modules()), dict(small.named_modules())
    before, after = _by_layer(graph.costs), _by_layer(small_graph.costs)
    rows = []
    for layer in graph.layers:
        module = modules[layer.name]
        if not isinstance(module, _WIDE):
            continue
        (params, macs), (small_params, small_macs) = before.get(layer.name, (0, 0)), after.get(layer.name, (0, 0))
        channels = Change(output_channels(module), output_channels(small_modules[layer.name]))
        row = LayerChange(layer.name, layer.type, channels, Change(params, small_params), Change(macs, small_macs))
        rows.append(row)
    costs, small_costs = graph.costs, small_graph.costs
    return ModelChange(
        tuple(rows),
        Change(round(costs.params()), round(small_costs.params())),
        Change(round(costs.macs()), round(small_costs.macs())),
    )


def output_channels(module: nn.Module) -> int:
    """Return how many channels a convolution or linear layer puts out, by the shape of its weight."""
    weight = module.get_parameter("weight")
    if isinstance(module, _TRANSPOSED):
        return weight.shape[1] * module.groups
    return weight.shape[0]


def _by_layer(costs: Costs) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for cost in costs.by_layer():
        params, macs = found.get(cost.layer, (0, 0))
        found[cost.layer] = (params + round(cost.params), macs + round(cost.macs))
    return found
