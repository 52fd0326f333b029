"""The networks that MODELs on the command line stand for, and where each is to run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from secateur.cli.pictures import preprocessing_of
from secateur.cli.subject import find_subject, is_file
from secateur.runtimes.network import FILES, Network


def find_networks(
    models: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    weights: str | None,
    full: str | None,
    seed: int,
) -> list[Network]:
    """Return a network of another name for each MODEL: a built-in name, a saved file, an exported one, or a callable.

    Raises:
        click.UsageError: no such model, no input shape is known for it, or there are weights that no model takes.
        ArtifactError: a file or the user's own code does not give a model.
    """
    if weights is not None and all(Path(model).suffix in FILES or is_file(model) for model in models):
        raise click.UsageError("--weights: saved and exported files have weights of their own. Leave it out.")
    return [
        _network(name, model, shapes, weights, full, seed)
        for name, model in zip(_told_apart(models), models, strict=True)
    ]


def _told_apart(models: Sequence[str]) -> Iterator[str]:
    """Return short names, each once."""
    seen: dict[str, int] = {}
    for model in models:
        name = Path(model).name if Path(model).suffix in (*FILES, ".safetensors") else model
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _network(
    name: str,
    model: str,
    shapes: Sequence[tuple[int, ...]],
    weights: str | None,
    full: str | None,
    seed: int,
) -> Network:
    if Path(model).suffix in FILES:
        return Network.of_file(name, model)
    is_saved = is_file(model)
    subject = find_subject(model, shapes, None if is_saved else weights, seed, full if is_saved else None)
    found = Network.of_model(name, subject.model, subject.example)
    found.preprocessing = preprocessing_of(model, subject)
    return found
