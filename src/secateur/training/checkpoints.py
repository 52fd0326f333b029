"""All that training needs to go on where it was: one safe file, there whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.artifact.atomic import write_atomically
from secateur.artifact.format import decode, encode
from secateur.errors import ArtifactError, TrainingError

FILE = "checkpoint.safetensors"
_KIND = "checkpoint of training"


@dataclass(frozen=True)
class State:
    """What changes while a network is trained.

    Attributes:
        model: the network.
        average: the average of it.
        optimizer: the optimizer.
    """

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all of it by names."""
        named = {f"model.{name}": value for name, value in values_of(self.model).items()}
        named |= {f"average.{name}": value for name, value in values_of(self.average).items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        return named | {"random": torch.get_rng_state()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take it over from tensors of the same names and shapes, in place."""
        for part, module in (("model", self.model), ("average", self.average)):
            with torch.no_grad():
                for name, value in values_of(module).items():
                    value.copy_(tensors[f"{part}.{name}"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                state.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["random"])


def save_checkpoint(path: Path, state: State, document: Mapping[str, Any]) -> None:
    """Write a checkpoint; `document` is any JSON.

    Raises:
        ArtifactError: the file cannot be written; what was there before is untouched.
    """
    write_atomically(path, encode(state.tensors(), {**document, "kind": _KIND}))


def recorded_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe that the run in a folder is trained by; nothing where there is no run.

    Raises:
        ArtifactError: its checkpoint cannot be read, or is damaged.
    """
    path = folder / FILE
    return dict(decode(path.read_bytes(), str(path))[1].get("recipe", {})) if path.is_file() else {}


def load_checkpoint(path: Path, state: State, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Take a checkpoint over, and return its document.

    Raises:
        ArtifactError: the file cannot be read, or is damaged.
        TrainingError: it is of another network, or the document differs from `wanted`; names where.
    """
    try:
        tensors, document = decode(path.read_bytes(), str(path))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Start anew without --resume.") from None
    if document.get("kind") != _KIND:
        raise TrainingError(f"{path} is no checkpoint of training. Give the folder that training wrote.")
    for name, value in wanted.items():
        if differing := _differing(name, document.get(name), value):
            raise TrainingError(
                f"{path} was trained with {differing}. Resume with the same settings, or start anew in another folder."
            )
    expected = {name: tuple(value.shape) for name, value in state.tensors().items() if name.startswith("model.")}
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        if found != shape:
            raise TrainingError(f"{path} is of another network: {name} is {found}, and {shape} is wanted.")
    state.restore(tensors)
    return document


def values_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers, those with several names once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _differing(name: str, was: Any, wanted: Any) -> str:
    """Say which settings are others than they were, of tables each by itself; nothing if all are the same."""
    if not isinstance(was, Mapping) or not isinstance(wanted, Mapping):
        return "" if was == wanted else f"{name}={_short(was)}, not {_short(wanted)}"
    told = (_differing(key, was.get(key), wanted.get(key)) for key in {**wanted, **was})
    return "; ".join(one for one in told if one)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}..."
