"""What ties the numbers of kept channels: conditions between groups, and integers in attributes that are rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from secateur.graph.coupling import Coupling
from secateur.graph.groups import Graph, Group, Reason
from secateur.graph.provenance import Attribute, attributes_in


@dataclass(frozen=True)
class Condition:
    """Numbers of kept channels that must come out equal; `sides` name layers, or "part of" a layer."""

    reason: Reason
    sides: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Rewrite:
    """An integer of the user's code that follows the number of channels."""

    attribute: str
    source: str


def conditions_of(graph: Graph, number: int) -> tuple[Condition, ...]:
    """Return the conditions on the group with a number, one for each place in the code."""
    equalities = graph.equalities
    by_reason: dict[Reason, list[int]] = {}
    for at in np.flatnonzero(equalities.matrix[:, number]).tolist():
        by_reason.setdefault(equalities.reasons[at], []).append(at)
    return tuple(_condition(graph, number, reason, rows) for reason, rows in by_reason.items())


def _condition(graph: Graph, number: int, reason: Reason, rows: Sequence[int]) -> Condition:
    matrix, target = graph.equalities.matrix, graph.equalities.target
    if _is_pair(matrix[rows[0]], int(target[rows[0]])):
        alike = [at for at, other in enumerate(graph.equalities.reasons) if other == reason]
        pairs = [np.flatnonzero(matrix[at]).tolist() for at in alike if _is_pair(matrix[at], int(target[at]))]
        counts = Counter(_layer(graph.groups[one]) for one in sorted(_tied(number, pairs)))
        names = [f"each of {count} groups of {name}" if count > 1 else name for name, count in counts.items()]
        return Condition(reason, tuple((name,) for name in names))
    signs = [int(np.sign(matrix[at, number])) for at in rows]
    own = _side(graph, matrix[rows[0]], int(target[rows[0]]), signs[0])
    others = [_side(graph, matrix[at], int(target[at]), -sign) for at, sign in zip(rows, signs, strict=True)]
    return Condition(reason, (own, *dict.fromkeys(others)))


def _is_pair(row: np.ndarray, target: int) -> bool:
    used = row[row != 0]
    return target == 0 and len(used) == 2 and used.sum() == 0


def _tied(number: int, pairs: Sequence[Sequence[int]]) -> set[int]:
    """Return the groups that a chain of pairs ties to one."""
    tied, size = {number}, 0
    while len(tied) > size:
        size = len(tied)
        for pair in pairs:
            if not tied.isdisjoint(pair):
                tied |= set(pair)
    return tied


def _side(graph: Graph, row: np.ndarray, target: int, sign: int) -> tuple[str, ...]:
    """Name the layers on one side of an equation, each once."""
    every = Counter(_layer(group) for group in graph.groups)
    used: list[int] = np.flatnonzero(row * sign > 0).tolist()
    here = Counter(_layer(graph.groups[number]) for number in used)
    names = [name if here[name] == every[name] else f"part of {name}" for name in here]
    fixed = abs(target) if target * sign < 0 else 0
    return tuple([*names, f"{fixed} that stay"] if fixed else names)


def _layer(group: Group) -> str:
    return group.members[0].layer or group.members[0].tensor


def rewrites_of(coupling: Coupling, model: nn.Module, number: int) -> tuple[Rewrite, ...]:
    """Return the integers in attributes of the user's own modules that follow the number of a group's channels."""
    found: dict[str, Rewrite] = {}
    for use in coupling.uses:
        attributes = [one for one in attributes_in(use.expression) if not _is_torchs(model, one)]
        if attributes and (coupling.families(use.extent.labels) == number).any():
            for name in _names(attributes):
                found.setdefault(name, Rewrite(name, use.reason.source))
    return tuple(found.values())


def _names(attributes: Iterable[Attribute]) -> list[str]:
    return [str(attribute) for attribute in attributes]


def _is_torchs(model: nn.Module, attribute: Attribute) -> bool:
    return type(model.get_submodule(attribute.module)).__module__.startswith("torch.")
