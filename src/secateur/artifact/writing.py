"""Save a pruned model and its plan as one safe file (docs/design.md, section 7)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.artifact.atomic import write_atomically
from secateur.artifact.format import digest, encode
from secateur.artifact.identity import identify
from secateur.artifact.packing import packed, pairs_of, with_aliases
from secateur.errors import ArtifactError
from secateur.models.checkpoints import WRAPPERS
from secateur.models.registry import entry_of
from secateur.planning.plans import Plan

EXTRA_STATE = "_extra_state"  # how torch calls what a module keeps beside its tensors


def save(
    path: str | Path,
    model: nn.Module,
    plan: Plan,
    earlier: Sequence[Plan] = (),
    preprocessing: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the pruned `model` and the `plan` that made it to `path`, whole or not at all.

    `earlier` are the plans, in order, that had made the model already smaller before `plan` was made. Each tensor is
    stored once, whatever its number of names. `preprocessing` (left out for a model of the zoo, it is the zoo's) and
    `provenance` are any JSON; to the latter the versions of secateur and torch are added. The figures of the plan's
    proof are stored, too. The same model, plans and provenance give the same bytes.

    Raises:
        ArtifactError: the path cannot be written, the model is not the one that the plan made, it holds something that
            is no tensor with data, or what is known about it is no JSON.

    Example:
        >>> save("small.safetensors", small, plan)  # doctest: +SKIP
    """
    if not isinstance(model, nn.Module) or not isinstance(plan, Plan):
        given = f"{type(model).__name__}, {type(plan).__name__}"
        raise ArtifactError(f"A model and its plan are saved, not {given}. Write save(path, model, plan).")
    for name, known in (("preprocessing", preprocessing), ("provenance", provenance)):
        _check_json(name, known)
    tensors, aliases = _stored_once(model)
    _check_plan(model, plan)
    plans, shapes = (*earlier, plan), {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    document = {
        "identity": identify(model, plans),
        "plans": packed(plans, with_aliases(shapes, aliases), aliases),
        "fingerprint": digest(plans[0].fingerprint),
        "aliases": pairs_of(aliases, tensors),
        "preprocessing": dict(preprocessing) if preprocessing is not None else _zoo_preprocessing(model),
        "provenance": {"versions": _versions(), **(provenance or {})},
        "proof": asdict(plan.proof) if is_dataclass(plan.proof) and not isinstance(plan.proof, type) else plan.proof,
    }
    write_atomically(path, encode(tensors, document))


def _check_json(name: str, known: Any) -> None:
    try:
        json.dumps(known, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{name} is no JSON: {error}. Give texts, finite numbers, lists and dicts.") from error


def _check_plan(model: nn.Module, plan: Plan) -> None:
    """Refuse a model that the plan did not make: its file could not be read back."""
    for name, value in model.state_dict(keep_vars=True).items():
        if name.endswith(EXTRA_STATE):
            continue
        if name not in plan.fingerprint:
            wrapped = next((each for each in WRAPPERS if name.startswith(each)), None)
            remedy = f"Save model.{wrapped.rstrip('.')}" if wrapped else "Save the model that the plan made"
            raise ArtifactError(f"The plan does not know {name} of {type(model).__name__}. {remedy}.")
        if tuple(value.shape) != plan.shape_after(name):
            raise ArtifactError(
                f"{name} of {type(model).__name__} has shape {tuple(value.shape)}, and the plan leaves "
                f"{plan.shape_after(name)}. Save the model that the plan made."
            )


def _versions() -> dict[str, str]:
    import secateur

    return {"secateur": secateur.__version__, "torch": torch.__version__}


def _zoo_preprocessing(model: nn.Module) -> dict[str, Any] | None:
    entry = entry_of(model)
    return None if entry is None else {"mean": list(entry.mean), "std": list(entry.std)}


def _stored_once(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    first_names: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor) or value.is_meta:
            what = "has no data (it is on the meta device)" if isinstance(value, torch.Tensor) else "is no tensor"
            raise ArtifactError(f"{name} {what}, so it cannot be saved. Give it data, or leave it out of state_dict().")
        first = first_names.setdefault(id(value), name)
        if first == name:
            tensors[name] = value
        else:
            aliases[name] = first
    return tensors, aliases
