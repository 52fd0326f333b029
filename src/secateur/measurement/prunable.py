"""How much of a model may be cut: what each group of coupled channels carries, and what stays, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.graph.costs import Costs
from secateur.graph.groups import Graph, Protected


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


def group_shares(graph: Graph) -> tuple[GroupShare, ...]:
    """Return what each group carries, groups that only their index tells apart gathered in one line."""
    gathered: dict[tuple[tuple[str, ...], int, bool], list[int]] = {}
    for number, group in enumerate(graph.groups):
        gathered.setdefault((group.layers, group.size, group.statistics), []).append(number)
    return tuple(_share(graph, numbers) for numbers in gathered.values())


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


def _share(graph: Graph, numbers: list[int]) -> GroupShare:
    first = graph.groups[numbers[0]]
    params, macs = _removed(graph.costs, numbers)
    return GroupShare(first.name, len(numbers), first.size, first.layers, params, macs, first.statistics)


def _removed(costs: Costs, numbers: list[int]) -> tuple[int, int]:
    without = costs.full.copy()
    without[numbers] = 0
    touched = set(np.flatnonzero(costs.per_unit[:, numbers].sum(axis=1)).tolist())
    terms = tuple(term for term in costs.terms if touched.intersection(term.extents))
    local = Costs(costs.fixed, costs.per_unit, terms, costs.full)
    return round(local.params() - local.params(without)), round(local.macs() - local.macs(without))
