"""The layers of a graph by the names that a user types: full names, prefixes, patterns, types."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Graph, Layer
from secateur.planning.outputs import Kinds


def layers_matching(graph: Graph, kinds: Kinds, word: str) -> frozenset[str]:
    """Return the layers that `word` names: a layer, a module that holds layers, a pattern with `*`, or a type.

    Raises:
        PlanError: no layer matches; offers the nearest names.
    """
    found = frozenset(layer.name for layer in graph.layers if closeness(layer, kinds, word))
    if not found:
        raise PlanError(f"No layer with parameters is called {word!r}, nor of that type.{nearest(word, _known(graph))}")
    return found


def layers_called(graph: Graph, word: str) -> frozenset[str]:
    """Return the layer of exactly this name, any alias of it.

    Raises:
        PlanError: there is none; offers the nearest names.
    """
    found = frozenset(layer.name for layer in graph.layers if word in names_of(layer))
    if not found:
        known = (name for layer in graph.layers for name in names_of(layer))
        raise PlanError(f"No layer with parameters is called {word!r}.{nearest(word, known)}")
    return found


def layers_containing(graph: Graph, part: str) -> frozenset[str]:
    """Return the layers whose name contains `part`.

    Raises:
        PlanError: there is none; offers the nearest names.
    """
    found = frozenset(layer.name for layer in graph.layers if any(part in name for name in names_of(layer)))
    if not found:
        known = (piece for layer in graph.layers for name in names_of(layer) for piece in (name, *name.split(".")))
        raise PlanError(f"No layer has {part!r} in its name.{nearest(part, known)}")
    return found


def layers_like(graph: Graph, pattern: str) -> frozenset[str]:
    """Return the layers whose name matches a regular expression from its beginning.

    Raises:
        PlanError: there is none; offers the nearest names.
    """
    found = frozenset(layer.name for layer in graph.layers if any(re.match(pattern, name) for name in names_of(layer)))
    if not found:
        known = (name for layer in graph.layers for name in names_of(layer))
        raise PlanError(f"No layer's name matches the expression {pattern!r}.{nearest(pattern, known)}")
    return found


def layers_of_type(graph: Graph, kinds: Kinds, word: str) -> frozenset[str]:
    """Return the layers of a type, subclasses included; none for a torch.nn type that the model does not use.

    Raises:
        PlanError: neither the model nor torch.nn has such a type; offers the nearest names.
    """
    found = frozenset(layer.name for layer in graph.layers if word in kinds_or_type(kinds, layer))
    if not found and not _is_torch_type(word):
        raise PlanError(f"No layer is of type {word!r}.{nearest(word, (layer.type for layer in graph.layers))}")
    return found


def names_of(layer: Layer) -> tuple[str, ...]:
    """Return every name of a layer, the first one first."""
    return tuple(dict.fromkeys((layer.name, *layer.aliases)))


def kinds_or_type(kinds: Kinds, layer: Layer) -> frozenset[str]:
    """Return the class names that a layer answers to."""
    return kinds.get(layer.name, frozenset([layer.type]))


def closeness(layer: Layer, kinds: Kinds, word: str) -> tuple[int, int] | None:
    """Return how closely a word names a layer, the larger the closer; None: not at all.

    Its own name is closest, then the names of modules that hold it and patterns, the more letters the closer, then the
    name of its class, then those of the classes that this derives from.
    """
    names = names_of(layer)
    if word in names:
        return 3, 0
    if any(name.startswith(f"{word}.") or fnmatchcase(name, word) for name in names):
        return 2, len(re.sub(r"\[[^]]*\]|[*?]", "", word))
    if word in kinds_or_type(kinds, layer):
        return 1, int(word == layer.type)
    return None


def _is_torch_type(word: str) -> bool:
    found = getattr(nn, word, None)
    return isinstance(found, type) and issubclass(found, nn.Module)


def _known(graph: Graph) -> Iterable[str]:
    for layer in graph.layers:
        yield layer.type
        for name in names_of(layer):
            pieces = name.split(".")
            yield from (".".join(pieces[: depth + 1]) for depth in range(len(pieces)))


def layers_at_fault(graph: Graph, tensors: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the layers that write the channels of some tensors, without those that are `known` already."""
    wanted, seen = set(tensors), set(known)
    found = [
        group.members[0].layer
        for group in graph.groups
        if not wanted.isdisjoint(member.tensor for member in group.members)
    ]
    return [layer for layer in dict.fromkeys(found) if layer and layer not in seen]
