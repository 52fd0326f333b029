"""Which groups may be cut, and how much: from keyword arguments, or from a configuration list."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from secateur.errors import PlanError
from secateur.graph.groups import Graph
from secateur.planning.names import layers_called, layers_containing, layers_like, layers_matching, layers_of_type
from secateur.planning.outputs import Kinds, Outputs
from secateur.planning.rules import Rule


@dataclass(frozen=True)
class Total:
    """A share of the weights, or of the units, of some groups together, which their units compete for."""

    share: float
    of: Literal["weights", "units"]
    groups: np.ndarray  # (groups,) bool


@dataclass(frozen=True)
class Scope:
    """For every group: whether it may be cut, and what was asked of it."""

    cuttable: np.ndarray  # (groups,) bool
    excluded: np.ndarray  # (groups,) bool: somebody asked for it to be left alone
    ratios: np.ndarray  # (groups,) share to remove; NaN where none was asked for
    max_ratios: np.ndarray  # (groups,) share that may be removed at most
    min_ratios: np.ndarray  # (groups,) share that a total must take from each
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
    ignored = _union(layers_matching(graph, kinds, word) for word in ignore)
    scope = _scope_of_rules(graph, outputs, kinds, rules) if rules else _everything(len(graph.groups))
    left_alone = scope.excluded | _made_by(outputs, ignored)
    totals = tuple(replace(total, groups=total.groups & ~left_alone) for total in scope.totals)
    return replace(scope, cuttable=scope.cuttable & ~left_alone, excluded=left_alone, totals=totals)


def _everything(groups: int) -> Scope:
    return Scope(
        cuttable=np.ones(groups, dtype=bool),
        excluded=np.zeros(groups, dtype=bool),
        ratios=np.full(groups, np.nan),
        max_ratios=np.ones(groups),
        min_ratios=np.zeros(groups),
    )


def _made_by(outputs: Outputs, layers: frozenset[str]) -> np.ndarray:
    found = [not layers.isdisjoint(outputs.making_layers(number)) for number in range(len(outputs.makers))]
    return np.array(found, dtype=bool)


def _scope_of_rules(graph: Graph, outputs: Outputs, kinds: Kinds, rules: Sequence[Rule]) -> Scope:
    rule_of = _last_rules(graph, outputs, kinds, rules)
    scope = _everything(len(graph.groups))
    totals: dict[Hashable, Total] = {}
    for number in range(len(graph.groups)):
        found = [rule_of[layer] for layer in outputs.making_layers(number) if layer in rule_of]
        chosen = [rule for rule in found if not rule.exclude]
        scope.excluded[number] = len(chosen) < len(found)
        # Rules that only exclude leave everything else in the scope.
        scope.cuttable[number] = bool(chosen) or all(rule.exclude for rule in rules)
        alone = [rule.sparsity for rule in chosen if rule.sparsity is not None and rule.pool is None]
        scope.ratios[number] = min(alone, default=np.nan)
        most = (rule.max_sparsity for rule in chosen if rule.max_sparsity is not None)
        scope.max_ratios[number] = min(most, default=1.0)
        scope.min_ratios[number] = min((rule.min_sparsity or 0.0 for rule in chosen), default=0.0)
        if chosen and not alone and not scope.excluded[number]:
            _join_total(totals, chosen[0], number, len(graph.groups))
    _check_selection(scope, rules)
    return replace(scope, totals=tuple(totals.values()))


def _join_total(totals: dict[Hashable, Total], rule: Rule, number: int, groups: int) -> None:
    """Add a group to the total that a rule asks for, if it asks for one."""
    share, of = (rule.sparsity, "units") if rule.pool is not None else (rule.total, "weights")
    if share is not None:
        key = (of, rule.place if rule.pool is None else rule.pool)
        totals.setdefault(key, Total(share, of, np.zeros(groups, dtype=bool))).groups[number] = True


def _check_selection(scope: Scope, rules: Sequence[Rule]) -> None:
    if not (scope.cuttable & ~scope.excluded).any():
        wanted = sorted({word for rule in rules for word in (rule.types or ()) + (rule.names or ())})
        raise PlanError(
            f"The configuration selects nothing that can be cut ({', '.join(wanted[:6]) or 'no layer left'}). "
            "See what can be with secateur.trace(model, example).groups."
        )


def _last_rules(graph: Graph, outputs: Outputs, kinds: Kinds, rules: Sequence[Rule]) -> dict[str, Rule]:
    """Return the rule of each layer; what a rule leaves out of its own selection is left alone if no other selects it.

    A norm that is left out so does not keep the channels that it passes on.
    """
    found: dict[str, Rule] = {}
    left_out: dict[str, Rule] = {}
    for rule in rules:
        selected = _layers_of_rule(graph, kinds, rule)
        without = selected & _left_out(graph, kinds, rule)
        found.update(dict.fromkeys(selected - without, rule))
        left_out.update(dict.fromkeys(without & outputs.layers_with_filters, replace(rule, exclude=True)))
    return {**left_out, **found}


def _layers_of_rule(graph: Graph, kinds: Kinds, rule: Rule) -> frozenset[str]:
    layers = frozenset(layer.name for layer in graph.layers)
    if rule.types is not None:
        layers &= _union(layers_of_type(graph, kinds, word) for word in rule.types)
    if (rule.names, rule.partial_names, rule.patterns) != (None, None, None):
        named = [layers_called(graph, word) for word in rule.names or ()]
        named += [layers_containing(graph, part) for part in rule.partial_names or ()]
        layers &= _union([*named, *(layers_like(graph, pattern) for pattern in rule.patterns or ())])
    return layers


def _left_out(graph: Graph, kinds: Kinds, rule: Rule) -> frozenset[str]:
    found = [layers_of_type(graph, kinds, word) for word in rule.without_types]
    found += [layers_called(graph, word) for word in rule.without_names]
    return _union([*found, *(layers_like(graph, pattern) for pattern in rule.without_patterns)])


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)
