"""PyTorch as it is: the model's own code, operation by operation."""

from __future__ import annotations

import copy
import time
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
from secateur.runtimes.session import PROFILED, Arrays, NodeTime, Options, Session, median_times
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


def profile(
    network: Network, options: Options, arrays: Arrays, opened: Callable[..., TorchSession] = TorchSession
) -> list[NodeTime]:
    """Tell what each module takes by itself, without the modules in it."""
    session = opened(network, options)
    run, watch = session.bound(arrays), _Watch(session.module, session.device)
    for _ in range(PROFILED + 1):
        watch.runs.append([])
        run()
    return median_times(watch.runs[1:])


class _Watch:
    """Notes when modules begin and end."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.runs: list[list[NodeTime]] = []
        self._device, self._begun = device, [(0.0, 0.0)]  # when, and how long modules inside took
        for name, one in module.named_modules():
            one.register_forward_pre_hook(self._begin)
            one.register_forward_hook(partial(self._end, "/" + name.replace(".", "/")))

    def _begin(self, *_: Any) -> None:
        self._begun.append((self._now(), 0.0))

    def _end(self, path: str, module: nn.Module, *_: Any) -> None:
        begun, inside = self._begun.pop()
        taken = self._now() - begun
        self.runs[-1].append(NodeTime(path, type(module).__name__, (taken - inside) * 1e3))
        outer, others = self._begun.pop()
        self._begun.append((outer, others + taken))

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


PLAIN = Runtime("torch", "torch", devices, precisions, TorchSession, source="module", profile=profile)
_open_channels_last = partial(TorchSession, channels_last=True)
CHANNELS_LAST = Runtime(
    "torch-channels-last",
    "torch",
    devices,
    precisions,
    _open_channels_last,
    source="module",
    profile=partial(profile, opened=_open_channels_last),
)
