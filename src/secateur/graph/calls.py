"""The example: how the model is called, as one list of calls whatever form the user gave it in."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from secateur.errors import TraceError

if TYPE_CHECKING:
    from secateur.graph.groups import CallShape


@dataclass(frozen=True)
class Call:
    """One call of the model: `model(*args, **kwargs)`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def map(self, function: Callable[[torch.Tensor], Any]) -> Call:
        """Return the call with `function` applied to every tensor in it."""

        def on_tensor(value: Any) -> Any:
            return function(value) if isinstance(value, torch.Tensor) else value

        return Call(tree_map(on_tensor, self.args), tree_map(on_tensor, self.kwargs))

    def tensors(self) -> list[torch.Tensor]:
        """Return the tensors of the call, in order."""
        leaves, _ = tree_flatten((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def calls_of(example: Any) -> tuple[Call, ...]:
    """Read an example: a tensor, a tuple of arguments, a dict of keyword arguments, or a list of such calls.

    Raises:
        TraceError: there is no tensor in it.

    Example:
        >>> calls_of(torch.zeros(1, 3, 8, 8))[0].args[0].shape
        torch.Size([1, 3, 8, 8])
    """
    calls = tuple(_call(one) for one in example) if isinstance(example, list) else (_call(example),)
    if not calls or not any(call.tensors() for call in calls):
        raise TraceError(
            f"The example ({type(example).__name__}) holds no tensor, so there is nothing to run the model on. "
            "Pass a tensor, a tuple of arguments, a dict of keyword arguments, or a list of such calls."
        )
    return calls


def _call(example: Any) -> Call:
    if isinstance(example, Call):
        return example
    if isinstance(example, Mapping):
        return Call((), dict(example))
    if isinstance(example, tuple):
        return Call(example, {})
    return Call((example,), {})


def arguments_of(call: Call) -> str:
    """Return how a call passes its tensors, and what else it passes, as JSON; "" for tensors alone, by position."""
    if not call.kwargs and all(isinstance(one, torch.Tensor) for one in call.args):
        return ""
    numbers = itertools.count()
    return json.dumps(_written(call.map(lambda _: _Place(next(numbers)))))


@dataclass(frozen=True)
class _Place:
    """Stands for a tensor of a call, by its number."""

    number: int


def _written(value: Any) -> Any:
    if isinstance(value, Call):
        return {"args": [_written(one) for one in value.args], "kwargs": _written(value.kwargs)}
    if isinstance(value, _Place):
        return {"tensor": value.number}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_written(one) for one in value]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _written(one) for key, one in value.items()}}
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    return {"lost": type(value).__name__}


def zeros_for(calls: Iterable[CallShape]) -> list[tuple[torch.Tensor, ...] | Call]:
    """Return calls of these shapes and dtypes, all tensors zero.

    Raises:
        TraceError: there is no such dtype, no memory for such a tensor, or something that was passed is not written
            down.
    """
    return [_call_with(call.arguments, _zeros_of(call)) for call in calls]


def _call_with(arguments: str, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | Call:
    if not arguments:
        return tensors
    try:
        found = json.loads(arguments)
        kwargs = _read(found["kwargs"], tensors)
        return Call(tuple(_read(one, tensors) for one in found["args"]), {str(key): one for key, one in kwargs.items()})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise TraceError(f"How the model is called makes no sense ({error}). Give an example of your own.") from error


def _read(value: Any, tensors: tuple[torch.Tensor, ...]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "lost":
        raise TraceError(f"The model is called with a {held}, which is in no file. Give an example of your own.")
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {key: _read(one, tensors) for key, one in held.items()}
    return {"list": list, "tuple": tuple}[kind](_read(one, tensors) for one in held)


def _zeros_of(call: CallShape) -> tuple[torch.Tensor, ...]:
    return tuple(_zeros(shape, dtype) for shape, dtype in zip(call.shapes, call.dtypes, strict=True))


def _zeros(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise TraceError(f"The example is said to hold {dtype!r}, which is no dtype. Give an example of your own.")
    try:
        return torch.zeros(shape, dtype=kind)
    except RuntimeError:
        size = "x".join(map(str, shape))
        raise TraceError(f"An example of {size} does not fit into memory. Give a smaller one.") from None
