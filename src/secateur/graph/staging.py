"""Put stand-ins into a model for the time of a trace, and take every one of them out again.

Parameters and buffers are replaced by tensors without data (or by aliases of the real ones), integers in attributes by
traced ones. Whatever happens inside, the model's modules get their own dictionaries back.
"""

from __future__ import annotations

import copy
import gc
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.graph.groups import TensorInfo
from secateur.graph.provenance import Listener, with_origin

# Geometry of torch's own layers: never the size of anything that is cut.
GEOMETRY = frozenset({
    "kernel_size", "stride", "padding", "dilation", "output_padding", "_reversed_padding_repeated_twice", "transposed",
    "padding_mode", "return_indices", "ceil_mode", "scale_factor", "size", "output_size", "dim", "start_dim", "end_dim",
})  # fmt: skip


# What nn.Module keeps for itself; hooks are called, not copied.
OWN_KEYS = frozenset(vars(nn.Module()))
OWN_TABLES = tuple(
    key
    for key, value in vars(nn.Module()).items()
    if isinstance(value, (dict, set)) and key not in ("_parameters", "_buffers")
)
OWN_KEYS_OF_TORCHS = OWN_KEYS | GEOMETRY
LEFT = frozenset({bool, float, str, type(None)})  # values of these types stay as they are


Modules = list[tuple[str, nn.Module]]  # paths and modules


def modules_of(model: nn.Module, again: bool = False) -> Modules:
    """List paths and modules as `named_modules` does, without its nested generators.

    `again`: list a module under each of its names.
    """
    found: Modules = []
    seen: set[nn.Module] = set()
    waiting: Modules = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if again or module not in seen:
            seen.add(module)
            found.append((path, module))
            if children := module._modules:
                start = f"{path}." if path else ""
                waiting += [(start + name, child) for name, child in reversed(children.items()) if child is not None]
    return found


def module_at(model: nn.Module, path: str) -> nn.Module:
    """Return a module by its path; `get_submodule` asks a model more than is in it.

    Raises:
        KeyError: there is none.
    """
    for name in path.split(".") if path else ():
        found = model._modules[name]
        if found is None:
            raise KeyError(name)
        model = found
    return model


def tensor_infos(model: nn.Module) -> dict[str, TensorInfo]:
    """List the parameters and buffers of a model by first name, aliases beside them.

    Aliases are names of the same tensor object: tied weights, or one module registered twice.
    """
    return tensors_of(modules_of(model, again=True))


def tensors_of(modules: Modules) -> dict[str, TensorInfo]:
    """List the parameters and buffers of modules, each under all of its names."""
    found: dict[int, tuple[torch.Tensor, bool, list[str]]] = {}
    for path, module in modules:
        start = f"{path}." if path else ""
        for store, is_buffer in ((module._parameters, False), (module._buffers, True)):
            for key, tensor in store.items():
                if tensor is not None:
                    found.setdefault(id(tensor), (tensor, is_buffer, []))[2].append(start + key)
    return {
        names[0]: TensorInfo(names[0], tuple(tensor.shape), tuple(names), is_buffer)
        for tensor, is_buffer, names in found.values()
    }


@contextmanager
def staged(
    model: nn.Module,
    stand_in: Callable[[str, torch.Tensor], torch.Tensor],
    listener: Listener,
    integers: Mapping[str, int] | None = None,
    training: bool | None = False,
) -> Iterator[None]:
    """Run the body with stand-ins in the model.

    Args:
        model: the model; restored on the way out, also after an exception.
        stand_in: from a tensor's first name and the tensor to what takes its place.
        listener: told what becomes of traced integers.
        integers: new values of attributes ("path.key", "path.key[0]"), for a run at other widths.
        training: the mode in which the body runs; None: that of each module.
    """
    modules = modules_of(model)
    saved = [
        (module, module.__dict__, {key: copy.copy(table) for key, table in _filled(module.__dict__)})
        for _, module in modules
    ]
    made: dict[int, Any] = {}
    try:
        for path, module in modules:
            object.__setattr__(module, "__dict__", module.__dict__.copy())
            _stage(module, path, stand_in, made, listener, integers or {})
            if training is not None:
                module.__dict__["training"] = training
        with same_dice():
            yield
    finally:
        for module, dictionary, tables in saved:
            object.__setattr__(module, "__dict__", dictionary)
            for key, table in _filled(dictionary):  # the code may have put hooks or modules into them
                table.clear()
                table.update(tables.get(key, ()))


def _filled(own: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the tables of a module with anything in them; few have."""
    if not any(map(own.get, OWN_TABLES)):
        return []
    filled = [key for key in OWN_TABLES if own.get(key)]
    return [(key, own[key]) for key in filled if isinstance(own[key], (dict, set))]  # a scripted part has others


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: on small pictures several would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for cycles, of which a trace makes none: it would walk all objects of the process."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def same_dice() -> Iterator[None]:
    """Leave the random states of torch, Python and NumPy as they were, whatever the body draws."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's own state
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _stage(
    module: nn.Module,
    path: str,
    stand_in: Callable[[str, torch.Tensor], torch.Tensor],
    made: dict[int, Any],
    listener: Listener,
    integers: Mapping[str, int],
) -> None:
    def replaced(name: str, tensor: torch.Tensor | None) -> Any:
        if tensor is None:
            return None
        if id(tensor) not in made:
            made[id(tensor)] = stand_in(f"{path}.{name}" if path and name else name, tensor)
        return made[id(tensor)]

    own = module.__dict__
    for store in ("_parameters", "_buffers"):
        own[store] = {name: replaced(name, tensor) for name, tensor in own[store].items()} if own[store] else {}
    if "_compiled_call_impl" in own:  # `module.compile()`: what it compiled cannot be followed, its code can
        own["_compiled_call_impl"] = None
    torchs = type(module).__module__.startswith("torch.nn.")
    for key in own.keys() - (OWN_KEYS_OF_TORCHS if torchs else OWN_KEYS):
        value = own[key]
        if type(value) not in LEFT:
            apart = value if type(value) is int else _apart(value, replaced, made)
            own[key] = with_origin(_renewed(apart, path, key, integers) if integers else apart, path, key, listener)


def _apart(value: Any, replaced: Callable[[str, torch.Tensor], Any], made: dict[int, Any]) -> Any:
    """Return a copy of the containers in an attribute, so that what the code puts into them is forgotten."""
    if isinstance(value, torch.Tensor):
        return replaced("", value)
    if _is_plain_object(value):
        return _apart_object(value, replaced, made)
    if type(value) is tuple and any(type(item) not in (int, float, str, bool) for item in value):
        return tuple(_apart(item, replaced, made) for item in value)
    if type(value) not in (dict, list, set, OrderedDict, defaultdict, deque, np.ndarray):
        return value
    if id(value) not in made:
        made[id(value)] = copy.copy(value)
        if isinstance(value, Mapping):
            made[id(value)].update({key: _apart(item, replaced, made) for key, item in value.items()})
        elif isinstance(value, list):
            made[id(value)][:] = [_apart(item, replaced, made) for item in value]
    return made[id(value)]


def _is_plain_object(value: Any) -> bool:
    """Tell whether a value is an instance of a class of the user's own that keeps things in its `__dict__`."""
    own = hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type, FunctionType, MethodType, partial))
    return own and not type(value).__module__.startswith(("torch", "builtins", "numpy"))


def _apart_object(value: Any, replaced: Callable[[str, torch.Tensor], Any], made: dict[int, Any]) -> Any:
    if id(value) not in made:
        try:
            made[id(value)] = copy.copy(value)
        except Exception:  # noqa: BLE001 - what cannot be copied is left in place
            made[id(value)] = value
            return value
        for key, item in vars(value).items():
            vars(made[id(value)])[key] = _apart(item, replaced, made)
    return made[id(value)]


def _renewed(value: Any, path: str, key: str, integers: Mapping[str, int]) -> Any:
    name = f"{path}.{key}" if path else key
    if type(value) is int:
        return integers.get(name, value)
    if type(value) in (list, tuple) and integers:
        return type(value)(integers.get(f"{name}[{i}]", item) for i, item in enumerate(value))
    return value
