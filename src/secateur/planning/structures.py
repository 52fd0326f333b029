"""Which groups are built alike: the same kinds of layers take part, along the same axes, equally often."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from secateur.graph.groups import Graph, Group


def structures_of(graph: Graph) -> np.ndarray:
    """Return a number for each group, the same for groups of the same structure.

    Two groups have the same structure if their layers can be paired so that both of a pair are of one type and take
    part with the same tensors, along the same axes, with as many indices a unit; how many units there are does not
    count. These are the isomorphic sub-structures of Fang et al., "Isomorphic Pruning for Vision Models" (ECCV 2024,
    arXiv 2407.04616): importances compare among them, and not from one structure to another.

    Returns:
        (groups,) int64, numbered in the order in which the structures first appear.
    """
    type_of = {tensor: layer.type for layer in graph.layers for tensor in layer.tensors}
    numbers: dict[Hashable, int] = {}
    found = [numbers.setdefault(_structure(group, type_of), len(numbers)) for group in graph.groups]
    return np.array(found, dtype=np.int64)


def _structure(group: Group, type_of: dict[str, str]) -> Hashable:
    parts: dict[str, list[tuple[str, str, int]]] = {}
    for member in group.members:
        tensor = member.tensor.rpartition(".")[2]
        parts.setdefault(member.layer, []).append((tensor, str(member.axis), member.indices.shape[1]))
    first = {member.layer: member.tensor for member in reversed(group.members)}
    return tuple(sorted((type_of.get(first[layer], ""), tuple(sorted(own))) for layer, own in parts.items()))
