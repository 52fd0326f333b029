"""Which rule belongs to which operation of torch; `graph/rules` fills the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

Rule = Callable[..., None]
RULES: dict[Any, Rule | None] = {}
TAGGED: dict[torch.Tag, Rule] = {}
SHORTCUTS: dict[Any, Callable[..., Any]] = {}
FUNCTIONS: dict[Any, Callable[..., Any]] = {}  # functions of torch whose own code hides where its sizes come from


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operations, named as in `torch.ops.aten`: every overload, or `name.overload`.

    A rule is called as `rule(run, out, *args, **kwargs)` with the operation's own arguments.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            for overload in overloads(name):
                RULES[overload] = function
        return function

    return register


def tagged(tag: torch.Tag) -> Callable[[Rule], Rule]:
    """Register a rule for every operation with a tag that has no rule of its own."""

    def register(function: Rule) -> Rule:
        TAGGED[tag] = function
        return function

    return register


def rule_for(func: Any) -> Rule | None:
    """Return the rule of an operation, by name or by tag."""
    found = RULES.get(func)
    if found is None and func not in RULES:
        found = next((rule for tag, rule in TAGGED.items() if tag in func.tags), None)
        RULES[func] = found
    return found


def overloads(name: str) -> Iterator[Any]:
    """Return the ATen overloads with a name; none if this version of torch has no such operation."""
    base, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, base, None)
    if packet is not None:
        for each in [overload] if overload else packet.overloads():
            yield getattr(packet, each)
