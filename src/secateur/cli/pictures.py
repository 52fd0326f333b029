"""Pictures in a folder, as a model on the command line wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import torch

from secateur.artifact.reading import read
from secateur.cli.subject import Subject, is_file
from secateur.graph.calls import calls_of
from secateur.models.pictures import pictures_in, prepared_pictures
from secateur.models.registry import entry_of

MOST_PICTURES = 300
AT_ONCE = 16


def preprocessing_of(model: str, subject: Subject) -> dict[str, Any] | None:
    """Return the mean and the deviation that a model wants: its file's, or else the zoo's; None if nobody knows."""
    found = read(model).preprocessing if is_file(model) else None
    if found is not None:
        return dict(found)
    entry = entry_of(subject.model)
    return None if entry is None else {"mean": list(entry.mean), "std": list(entry.std)}


def samples_of(folder: str, subject: Subject, preprocessing: dict[str, Any] | None) -> list[torch.Tensor]:
    """Return the pictures of a folder as the model wants them, one a batch, to calibrate on.

    Raises:
        click.UsageError: the model takes several inputs, or its pre-processing is not known.
        DataError: there is no such folder, or a picture in it is broken.
    """
    shapes = [tuple(one.shape) for one in calls_of(subject.example)[0].tensors()]
    if len(shapes) != 1:
        raise click.UsageError(
            f"{subject.name} takes {len(shapes)} inputs, and --calibrate reads pictures for one. Use Python for it."
        )
    if preprocessing is None or not {"mean", "std"} <= preprocessing.keys():
        raise click.UsageError(
            f"How {subject.name} wants its pictures is not known. Save it with "
            "preprocessing={'mean': ..., 'std': ...}."
        )
    paths = pictures_in(folder, MOST_PICTURES)
    return list(prepared_pictures(paths, shapes[0], preprocessing["mean"], preprocessing["std"]))


def batches_of(folder: str, subject: Subject, preprocessing: dict[str, Any] | None) -> list[torch.Tensor]:
    """Return the pictures of a folder as the model wants them, in batches.

    Raises:
        click.UsageError: the model takes several inputs, or its pre-processing is not known.
        DataError: there is no such folder, or a picture in it is broken.
    """
    pictures: Sequence[torch.Tensor] = samples_of(folder, subject, preprocessing)
    return [torch.cat(list(pictures[start : start + AT_ONCE])) for start in range(0, len(pictures), AT_ONCE)]
