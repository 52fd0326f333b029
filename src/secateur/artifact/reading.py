"""Read a file back into a model that runs; nothing in the file is executed or imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.artifact.format import decode, digest
from secateur.artifact.identity import build_full_size, describe
from secateur.errors import ArtifactError, CutError, PlanError
from secateur.planning.plans import Plan
from secateur.surgery.cutting import cut


@dataclass(frozen=True)
class Contents:
    """What a file holds: the tensors under every name, the plans in their order, and what is known about the run."""

    path: str
    tensors: Mapping[str, torch.Tensor]
    plans: tuple[Plan, ...]
    identity: Mapping[str, Any]
    preprocessing: Mapping[str, Any] | None
    provenance: Mapping[str, Any]

    @property
    def plan(self) -> Plan:
        """The last plan, the one that made the model of this file."""
        return self.plans[-1]


def read(path: str | Path) -> Contents:
    """Read the file at `path` without building the model.

    Raises:
        ArtifactError: it is missing, damaged, or no file of ours; pickles are refused, never executed.
    """
    tensors, document = decode(_bytes(path), str(path))
    try:
        plans = tuple(Plan.from_json(json.dumps(plan)) for plan in document["plans"])
        consistent = digest(document["plans"][0]["fingerprint"]) == document["fingerprint"]
        tensors |= {str(name): tensors[first] for name, first in document["aliases"].items()}
        preprocessing, provenance = document["preprocessing"], dict(document["provenance"])
        contents = Contents(str(path), tensors, plans, dict(document["identity"]), preprocessing, provenance)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, PlanError) as error:
        raise ArtifactError(f"{path} lacks what a file of secateur holds ({error}). Prune the model again.") from error
    if not consistent:
        raise ArtifactError(f"{path} contradicts itself: its plan is of another model. Prune the model again.")
    return contents


def load(path: str | Path, into: nn.Module | None = None) -> nn.Module:
    """Return the pruned model of the file at `path`.

    A model of our own zoo is built from the file alone, in evaluation mode. Any other needs `into`, the full-size
    model: a copy of it is cut by the stored plan and filled with the stored weights, and `into` itself stays as it is.

    Raises:
        ArtifactError: the file cannot be read, or `into` is another model; names the first tensors that differ.

    Example:
        >>> small = load("small.safetensors")  # doctest: +SKIP
        >>> small = load("small.safetensors", into=MyNet())  # doctest: +SKIP
    """
    contents = read(path)
    return restore(contents, into) if into is not None else restore(contents, full_size(contents)).eval()


def full_size(contents: Contents) -> nn.Module:
    """Return the full-size model that a file was pruned from, with random weights.

    Raises:
        ArtifactError: it is no model of the zoo.
    """
    full = build_full_size(contents.identity, contents.plans[0].fingerprint)
    if full is None:
        raise ArtifactError(
            f"{contents.path} holds {describe(contents.identity)}, which is no model of secateur's own, and no code is "
            "run because a file names it. Pass the full-size model: load(path, into=MyModel()), "
            "or --model package.module:callable."
        )
    return full


def restore(contents: Contents, full: nn.Module) -> nn.Module:
    """Return a copy of the full-size model, cut by the plans of a file and filled with its weights.

    Raises:
        ArtifactError: the model is not the one that was pruned; names the first tensors that differ.
    """
    small = cut_by_all(contents, contents.plans, full)
    _fill(small, contents.tensors, contents.path)
    return small


def cut_by_all(contents: Contents, plans: Sequence[Plan], full: nn.Module) -> nn.Module:
    """Return the full-size model cut by plans of a file, one after the other; itself if there are none.

    Raises:
        ArtifactError: the model is not the one that was pruned; names the first tensors that differ.
    """
    try:
        return reduce(cut, plans, full)
    except CutError as error:
        raise ArtifactError(f"{contents.path} was not made from this {type(full).__name__}: {error}") from error


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArtifactError(f"{path} cannot be read: {why}. Check the path.") from None


def _fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: str) -> None:
    own = model.state_dict(keep_vars=True)
    differences = _differences(own, tensors)
    if differences:
        shown = "; ".join(differences[:3]) + ("; ..." if len(differences) > 3 else "")
        raise ArtifactError(f"{path} does not fit {type(model).__name__}: {shown}. Pass the model that was pruned.")
    for name, value in own.items():
        # Through .data, so that tied tensors stay tied and the stored dtype wins.
        value.data = tensors[name].to(value.device)


def _differences(own: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in own if name not in tensors]
    unexpected = [f"{name} is unexpected" for name in sorted(tensors) if name not in own]
    reshaped = [
        f"{name} is {tuple(tensors[name].shape)} in the file and {tuple(value.shape)} in the model"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    return missing + unexpected + reshaped
