"""The model that a user names on the command line: one of the zoo's, or her own as `package.module:callable`."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from secateur.errors import ArtifactError, nearest
from secateur.models.registry import ZooEntry, zoo_entry

_ADDRESS = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
_WANTED = "Name an nn.Module, a class of one, or a function that returns one when called without arguments."


@dataclass(frozen=True)
class Selected:
    """A model with the name the user gave it; `entry` says what the zoo knows about it, None for the user's own."""

    name: str
    model: nn.Module
    entry: ZooEntry | None = None


def select(name: str) -> Selected:
    """Build the model that `name` stands for, with random weights or whatever the user's own code gives it.

    A zoo name, or `package.module:callable`; that module is imported, from the current directory too.

    Raises:
        ArtifactError: the name is misspelt (offers the nearest), its module does not import, or it is no model.
            Nothing that is not Python code for a model is called.

    Example:
        >>> select("lenet").entry.example_shape
        (1, 1, 28, 28)
        >>> type(select("torch.nn:Identity").model).__name__
        'Identity'
    """
    if ":" not in name:
        entry = zoo_entry(name)
        return Selected(name, entry.build(), entry)
    address = _ADDRESS.fullmatch(name)
    if address is None:
        raise ArtifactError(f"{name!r} is no model's name. Write package.module:callable, as in my_models.nets:MyNet.")
    with _current_directory_importable():
        return Selected(name, _model(name, _found(_imported(address[1]), address[2])))


def select_function(name: str) -> Callable[..., Any]:
    """Return the function that the user named as `package.module:function`, to be called by what needs it.

    Raises:
        ArtifactError: the name is misspelt (offers the nearest), its module does not import, or it is no function.
    """
    address = _ADDRESS.fullmatch(name)
    if address is None:
        raise ArtifactError(f"{name!r} names no function. Write package.module:function, as in my_metrics:accuracy.")
    with _current_directory_importable():
        found = _found(_imported(address[1]), address[2])
    if not callable(found) or isinstance(found, type):
        raise ArtifactError(f"{name} is {_kind(found)}, and no function. Name one.")
    return found


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """Look in the current directory first, as `python -m` does; afterwards last, for what the model imports later.

    It must not stay first: a `queue.py` of the user's would then stand in for Python's own.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        if absent:
            raise ArtifactError(
                f"There is no module {name!r} in {Path.cwd()} or among the installed packages. Check its spelling."
            ) from None
        raise ArtifactError(
            f"The module {name!r} fails when it is imported: {type(error).__name__}: {error}. Mend it, then try again."
        ) from error


def _found(module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            known = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
            raise ArtifactError(f"{module.__name__!r} has no {path!r}.{nearest(part, known)} {_WANTED}")
        found = getattr(found, part)
    return found


def _model(name: str, target: Any) -> nn.Module:
    if isinstance(target, nn.Module):
        return target
    _check_callable(name, target)
    try:
        model = target()
    except (Exception, SystemExit) as error:
        raise ArtifactError(
            f"{name} fails when it is called: {type(error).__name__}: {error}. Mend it, then try again."
        ) from error
    if not isinstance(model, nn.Module):
        raise ArtifactError(f"{name} returns {_article(type(model).__name__)}, which is no nn.Module. {_WANTED}")
    return model


def _check_callable(name: str, target: Any) -> None:
    if not _makes_models(target):
        raise ArtifactError(f"{name} is {_kind(target)}, and was not called: it is no nn.Module. {_WANTED}")
    needed = [
        parameter.name
        for parameter in inspect.signature(target).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ArtifactError(
            f"{name} cannot be called without arguments: it needs {', '.join(needed)}. "
            "Write a function without arguments that calls it, and name that."
        )


def _makes_models(target: Any) -> bool:
    """Tell whether a call may give a model: a class of one, or a function written in Python."""
    if isinstance(target, type):
        return issubclass(target, nn.Module)
    if isinstance(target, partial):
        return _makes_models(target.func)
    function = inspect.unwrap(target) if callable(target) else target
    return inspect.isfunction(function) or inspect.ismethod(function)


def _kind(target: Any) -> str:
    if isinstance(target, type):
        return f"the class {target.__name__}"
    if isinstance(target, ModuleType):
        return "a module"
    return "a built-in function" if inspect.isbuiltin(target) else _article(type(target).__name__)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"
