"""PyTorch through torch.compile."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch import nn

from secateur.errors import RuntimeMissingError
from secateur.runtimes import eager
from secateur.runtimes.network import Network
from secateur.runtimes.packages import quiet
from secateur.runtimes.runtime import Runtime
from secateur.runtimes.session import Options, Session
from secateur.runtimes.shapes import Shapes


def open_compiled(network: Network, options: Options, shapes: Shapes | None) -> Session:
    """Open a model compiled; it is compiled at the first call, which takes long.

    Raises:
        RuntimeUnfitError: there is only an exported file.
        RuntimeMissingError: there is no C++ compiler for the processor's code.
    """
    if options.device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise RuntimeMissingError("torch-compile wants a C++ compiler, and there is none. Install g++ or clang.")
    return eager.TorchSession(network, options, shapes, compiled=_compiled)


def _compiled(module: nn.Module) -> Any:
    with quiet():
        compiled = torch.compile(module, dynamic=False)

    def run(*inputs: torch.Tensor) -> Any:
        with quiet():  # the first call compiles
            return compiled(*inputs)

    return run


COMPILED = Runtime("torch-compile", "torch", eager.devices, eager.precisions, open_compiled, source="module")
