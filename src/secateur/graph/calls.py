"""The example: how the model is called, as one list of calls whatever form the user gave it in."""

from __future__ import annotations

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

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Call:
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


def zeros_for(calls: Iterable[CallShape]) -> list[tuple[torch.Tensor, ...]]:
    """Return calls of these shapes and dtypes, all tensors zero.

    Raises:
        TraceError: there is no such dtype, or no memory for such a tensor.
    """
    return [
        tuple(_zeros(shape, dtype) for shape, dtype in zip(call.shapes, call.dtypes, strict=True)) for call in calls
    ]


def _zeros(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise TraceError(f"The example is said to hold {dtype!r}, which is no dtype. Give an example of your own.")
    try:
        return torch.zeros(shape, dtype=kind)
    except RuntimeError:
        size = "x".join(map(str, shape))
        raise TraceError(f"An example of {size} does not fit into memory. Give a smaller one.") from None
