"""Which model a file holds: a model of our own zoo with its arguments, or a class name, for information only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import nn

from secateur.errors import ArtifactError, SecateurError
from secateur.models.registry import entry_of, zoo_entry
from secateur.planning.plans import Plan
from secateur.surgery.cutting import SIZES

_SIMPLE = (int, float, str, bool, type(None))
_FREE = ("training", "groups", "momentum", "p", "inplace")  # a cut changes it, or it changes no output in evaluation


def identify(model: nn.Module, plans: Sequence[Plan]) -> dict[str, Any]:
    """Return the identity of a model as JSON: the zoo's name for it with its arguments, or its class's name.

    A model of the zoo whose layers the user has changed, such as another classifier or activation, goes by its class.
    """
    entry = entry_of(model)
    if entry is not None:
        found = {"kind": "zoo", "name": entry.name, "arguments": dict(getattr(model, "arguments", {}))}
        if _builds(found, model, plans):
            return found
    return {"kind": "class", "name": f"{type(model).__module__}.{type(model).__qualname__}"}


def _builds(identity: Mapping[str, Any], model: nn.Module, plans: Sequence[Plan]) -> bool:
    """Tell whether the zoo's model differs from this one in nothing but what the plans cut."""
    try:
        sketch = sketch_full_size(identity, plans[0].fingerprint)
    except ArtifactError:
        return False
    cut = {name.partition("[")[0] for plan in plans for name in plan.attributes}
    return sketch is not None and _settings(sketch, cut) == _settings(model, cut)


def _settings(model: nn.Module, cut: AbstractSet[str]) -> dict[str, Any]:
    """Return the types of all modules, with the settings of torch's own that no cut changes."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        found[path] = type(module)
        if type(module).__module__.startswith("torch.nn."):
            free = {
                *_FREE,
                *(key for kind, keys in SIZES.items() if isinstance(module, kind) for key in keys(module)),
            }
            for key, value in vars(module).items():
                name = f"{path}.{key}" if path else key
                if type(value) in (*_SIMPLE, tuple) and key[0] != "_" and key not in free and name not in cut:
                    found[name] = value
    return found


def describe(identity: Mapping[str, Any]) -> str:
    """Return an identity as people read it."""
    if identity.get("kind") == "zoo":
        arguments = identity.get("arguments", {})
        if isinstance(arguments, Mapping):
            arguments = ", ".join(f"{name}={value}" for name, value in arguments.items())
        return f"{identity.get('name')}({arguments})"
    return f"a {identity.get('name', 'model of unknown class')}"


def build_full_size(identity: Mapping[str, Any], fingerprint: Mapping[str, tuple[int, ...]]) -> nn.Module | None:
    """Build the full-size model that a file names, with random weights; None if it is no model of the zoo.

    The random state stays as it is.

    Raises:
        ArtifactError: the zoo has no such model, or not with the shapes of the `fingerprint`.
    """
    if sketch_full_size(identity, fingerprint) is None:
        return None
    with torch.random.fork_rng(devices=[]):
        return _built(identity)


def sketch_full_size(identity: Mapping[str, Any], fingerprint: Mapping[str, tuple[int, ...]]) -> nn.Module | None:
    """Build it on the meta device: arguments found in a file are not to be trusted with memory.

    Raises:
        ArtifactError: the zoo has no such model, or not with the shapes of the `fingerprint`.
    """
    if identity.get("kind") != "zoo":
        return None
    arguments = identity.get("arguments", {})
    if not isinstance(arguments, Mapping) or not all(isinstance(value, _SIMPLE) for value in arguments.values()):
        raise ArtifactError(f"The file asks for {describe(identity)}, which makes no sense. Prune the model again.")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        sketch = _built(identity)
    shapes = {name: tuple(tensor.shape) for name, tensor in sketch.state_dict().items()}
    if any(shapes.get(name, shape) != shape for name, shape in fingerprint.items()):
        raise ArtifactError(f"The file asks for {describe(identity)}, but its plan is of another. Prune again.")
    return sketch


def _built(identity: Mapping[str, Any]) -> nn.Module:
    entry = zoo_entry(str(identity.get("name")))
    try:
        return entry.build(**identity.get("arguments", {}))
    except SecateurError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"The file asks for {describe(identity)}, which this secateur cannot build ({error}). "
            "Install the secateur that wrote it, or prune the model again."
        ) from error
