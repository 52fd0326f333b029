"""Parameters and MACs by branch, in two countings: convolutions and linear layers alone, or everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from secateur.graph.costs import LayerCost
from secateur.graph.groups import Graph

WEIGHTED = ("conv", "linear")


@dataclass(frozen=True)
class BranchCost:
    """What a branch costs: by its convolutions and linear layers with their biases, and in all."""

    name: str
    params: int
    macs: int
    all_params: int
    all_macs: int


def branch_costs(graph: Graph, branches: Mapping[str, Sequence[str]]) -> tuple[BranchCost, ...]:
    """Return the cost of each branch, a branch being the modules whose names begin with one of its prefixes.

    A layer belongs to the branch with the longest prefix that fits; what fits none is gathered under "other".

    Example:
        >>> branch_costs(graph, {"lr": ["backbone", "lr_branch"], "hr": ["hr_branch"]})[0].params  # doctest: +SKIP
        6158000
    """
    branch_by_layer = {layer.name: branch_of(layer.aliases or (layer.name,), branches) for layer in graph.layers}
    costs = graph.costs.by_layer()
    names = [*branches, *({"other"} & set(branch_by_layer.values()))]
    return tuple(_sum(name, [cost for cost in costs if branch_by_layer.get(cost.layer) == name]) for name in names)


def total_cost(branches: Sequence[BranchCost]) -> BranchCost:
    """Return the sum of all branches, as a branch named "total"."""
    return BranchCost(
        "total",
        sum(branch.params for branch in branches),
        sum(branch.macs for branch in branches),
        sum(branch.all_params for branch in branches),
        sum(branch.all_macs for branch in branches),
    )


def top_level_branches(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the branches of a model that declares none: its children, the model's own tensors under "other"."""
    return {name: (name,) for name, child in model.named_children() if any(True for _ in child.parameters())}


def branch_of(names: Sequence[str], branches: Mapping[str, Sequence[str]], other: str = "other") -> str:
    """Return the branch with the longest prefix that fits one of a layer's names."""
    fits = [
        (len(prefix), branch)
        for branch, prefixes in branches.items()
        for prefix in prefixes
        if any(name == prefix or name.startswith(f"{prefix}.") for name in names)
    ]
    return max(fits, key=lambda fit: fit[0])[1] if fits else other


def _sum(name: str, costs: Sequence[LayerCost]) -> BranchCost:
    weighted = [cost for cost in costs if cost.op in WEIGHTED]
    return BranchCost(
        name,
        round(sum(cost.params for cost in weighted)),
        round(sum(cost.macs for cost in weighted)),
        round(sum(cost.params for cost in costs)),
        round(sum(cost.macs for cost in costs)),
    )
