"""Let several processes train as one: batch norms see the whole batch, of which each process has a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class AcrossProcesses(TorchFunctionMode):
    """While this is around, batch norms in training take their statistics over the batches of all processes.

    As `torch.nn.SyncBatchNorm` does, but on any device, and without another class in the network.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (_batch_norm if func is functional.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    input: torch.Tensor,  # noqa: A002
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """(N, C, *positions): by the statistics of each channel over all processes; two sums, as one would lose digits."""
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    value, across = input.float(), [0, *range(2, input.ndim)]
    shape = [1, -1, *[1] * (input.ndim - 2)]
    own = value.new_tensor([value.numel() / value.shape[1]])
    *sums, count = _summed(torch.cat([value.sum(across), own])).split(value.shape[1])
    mean = sums[0] / count
    centered = value - mean.view(shape)
    variance = _summed(centered.square().sum(across)) / count
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    scale = torch.rsqrt(variance + eps) * (1 if weight is None else weight)
    shift = 0 if bias is None else bias.view(shape)
    return (centered * scale.view(shape) + shift).to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes, of gradients as of values."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, gradients[0])


def _summed(value: torch.Tensor) -> torch.Tensor:
    result: Any = _Sum.apply(value)
    return result
