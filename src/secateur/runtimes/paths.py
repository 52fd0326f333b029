"""The names that exporters and runtimes give to operations, as paths through the modules of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from secateur.errors import ExportError, nearest

ITSELF = "(the model)"


def module_of(path: str, model: nn.Module | None) -> str:
    """Return the module that an operation belongs to, as far as its path names modules of the model; "" if it has none.

    What belongs to no module but the model is said to be `ITSELF`. Without a model the path is taken at its word.

    Args:
        path: such as "/model/features/features.0/Conv"; its first step is the wrapper's name for the model.
        model: whose modules count.

    Example:
        >>> module_of("/model/0/Conv", nn.Sequential(nn.Conv2d(3, 4, 3)))
        '0'
    """
    start = path.find("/")
    if start < 0:
        return ""
    steps = path[start + 1 :].split("/")
    if model is None:
        return ".".join(steps[:-1])
    module, names = model, {one: name for name, one in model.named_modules()}
    for step in steps[1:]:
        child = _child(module, step)
        if child is None:
            break
        module = child
    return names[module] or ITSELF


def nodes_of(names: Sequence[str], paths: Iterable[str], model: nn.Module) -> list[str]:
    """Return the operations that are named, or that belong to modules that are named.

    Raises:
        ExportError: a name is neither an operation nor a module with any; offers the nearest.
    """
    owners = {path: module_of(path, model) for path in paths}
    found: dict[str, None] = {}
    for name in names:
        own = [path for path, owner in owners.items() if path == name or f"{owner}.".startswith(f"{name}.")]
        if not own:
            known = sorted({*owners, *owners.values()} - {""})
            raise ExportError(f"There is neither a layer nor a node {name!r} to keep in float.{nearest(name, known)}")
        found |= dict.fromkeys(own)
    return list(found)


def _child(module: nn.Module, step: str) -> nn.Module | None:
    """Return the module that a step leads to, if any.

    Its name may have that of its parent before it ("conv.0"), and modules that are not called themselves are left out.
    """
    children = dict(module.named_children())
    direct = _at(module, step) or children.get(step.rpartition(".")[2])
    if direct is not None:
        return direct
    deeper = {found for child in children.values() if (found := _child(child, step)) is not None}
    return deeper.pop() if len(deeper) == 1 else None  # of several that answer to the name nobody knows which it is


def _at(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None
