"""The tensors of a checkpoint that somebody else wrote, by name; nothing in the file is executed."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from secateur.errors import ArtifactError

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the weights, best first


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a `.safetensors` file, or from one that `torch.save` wrote.

    It may lie one level deep, as in `{"state_dict": ..., "epoch": 3}`. Names are returned as the file has them.

    Raises:
        ArtifactError: there is no such file, it is damaged, it holds no tensors by name, or it is a pickle with code.
    """
    place = Path(path)
    _check_file(place)
    read = _read_safetensors if place.suffix == ".safetensors" else _read_pickle
    tensors = _state_dict(read(place))
    if not tensors:
        raise ArtifactError(
            f"{path} holds no tensors by name. Save the weights alone: torch.save(model.state_dict(), path)."
        )
    return tensors


def _check_file(place: Path) -> None:
    try:
        with place.open("rb"):
            pass
    except IsADirectoryError:
        raise ArtifactError(f"{place} is a directory. Give the path of the checkpoint file in it.") from None
    except FileNotFoundError:
        raise ArtifactError(f"There is no file {place}. Check the path.") from None
    except OSError as error:
        raise ArtifactError(f"{place} cannot be read: {error.strerror}. Check its permissions.") from None


def _read_safetensors(place: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(place)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(place, error) from error


def _read_pickle(place: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # A pickle protocol other than torch's own is no concern of the user's: the file either reads or is refused.
            warnings.simplefilter("ignore")
            return torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail in every way there is, KeyError and EOFError included
        refused = isinstance(error, pickle.UnpicklingError) and _refused(place, str(error))
        raise refused or _damaged(place, error) from error


def _refused(place: Path, why: str) -> ArtifactError | None:
    wanted = re.search(r"GLOBAL (\S+)", why)
    with place.open("rb") as file:
        if wanted is None and file.read(1) != pickle.PROTO:
            return None
    asks = f"that asks for {wanted[1]}" if wanted else "that torch.save did not write"
    return ArtifactError(
        f"{place} was not opened: it is a pickle {asks}, and unpickling can run any code. "
        "Save the weights alone: torch.save(model.state_dict(), path)."
    )


def _damaged(place: Path, error: Exception) -> ArtifactError:
    why = str(error).split("\n", 1)[0].split(". ", 1)[0].rstrip(".") or type(error).__name__
    return ArtifactError(
        f"{place} is damaged, or no checkpoint ({why}). Download or save it again; "
        "a state dict saved by torch.save or as .safetensors is wanted."
    )


def _state_dict(content: Any) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping):
        return {}
    inner = {key: found for key, value in content.items() if isinstance(value, Mapping) and (found := _tensors(value))}
    for key in WRAPPERS:
        if key in inner:
            return inner[key]
    return next(iter(inner.values())) if len(inner) == 1 else _tensors(content)


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
