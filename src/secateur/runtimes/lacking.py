"""Which layers call an operation that a runtime lacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.graph.staging import modules_of
from secateur.runtimes.forms import InferenceForm, evaluating


def layers_calling(form: InferenceForm, example: Sequence[torch.Tensor], operation: str) -> list[str]:
    """Return the innermost modules whose code calls an operation, such as "linalg_svd"; "" is the model itself."""
    callers = _Callers(form, operation)
    with evaluating(form), torch.no_grad(), _Functions(callers), _Operations(callers):
        form(*example)
    return list(callers.found)


class _Callers:
    def __init__(self, form: InferenceForm, operation: str) -> None:
        self.operation, self.found = operation, dict[str, None]()
        self.paths = {id(module): path for path, module in modules_of(form.model)}

    def heard(self, name: str) -> None:
        """Note who is running, if it is this operation that is called."""
        if name.strip("_") != self.operation.strip("_"):
            return
        frame: Any = sys._getframe(1)
        while frame is not None:
            path = self.paths.get(id(frame.f_locals.get("self")))
            if path is not None:
                self.found[path] = None
                return
            frame = frame.f_back


class _Functions(TorchFunctionMode):
    """Hears what the code calls."""

    def __init__(self, callers: _Callers) -> None:
        self.callers = callers

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.callers.heard(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Hears what becomes of that."""

    def __init__(self, callers: _Callers) -> None:
        super().__init__()
        self.callers = callers

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.callers.heard(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def without_graphs() -> Iterator[None]:
    """Keep torch's exporter from printing the graph in which it fails, which goes past Python's own stdout."""
    printing = getattr(torch._C, "_jit_onnx_log", None)
    if printing is None:
        yield
        return
    torch._C._jit_onnx_log = _unheard
    try:
        yield
    finally:
        torch._C._jit_onnx_log = printing


def _unheard(*_: Any) -> None:
    pass
