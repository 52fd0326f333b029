"""Read a file back into a model that runs; nothing in the file is executed or imported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.artifact.format import decode, digest, opened
from secateur.artifact.identity import build_full_size, describe, sketch_full_size
from secateur.artifact.packing import aliases_of, unpacked, with_aliases
from secateur.artifact.pickles import is_pickle, read_pickled_model
from secateur.artifact.writing import EXTRA_STATE
from secateur.errors import ArtifactError, CutError, PlanError
from secateur.graph.staging import module_at, tensor_infos
from secateur.planning.plans import Plan
from secateur.surgery.cutting import copied, cut, named_tensor, put

SHOWN = 3  # differences in a message

_log = logging.getLogger("secateur")


@dataclass(frozen=True)
class Contents:
    """What a file holds: the tensors under every name, the plans in their order, and what is known about the run."""

    path: str
    tensors: Mapping[str, torch.Tensor]
    plans: tuple[Plan, ...]
    identity: Mapping[str, Any]
    preprocessing: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    proof: Mapping[str, Any] | None  # the figures of the last plan's proof, as they were when the file was written

    @property
    def plan(self) -> Plan:
        """The last plan, the one that made the model of this file."""
        return self.plans[-1]


def read(path: str | Path) -> Contents:
    """Read the file at `path` without building the model.

    Raises:
        ArtifactError: it is missing, damaged, or no file of ours; pickles are refused, never executed.
    """
    tensors, document = decode(opened(path)[0], str(path))
    aliases, plans = names_and_plans(document, {name: tuple(one.shape) for name, one in tensors.items()}, path)
    try:
        tensors |= {alias: tensors[first] for alias, first in aliases.items()}
        preprocessing, provenance = document["preprocessing"], dict(document["provenance"])
        identity, proof = dict(document["identity"]), document["proof"]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{path} lacks what a file of secateur holds ({error}). Prune the model again.") from error
    return Contents(str(path), tensors, plans, identity, preprocessing, provenance, proof)


def load(
    path: str | Path, into: nn.Module | None = None, device: str | torch.device | None = None, trust: bool = False
) -> nn.Module:
    """Return the pruned model of the file at `path`.

    A model of our own zoo is built from the file alone, in evaluation mode. Any other needs `into`, of which a copy is
    made: the full-size model, which is cut by the stored plan and filled with the stored weights; or a model that is
    as small already, such as one whose class was edited, into which the weights go by name and shape. The shapes
    decide which, and the log says so. `into` may be built under `torch.device("meta")`.

    Args:
        path: a file of `secateur.save`; with `trust` also a whole model that `torch.save` wrote.
        into: the model to fill; not needed for a model of the zoo.
        device: where the model goes; if left out, where `into` is, or the CPU.
        trust: unpickle the file if it is a pickle, which can run any code. Only for files that you wrote yourself.

    Raises:
        ArtifactError: the file cannot be read, or `into` is another model; names the first tensors that differ.

    Example:
        >>> small = load("small.safetensors")  # doctest: +SKIP
        >>> small = load("small.safetensors", into=MyNet())  # doctest: +SKIP
    """
    if into is not None and not isinstance(into, nn.Module):
        raise ArtifactError(f"into={into!r} is no module. Pass one that is built: into=MyModel().")
    if trust and is_pickle(path):
        if into is not None:
            raise ArtifactError(f"{path} is a whole model in a pickle, which goes into no other. Leave into out.")
        model = read_pickled_model(path)
    elif into is not None:
        model = _filled(read(path), into)
    else:
        contents = read(path)
        model = restore(contents, _sketch(contents), inplace=True).eval()
    return model if device is None else model.to(device)


def _filled(contents: Contents, into: nn.Module) -> nn.Module:
    """Return a copy of a model, cut or as small already, with the weights of a file."""
    name, own = type(into).__name__, into.state_dict(keep_vars=True)
    differences = _differences(own, contents.tensors)
    if not differences:
        _log.info("%s is as small as the model in %s: its weights go in by name and shape.", name, contents.path)
        small = copied(into)
        _fill(small, contents.tensors, contents.path)
        return small
    try:
        small = restore(contents, into)
    except ArtifactError as error:
        shown = "; ".join(differences[:SHOWN]) + ("; ..." if len(differences) > SHOWN else "")
        raise ArtifactError(f"{error} Nor is it as small already: {shown}.") from error
    _log.info("%s is the full-size model of %s: a copy of it was cut by the stored plan.", name, contents.path)
    return small


def full_size(contents: Contents) -> nn.Module:
    """Return the full-size model that a file was pruned from, with random weights.

    Raises:
        ArtifactError: it is no model of the zoo.
    """
    return _of_the_zoo(contents, build_full_size)


def _sketch(contents: Contents) -> nn.Module:
    """Return the full-size model without data: nothing but the file's own tensors is to take memory."""
    return _of_the_zoo(contents, sketch_full_size)


def _of_the_zoo(contents: Contents, build: Callable[..., nn.Module | None]) -> nn.Module:
    full = build(contents.identity, contents.plans[0].fingerprint)
    if full is None:
        raise ArtifactError(
            f"{contents.path} holds {describe(contents.identity)}, which is no model of secateur's own, and no code is "
            "run because a file names it. Pass the full-size model: load(path, into=MyModel()), "
            "or --model package.module:callable."
        )
    return full


def restore(contents: Contents, full: nn.Module, inplace: bool = False) -> nn.Module:
    """Return a copy of the full-size model, or itself, cut by the plans of a file and filled with its weights.

    Raises:
        ArtifactError: the model is not the one that was pruned; names the first tensors that differ.
    """
    small = cut_by_all(contents, contents.plans, full, inplace)
    _fill(small, contents.tensors, contents.path)
    return small


def cut_by_all(contents: Contents, plans: Sequence[Plan], full: nn.Module, inplace: bool = False) -> nn.Module:
    """Return a copy of the full-size model, or itself, cut by plans of a file; itself if there are none.

    Raises:
        ArtifactError: the model is not the one that was pruned; names the first tensors that differ.
    """
    try:
        return reduce(partial(cut, inplace=inplace), plans, full)
    except (CutError, RuntimeError, ArithmeticError) as error:  # the latter: scales or integers that make no sense
        raise ArtifactError(f"{contents.path} was not made from this {type(full).__name__}: {error}") from error


def names_and_plans(
    document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: str | Path
) -> tuple[dict[str, str], tuple[Plan, ...]]:
    """Return the further names of stored tensors, and the plans in their order.

    Raises:
        ArtifactError: there is no plan, or one contradicts itself or what is stored.
    """
    try:
        aliases = aliases_of(document["aliases"], shapes)
        plans = unpacked(document["plans"], with_aliases(shapes, aliases), aliases)
        consistent = bool(plans) and digest(plans[0].fingerprint) == document["fingerprint"]
    except PlanError as error:
        raise ArtifactError(f"{path} holds a plan that makes no sense: {error} Prune the model again.") from error
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{path} lacks what a file of secateur holds ({error}). Prune the model again.") from error
    if not consistent:
        raise ArtifactError(f"{path} contradicts itself: its plan is of another model. Prune the model again.")
    return aliases, plans


def _fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: str) -> None:
    own = model.state_dict(keep_vars=True)
    differences = _differences(own, tensors)
    infos = tensor_infos(model)
    differences += [told for info in infos.values() if (told := _tied_otherwise(info.aliases, tensors))]
    if differences:
        shown = "; ".join(differences[:SHOWN]) + ("; ..." if len(differences) > SHOWN else "")
        raise ArtifactError(f"{path} does not fit {type(model).__name__}: {shown}. Pass the model that was pruned.")
    change = _change_of_kind(own, tensors)
    given: set[int] = set()
    for info in infos.values():
        name = next((alias for alias in info.aliases if alias in own), None)
        value = named_tensor(model, info.name)
        if name is None and value.is_meta:
            raise ArtifactError(
                f"{info.name} is a buffer that no file holds (persistent=False), and {type(model).__name__} has no "
                "data for it. Build the model with data, not on the meta device."
            )
        if name is not None and value.is_meta:
            stored = tensors[name].clone()
            put(model, info.aliases, nn.Parameter(stored, value.requires_grad) if _is_parameter(value) else stored)
        elif name is not None:
            stored = tensors[name].to(value.device)  # the stored dtype wins
            value.data = stored.clone() if stored.data_ptr() in given else stored  # so that tied tensors stay tied
            given.add(stored.data_ptr())
        elif value.dtype == change[0]:
            value.data = value.to(change[1])
    for name in own:
        path_of, _, key = name.rpartition(".")
        if key == EXTRA_STATE:
            module_at(model, path_of).set_extra_state(tensors[name])


def _tied_otherwise(aliases: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Tell where a file has several values of what is one tensor in a model."""
    first, *others = [alias for alias in aliases if alias in tensors] or [""]
    for other in others:
        if tensors[other] is not tensors[first] and not torch.equal(tensors[other], tensors[first]):
            return f"{first} and {other} are one tensor in the model and two in the file"
    return None


def _change_of_kind(
    own: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[torch.dtype | None, torch.dtype | None]:
    """Return from which floating dtype to which a whole model changes; what the file does not hold follows."""
    before, after = (
        {value.dtype for name, value in one.items() if not name.endswith(EXTRA_STATE) and value.is_floating_point()}
        for one in (own, tensors)
    )
    return (before.pop(), after.pop()) if len(before) == len(after) == 1 else (None, None)


def _is_parameter(value: torch.Tensor) -> bool:
    return isinstance(value, nn.Parameter)


def _differences(own: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in own if name not in tensors]
    unexpected = [f"{name} is unexpected" for name in sorted(tensors) if name not in own]
    reshaped = [
        f"{name} is {tuple(tensors[name].shape)} in the file and {tuple(value.shape)} in the model"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    retyped = [
        f"{name} is {tensors[name].dtype} in the file and {value.dtype} in the model"
        for name, value in own.items()
        if name in tensors and _kind(tensors[name]) != _kind(value)
    ]
    return missing + unexpected + reshaped + retyped


def _kind(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Return what no parameter or statistic may change: whether its numbers are real, complex, or whole."""
    return tensor.is_floating_point(), tensor.is_complex()
