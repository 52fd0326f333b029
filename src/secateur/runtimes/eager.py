"""PyTorch as it is: the model's own code, operation by operation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from secateur.errors import RuntimeUnfitError
from secateur.runtimes.network import Network
from secateur.runtimes.runtime import Runtime
from secateur.runtimes.session import Arrays, Options, Session
from secateur.runtimes.shapes import Shapes

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def devices() -> tuple[str, ...]:
    """Return the devices that are there."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def precisions(_: str) -> tuple[str, ...]:
    """Return the precisions that a device computes in; fp16 and bf16 by autocast."""
    return ("fp32", "fp16", "bf16")


class TorchSession(Session):
    """A module, called without gradients.

    Raises:
        RuntimeUnfitError: there is only an exported file.
    """

    def __init__(
        self,
        network: Network,
        options: Options,
        _: Shapes | None = None,
        channels_last: bool = False,
        compiled: Callable[[nn.Module], Any] = lambda module: module,
    ) -> None:
        if network.form is None:
            raise RuntimeUnfitError(
                f"{network.file} is an exported file, which PyTorch does not run. Give the model, or another runtime."
            )
        super().__init__(network.form.inputs, network.form.outputs)
        if options.threads:
            torch.set_num_threads(options.threads)
        self.device, self.dtype = torch.device(options.device), DTYPES.get(options.precision)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        module = copy.deepcopy(network.form).eval().to(self.device)
        if channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module = compiled(module)

    @override
    def bound(self, arrays: Arrays) -> Callable[[], Any]:
        inputs = [self._placed(torch.from_numpy(np.asarray(one, order="C")).to(self.device)) for one in arrays]

        def run() -> Any:
            with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                outputs = self.module(*inputs)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return outputs

        return run

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(memory_format=self.layout) if tensor.ndim == 4 else tensor

    @override
    def read(self, result: Any) -> tuple[np.ndarray, ...]:
        return tuple(one.float().cpu().numpy() if one.is_floating_point() else one.cpu().numpy() for one in result)


PLAIN = Runtime("torch", "torch", devices, precisions, TorchSession, source="module")
CHANNELS_LAST = Runtime(
    "torch-channels-last", "torch", devices, precisions, partial(TorchSession, channels_last=True), source="module"
)
