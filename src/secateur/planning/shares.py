"""Shares of channels that go: one for all, or by layer, pattern and type; in: what users write, out: one a group."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from torch import nn

from secateur.errors import PlanError
from secateur.graph.groups import Graph
from secateur.planning.budgets import read_ratio
from secateur.planning.names import closeness, layers_matching, layers_of_type
from secateur.planning.outputs import Kinds, Outputs

Share = float | Mapping[str | nn.Module | type[nn.Module], float]
REST = "*"  # the word for all layers that no other word names

_log = logging.getLogger("secateur")


def words_of(model: nn.Module, named: Iterable[Any], argument: str) -> list[str]:
    """Return names, patterns, types and modules of a model as words.

    Raises:
        PlanError: something else, or a module of another model.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> words_of(model, [model[0], nn.Conv2d, "1"], "ignore")
        ['0', 'Conv2d', '1']
    """
    if isinstance(named, str | nn.Module | type):
        named = (named,)
    if not isinstance(named, Iterable):
        raise PlanError(f"{argument}={named!r} is no list. Give names, patterns, types or modules of the model.")
    name_of = {id(module): name for name, module in model.named_modules()}
    found = []
    for one in named:
        word = name_of.get(id(one)) if isinstance(one, nn.Module) else one
        word = word.__name__ if isinstance(word, type) and issubclass(word, nn.Module) else word
        if not isinstance(word, str) or not word:
            what = type(one).__name__ if isinstance(one, nn.Module) else repr(one)
            raise PlanError(
                f"{argument} has {what}, which is no part of the model. Give names, patterns, types or its modules."
            )
        found.append(word)
    return found


def read_shares(model: nn.Module, value: Any, argument: str, all_allowed: bool = False) -> dict[str, float]:
    """Return what was written for `ratio` or `max_ratio` as shares by word; a single one is for the rest.

    Raises:
        PlanError: it is neither a share nor shares by layer (there 0 is one, too; 1 is one only if it is allowed).
    """
    if not isinstance(value, Mapping):
        return {REST: 1.0 if all_allowed and _is_number(value) and value == 1 else read_ratio(value, argument)}
    if not value:
        raise PlanError(f'{argument} is an empty dict. Give shares by layer, such as {argument}={{"features.*": 0.5}}.')
    shares = dict(zip(words_of(model, value, argument), value.values(), strict=True))
    for word, share in shares.items():
        if not _is_number(share) or not (0 <= share < 1 or (all_allowed and share == 1)):
            raise PlanError(
                f"{argument} gives {word!r} {share!r}, which is no share of the channels to remove. "
                "Give a number of at least 0 and below 1."
            )
    return {word: float(share) for word, share in shares.items()}


def shares_of(graph: Graph, outputs: Outputs, kinds: Kinds, shares: Mapping[str, float], argument: str) -> np.ndarray:
    """Return the share that was asked of every group, NaN where none was.

    The word that names a layer most closely counts (see `closeness`; of equals the last). A word speaks of layers with
    filters only, unless it names nothing else: `"features.*"` does not speak of norms, `"BatchNorm2d"` does. A group
    takes the smallest of what the layers that make its channels ask for, and what is asked for the rest where they
    ask for nothing.

    Raises:
        PlanError: a word names nothing; offers the nearest names.
    """
    asked = _asked(graph, outputs, kinds, {word: share for word, share in shares.items() if word != REST})
    found = np.full(len(graph.groups), shares.get(REST, np.nan))
    for number, group in enumerate(graph.groups):
        asking = {layer: asked[layer] for layer in outputs.making_layers(number) if layer in asked}
        if asking:
            deciding = min(asking, key=asking.__getitem__)
            found[number] = asking[deciding]
            others = [f"{layer} {share:g}" for layer, share in asking.items() if share > asking[deciding]]
            if others:
                _log.warning(
                    "Coupled layers of %s ask for different shares (%s): %s decides, with %g.",
                    group.name,
                    f"{argument}: {', '.join(others)}",
                    deciding,
                    asking[deciding],
                )
    return found


def _asked(graph: Graph, outputs: Outputs, kinds: Kinds, shares: Mapping[str, float]) -> dict[str, float]:
    """Return the share that each layer asks for."""
    closest: dict[str, tuple[int, int]] = {}
    asked: dict[str, float] = {}
    for word, share in shares.items():
        named = _named(graph, kinds, word)
        with_filters = named & outputs.layers_with_filters
        for layer in graph.layers:
            close = closeness(layer, kinds, word)
            if close and layer.name in (with_filters or named) and close >= closest.get(layer.name, (0, 0)):
                closest[layer.name], asked[layer.name] = close, share
    return asked


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _named(graph: Graph, kinds: Kinds, word: str) -> frozenset[str]:
    """Return the layers that a word names; none for a type of torch that the model does not use."""
    is_type = isinstance(getattr(nn, word, None), type)
    return layers_of_type(graph, kinds, word) if is_type else layers_matching(graph, kinds, word)
