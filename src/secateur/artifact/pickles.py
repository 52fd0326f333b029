"""Whole models in pickles, as other tools write them: read only from files that the user vouches for."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from secateur.artifact.format import PICKLES
from secateur.errors import ArtifactError

_log = logging.getLogger("secateur")


def is_pickle(path: str | Path) -> bool:
    """Tell whether a file is a pickle, bare or as torch.save wraps it; False for one that cannot be read."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    return start.startswith(PICKLES) and start[8:9] != b"{"


def read_pickled_model(path: str | Path) -> nn.Module:
    """Unpickle a whole model, which can run any code.

    Raises:
        ArtifactError: the file holds something else, or a class that is not there.
    """
    _log.warning("%s is a pickle, and reading it runs whatever code it names (trust=True).", path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be unpickled ({type(error).__name__}: {error}). The code of the model's class must be "
            "importable, as it was where the file was written."
        ) from error
    if not isinstance(found, nn.Module):
        raise ArtifactError(
            f"{path} holds a {type(found).__name__}, not a whole model. Read weights alone with --weights, or with "
            "model.load_state_dict."
        )
    return found
