"""A configuration list in the form of NNI 2.x, from Python, YAML or JSON, read into checked rules."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from secateur.errors import PlanError, nearest

Configuration = Sequence[Mapping[str, Any]] | str | os.PathLike[str]

FIELDS = (
    "sparsity",
    "sparsity_per_layer",
    "total_sparsity",
    "max_sparsity_per_layer",
    "op_types",
    "op_names",
    "op_partial_names",
    "exclude",
)
# What NNI means by "default": every type of layer whose weights can be pruned.
DEFAULT_TYPES = (
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Linear",
    "Bilinear",
    "PReLU",
    "Embedding",
    "EmbeddingBag",
)


@dataclass(frozen=True)
class Rule:
    """One entry of a configuration: which layers (None: any), and what becomes of them."""

    place: str  # "entry 2", for messages
    types: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    partial_names: tuple[str, ...] | None = None
    exclude: bool = False
    sparsity: float | None = None  # of each group
    total: float | None = None  # of the weights of all the groups together
    max_sparsity: float | None = None


def read_configuration(config: Configuration) -> list[dict[str, Any]]:
    """Return a configuration as a list of dicts; text is YAML or JSON, and so is the file at a path.

    Raises:
        PlanError: the file cannot be read, or holds no list of dicts.

    Example:
        >>> read_configuration("[{'sparsity': 0.8, 'op_types': ['Conv2d']}]")
        [{'sparsity': 0.8, 'op_types': ['Conv2d']}]
    """
    found, where = (config, "The configuration")
    if isinstance(config, str | os.PathLike):
        found, where = _from_text(config)
    if isinstance(found, Mapping):
        raise PlanError(f"{where} is one dict, and a list of dicts is wanted. Put it in brackets: [{{...}}].")
    if not isinstance(found, Sequence) or isinstance(found, str | bytes) or not found:
        raise PlanError(
            f"{where} is {_shown(found)}, and a list of dicts is wanted. "
            "Write it like [{'sparsity': 0.8, 'op_types': ['Conv2d']}]."
        )
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, Mapping):
            raise PlanError(
                f"{where}, entry {number}, is {_shown(entry)}, and a dict is wanted. Write field: value pairs."
            )
    return [dict(entry) for entry in found]


def rules_of(entries: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Check the entries of a configuration and return them as rules, in order.

    Raises:
        PlanError: an unknown field, a value that makes no sense, or fields that contradict each other.
    """
    return tuple(_rule(entry, f"entry {number}") for number, entry in enumerate(entries, 1))


def _from_text(source: str | os.PathLike[str]) -> tuple[Any, str]:
    text, where = str(source), "The configuration"
    if isinstance(source, os.PathLike) or not _looks_like_text(text):
        where = str(source)
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise PlanError(
                f"The configuration file {where} cannot be read: {why}. Pass a YAML or JSON file."
            ) from None
    try:
        return (json.loads(text) if where.endswith(".json") else yaml.safe_load(text)), where
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PlanError(
            f"{where} is broken: {_one_line(error)}. Correct it: a list of entries, each field: value."
        ) from None


def _looks_like_text(text: str) -> bool:
    return "\n" in text or text.lstrip().startswith(("[", "{", "- "))


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} at line {mark.line + 1}" if mark else str(problem)


def _rule(entry: Mapping[str, Any], place: str) -> Rule:
    for name in entry:
        if name not in FIELDS:
            raise PlanError(f"The configuration, {place}, has an unknown field {name!r}.{nearest(str(name), FIELDS)}")
    rule = Rule(
        place,
        types=_types(entry, place),
        names=_words(entry, "op_names", place),
        partial_names=_words(entry, "op_partial_names", place),
        exclude=_flag(entry, place),
        sparsity=_one_of(entry, "sparsity", "sparsity_per_layer", place),
        total=_share(entry, "total_sparsity", place),
        max_sparsity=_share(entry, "max_sparsity_per_layer", place),
    )
    _check_consistent(rule, place)
    return rule


def _check_consistent(rule: Rule, place: str) -> None:
    if rule.exclude and (rule.sparsity is not None or rule.total is not None):
        raise PlanError(f"The configuration, {place}, excludes layers and gives them a sparsity. Keep one of the two.")
    if rule.sparsity is not None and rule.total is not None:
        raise PlanError(
            f"The configuration, {place}, has both sparsity (of each group) and total_sparsity (of all of them). "
            "Keep one of the two."
        )


def _types(entry: Mapping[str, Any], place: str) -> tuple[str, ...] | None:
    words = _words(entry, "op_types", place)
    if words is None or "default" not in words:
        return words
    return tuple(dict.fromkeys((*(word for word in words if word != "default"), *DEFAULT_TYPES)))


def _words(entry: Mapping[str, Any], field: str, place: str) -> tuple[str, ...] | None:
    value = entry.get(field)
    if value is None:
        return None
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not words or not all(isinstance(word, str) and word for word in words):
        raise PlanError(
            f"The configuration, {place}, has {field}: {_shown(value)}, and a list of names is wanted. "
            f"Write it like {field}: [{'Conv2d' if field == 'op_types' else 'features.0'}]."
        )
    return tuple(words)


def _flag(entry: Mapping[str, Any], place: str) -> bool:
    value = entry.get("exclude", False)
    if not isinstance(value, bool):
        raise PlanError(
            f"The configuration, {place}, has exclude: {_shown(value)}. Write exclude: true or leave it out."
        )
    return value


def _one_of(entry: Mapping[str, Any], first: str, second: str, place: str) -> float | None:
    if entry.get(first) is not None and entry.get(second) is not None:
        raise PlanError(
            f"The configuration, {place}, has both {first} and {second}, which are the same. Keep one of them."
        )
    return _share(entry, first, place) if entry.get(first) is not None else _share(entry, second, place)


def _share(entry: Mapping[str, Any], field: str, place: str) -> float | None:
    value = entry.get(field)
    if value is None:
        return None
    top_allowed = field == "max_sparsity_per_layer"
    fine = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (0 <= value < 1 or (top_allowed and value == 1))
    )
    if not fine:
        raise PlanError(
            f"The configuration, {place}, has {field}: {_shown(value)}, which is no share of the channels to remove. "
            f"Give a number of at least 0 and below 1, such as {field}: 0.8."
        )
    return float(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
