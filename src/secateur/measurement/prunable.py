"""How much of a model may be cut: what each group of coupled channels carries, and what stays, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from secateur.graph.costs import Costs
from secateur.graph.groups import Axis, Graph, Member, Protected


@dataclass(frozen=True)
class GroupShare:
    """Groups of the same layers and size: how many, and the parameters and MACs that would go with all of them."""

    name: str
    groups: int
    size: int
    layers: tuple[str, ...]
    params: int
    macs: int
    statistics: bool


@dataclass(frozen=True)
class ProtectedLayer:
    """Channels of one layer that stay for one reason."""

    layer: str
    channels: int
    reason: str
    op: str
    source: str


@dataclass(frozen=True)
class Coverage:
    """The shares of parameters and MACs that would go if every group were left with a single unit."""

    params: float
    macs: float


@dataclass(frozen=True)
class HeldShare:
    """The shares of parameters and MACs that stay for one reason, however much is cut."""

    reason: str
    source: str
    layers: tuple[str, ...]
    params: float
    macs: float


NEVER_RUN = "never run by this input"


def group_shares(graph: Graph) -> tuple[GroupShare, ...]:
    """Return what each group carries, groups that only their index tells apart gathered in one line."""
    return tuple(group_share(graph, numbers) for numbers in gathered_groups(graph))


def gathered_groups(graph: Graph) -> list[list[int]]:
    """Return the numbers of the groups, those that only their index tells apart together."""
    gathered: dict[tuple[tuple[str, ...], int, bool], list[int]] = {}
    for number, group in enumerate(graph.groups):
        gathered.setdefault((group.layers, group.size, group.statistics), []).append(number)
    return list(gathered.values())


def group_share(graph: Graph, numbers: Sequence[int]) -> GroupShare:
    """Return what groups of one size carry together, under the name of the first."""
    first = graph.groups[numbers[0]]
    params, macs = _removed(graph.costs, numbers)
    return GroupShare(first.name, len(numbers), first.size, first.layers, params, macs, first.statistics)


def coverage(graph: Graph) -> Coverage:
    """Return the shares of parameters and MACs that may be cut at all."""
    costs = graph.costs
    smallest = np.ones(len(graph.groups), dtype=np.int64)
    return Coverage(
        1 - costs.params(smallest) / max(costs.params(), 1.0),
        1 - costs.macs(smallest) / max(costs.macs(), 1.0),
    )


def protected_layers(graph: Graph) -> tuple[ProtectedLayer, ...]:
    """Return what stays, one entry a layer and reason, in the order in which the graph found them."""
    gathered: dict[tuple[str, str, str], list[Protected]] = {}
    for entry in graph.protected:
        layer = entry.tensor.rpartition(".")[0]
        gathered.setdefault((layer, entry.reason.text, entry.reason.source), []).append(entry)
    return tuple(
        ProtectedLayer(layer, max(entry.indices.size for entry in entries), text, entries[0].reason.op, source)
        for (layer, text, source), entries in gathered.items()
    )


def held_shares(graph: Graph) -> tuple[HeldShare, ...]:
    """Return what each reason holds if every group is left with a single unit, the most first.

    A weight that stays for several reasons counts for each of them, so the shares may add up to more than the whole.
    """
    sizes = _sizes_left(graph)
    weighs = {name: prod(left.values()) for name, left in sizes.items()}
    macs = _macs_left(graph, {name: weight for name, weight in weighs.items() if len(sizes[name]) > 1})
    held: dict[tuple[str, str], dict[str, float]] = {}
    for (reason, source, tensor), share in _shares_held(graph, sizes).items():
        held.setdefault((reason, source), {})[tensor] = share
    for layer in graph.unreached:
        own = {name: 1.0 for name in sizes if name.rpartition(".")[0] == layer}
        held.setdefault((NEVER_RUN, ""), {}).update(own)
    found = [
        HeldShare(
            *key,
            tuple(dict.fromkeys(tensor.rpartition(".")[0] for tensor in shares)),
            sum(share * weighs[tensor] for tensor, share in shares.items()) / max(graph.costs.params(), 1.0),
            sum(share * macs.get(tensor, 0.0) for tensor, share in shares.items()) / max(graph.costs.macs(), 1.0),
        )
        for key, shares in held.items()
    ]
    return tuple(sorted(found, key=lambda share: -max(share.params, share.macs)))


def _macs_left(graph: Graph, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the MACs left with one unit a group, each layer's dealt out to its weights by their size."""
    layers: dict[str, float] = {}
    for cost in graph.costs.by_layer(np.ones(len(graph.groups), dtype=np.int64)):
        layers[cost.layer] = layers.get(cost.layer, 0.0) + cost.macs
    totals: dict[str, float] = {}
    for name, weight in weights.items():
        layer = name.rpartition(".")[0]
        totals[layer] = totals.get(layer, 0.0) + weight
    return {
        name: layers.get(layer, 0.0) * weight / totals[layer]
        for name, weight in weights.items()
        if totals[layer := name.rpartition(".")[0]]
    }


def _sizes_left(graph: Graph) -> dict[str, dict[Axis, float]]:
    """Return what is left of each size of the parameters when every group is left with a single unit."""
    parameters = {name: info for name, info in graph.tensors.items() if not info.is_buffer}
    left: dict[str, dict[Axis, float]] = {
        name: dict(enumerate(map(float, info.shape))) for name, info in parameters.items()
    }
    for group in graph.groups:
        for member in group.members:
            if member.tensor in left:
                axis, each = _axis(graph, member)
                left[member.tensor][axis] -= member.indices.shape[1] * (group.size - 1) / each
    return left


def _axis(graph: Graph, held: Member | Protected) -> tuple[Axis, int]:
    """Return the axis of the tensor itself, and how many of a grouped convolution's inputs share an index there."""
    return (1, graph.tensors[held.tensor].conv_groups) if held.axis == "grouped" else (held.axis, 1)


def _shares_held(graph: Graph, sizes: Mapping[str, Mapping[Axis, float]]) -> dict[tuple[str, str, str], float]:
    """Return the share of what is left of a tensor that goes once nothing stays for a reason: by reason and tensor."""
    freed: dict[tuple[str, str, str], float] = {}
    for entry in graph.protected:
        if entry.tensor in sizes:
            axis, each = _axis(graph, entry)
            share = min(1.0, entry.indices.size / each / sizes[entry.tensor][axis])
            key = entry.reason.text, entry.reason.source, entry.tensor
            freed[key] = 1 - (1 - freed.get(key, 0.0)) * (1 - share)
    return freed


def _removed(costs: Costs, numbers: Sequence[int]) -> tuple[int, int]:
    without = costs.full.copy()
    without[list(numbers)] = 0
    touched = set(np.flatnonzero(costs.per_unit[:, list(numbers)].sum(axis=1)).tolist())
    terms = tuple(term for term in costs.terms if touched.intersection(term.extents))
    local = Costs(costs.fixed, costs.per_unit, terms, costs.full)
    return round(local.params() - local.params(without)), round(local.macs() - local.macs(without))
