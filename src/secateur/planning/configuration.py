"""A configuration list in the form of NNI 2.x or 3.0, from Python, YAML or JSON, read into a list of dicts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from secateur.errors import PlanError

Configuration = Sequence[Mapping[str, Any]] | str | os.PathLike[str]


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
            f"{where} is {shortened(found)}, and a list of dicts is wanted. "
            "Write it like [{'sparsity': 0.8, 'op_types': ['Conv2d']}]."
        )
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, Mapping):
            raise PlanError(
                f"{where}, entry {number}, is {shortened(entry)}, and a dict is wanted. Write field: value pairs."
            )
    return [dict(entry) for entry in found]


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


def shortened(value: Any) -> str:
    """Return a value for a message, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
