"""Which groups may be cut, and how much: from keyword arguments, or from a configuration list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secateur.errors import PlanError
from secateur.graph.groups import Graph
from secateur.planning.configuration import Rule
from secateur.planning.names import layers_called, layers_containing, layers_matching, layers_of_type
from secateur.planning.outputs import Kinds, Outputs


@dataclass(frozen=True)
class Total:
    """A share of the weights of some groups together, which their units compete for."""

    share: float
    groups: np.ndarray  # (groups,) bool


@dataclass(frozen=True)
class Scope:
    """For every group: whether it may be cut, and what was asked of it."""

    cuttable: np.ndarray  # (groups,) bool
    excluded: np.ndarray  # (groups,) bool: somebody asked for it to be left alone
    ratios: np.ndarray  # (groups,) share to remove; NaN where none was asked for
    max_ratios: np.ndarray  # (groups,) share that may be removed at most
    totals: tuple[Total, ...] = ()

    @property
    def has_budget(self) -> bool:
        """Whether the scope says by itself how much is to go."""
        return bool(self.totals) or bool((self.ratios > 0).any())


def scope_of(
    graph: Graph,
    outputs: Outputs,
    kinds: Kinds,
    rules: Sequence[Rule] = (),
    ignore: Iterable[str] = (),
) -> Scope:
    """Return what may be cut: every group, or those that the `rules` select, without what `ignore` names.

    A group is selected when a selected layer makes its channels, and left alone when one of the layers that make
    them is excluded or ignored. Of several rules for a layer the last one counts; where the layers of a group were
    given different sparsities, the group takes the smallest.

    Raises:
        PlanError: a name matches nothing, or the rules select nothing that can be cut.
    """
    ignored = frozenset[str]().union(*(layers_matching(graph, kinds, word) for word in ignore))
    scope = _scope_of_rules(graph, outputs, kinds, rules) if rules else _everything(len(graph.groups))
    left_alone = scope.excluded | _made_by(outputs, ignored)
    return replace(scope, cuttable=scope.cuttable & ~left_alone, excluded=left_alone)


def _everything(groups: int) -> Scope:
    return Scope(
        cuttable=np.ones(groups, dtype=bool),
        excluded=np.zeros(groups, dtype=bool),
        ratios=np.full(groups, np.nan),
        max_ratios=np.ones(groups),
    )


def _made_by(outputs: Outputs, layers: frozenset[str]) -> np.ndarray:
    found = [not layers.isdisjoint(outputs.making_layers(number)) for number in range(len(outputs.makers))]
    return np.array(found, dtype=bool)


def _scope_of_rules(graph: Graph, outputs: Outputs, kinds: Kinds, rules: Sequence[Rule]) -> Scope:
    rule_of = _last_rules(graph, kinds, rules)
    scope = _everything(len(graph.groups))
    totals: dict[str, np.ndarray] = {}
    for number in range(len(graph.groups)):
        found = [rule_of[layer] for layer in outputs.making_layers(number) if layer in rule_of]
        chosen = [rule for rule in found if not rule.exclude]
        scope.excluded[number] = len(chosen) < len(found)
        # Rules that only exclude leave everything else in the scope.
        scope.cuttable[number] = bool(chosen) or all(rule.exclude for rule in rules)
        shares = [rule.sparsity for rule in chosen if rule.sparsity is not None]
        scope.ratios[number] = min(shares, default=np.nan)
        scope.max_ratios[number] = min(
            (rule.max_sparsity for rule in chosen if rule.max_sparsity is not None), default=1.0
        )
        if not shares and chosen and chosen[0].total is not None:
            totals.setdefault(chosen[0].place, np.zeros(len(graph.groups), dtype=bool))[number] = True
    share_of = {rule.place: rule.total for rule in rules if rule.total is not None}
    _check_selection(scope, rules)
    return replace(
        scope, totals=tuple(Total(share_of[place], groups & ~scope.excluded) for place, groups in totals.items())
    )


def _check_selection(scope: Scope, rules: Sequence[Rule]) -> None:
    if not (scope.cuttable & ~scope.excluded).any():
        wanted = sorted({word for rule in rules for word in (rule.types or ()) + (rule.names or ())})
        raise PlanError(
            f"The configuration selects nothing that can be cut ({', '.join(wanted[:6]) or 'no layer left'}). "
            "See what can be with secateur.trace(model, example).groups."
        )


def _last_rules(graph: Graph, kinds: Kinds, rules: Sequence[Rule]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for rule in rules:
        found.update(dict.fromkeys(_layers_of_rule(graph, kinds, rule), rule))
    return found


def _layers_of_rule(graph: Graph, kinds: Kinds, rule: Rule) -> frozenset[str]:
    layers = frozenset(layer.name for layer in graph.layers)
    if rule.types is not None:
        layers &= frozenset[str]().union(*(layers_of_type(graph, kinds, word) for word in rule.types))
    if rule.names is not None or rule.partial_names is not None:
        named = [layers_called(graph, word) for word in rule.names or ()]
        named += [layers_containing(graph, part) for part in rule.partial_names or ()]
        layers &= frozenset[str]().union(*named)
    return layers
