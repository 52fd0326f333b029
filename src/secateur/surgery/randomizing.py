"""Random weights, statistics and inputs for the proof: a freshly initialised network hides errors, a dead one too."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from secateur.graph.calls import Call
from secateur.graph.staging import tensor_infos
from secateur.planning.plans import Plan
from secateur.surgery.cutting import copied, named_tensor, pruned_values

LARGEST_SIDE = 128  # pictures larger than this are proved on smaller ones, where the model takes them
TRIED_SIDES = (64, 96, 128)

Sides = tuple[int, int]  # height and width


def randomized(model: nn.Module, seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Return a copy on the CPU, in evaluation, with every weight, statistic and affine parameter drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    result = in_evaluation(model, dtype)
    norms = {id(tensor) for module in result.modules() if _is_norm(module) for tensor in module._parameters.values()}
    with torch.no_grad():
        for name, info in tensor_infos(result).items():
            tensor = named_tensor(result, name)
            if tensor.is_floating_point():
                tensor.copy_(_drawn(tensor, name, info.is_buffer, id(tensor) in norms, generator))
    return result


def settle_statistics(model: nn.Module, calls: Sequence[Call], seed: int) -> None:
    """Give running statistics values near those of the activations, so that depth does not amplify rounding.

    One run, layer after layer: each norm with running statistics divides by about the magnitude of what it is given.
    Its variance alone would not do: on a small picture it is nearly zero, and dividing by that amplifies rounding.
    """
    generator = torch.Generator().manual_seed(seed)

    seen: dict[int, torch.Tensor] = {}

    def measure(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        mean, variance = norm.running_mean, norm.running_var
        if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
            square = inputs[0].square().mean([dim for dim in range(inputs[0].ndim) if dim != 1])
            square = square.clamp_min(0.1 * float(square.mean()) + 1e-12)
            square = torch.maximum(square, seen.get(id(norm), square))  # a norm that runs twice suits its larger input
            seen[id(norm)] = square
            mean.copy_(0.3 * square.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype))
            variance.copy_(square * (torch.rand(mean.shape, generator=generator, dtype=mean.dtype) + 0.5))

    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    if not norms:
        return
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        with torch.no_grad():
            for call in calls:
                model(*call.args, **call.kwargs)
    finally:
        for hook in hooks:
            hook.remove()


def in_evaluation(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy on the CPU, in evaluation."""
    return copied(model).to("cpu", dtype).eval()


def with_values_of(full: nn.Module, small: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of `small`, in evaluation, with the values that the plan keeps of `full`, and of its dtype."""
    dtype = next((tensor.dtype for tensor in full.parameters() if tensor.is_floating_point()), torch.float64)
    result = in_evaluation(small, dtype)
    with torch.no_grad():
        for name in tensor_infos(result):
            named_tensor(result, name).copy_(pruned_values(named_tensor(full, name), plan, name))
    return result


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm))


def _drawn(tensor: torch.Tensor, name: str, is_buffer: bool, in_norm: bool, generator: torch.Generator) -> torch.Tensor:
    last = name.rpartition(".")[2]
    if last == "running_var":
        return torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5
    gain = tensor.ndim > 1 and prod(tensor.shape[1:]) == 1 and not is_buffer  # a factor for each channel, as in norms
    if gain or (in_norm and last == "weight"):  # below one, or a hundred residual branches amplify rounding vastly
        return 0.5 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.25
    noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
    if last == "running_mean" or in_norm:
        return 0.3 * noise
    if is_buffer:
        return tensor  # a table, not a weight: its values may mean something
    if tensor.ndim < 2:
        return 0.5 * noise
    return noise * (2.0 / max(prod(tensor.shape[1:]), 1)) ** 0.5


def random_call(call: Call, seed: int, sides: Sides | None = None, dtype: torch.dtype = torch.float64) -> Call:
    """Return a call with random floating-point tensors of a dtype; integers and flags stay as given.

    `sides` replaces height and width of pictures, (N, C, H, W).
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor.detach().cpu()
        shape = list(tensor.shape)
        if sides is not None and tensor.ndim == 4:
            shape[2:] = [min(side, size) for side, size in zip(sides, shape[2:], strict=True)]
        return torch.randn(shape, generator=generator, dtype=dtype)

    return call.map(drawn)


def smaller_sides(model: nn.Module, calls: Sequence[Call]) -> Sides | None:
    """Return a height and width on which the model runs as well, if the example's pictures are large."""
    pictures = [
        tensor for call in calls for tensor in call.tensors() if tensor.ndim == 4 and tensor.is_floating_point()
    ]
    if max((max(tensor.shape[2:]) for tensor in pictures), default=0) <= LARGEST_SIDE:
        return None
    trial = in_evaluation(model, torch.float32)
    for side in TRIED_SIDES:
        if runs(trial, [random_call(call, 0, (side, side), torch.float32) for call in calls]):
            return side, side
    return None


def runs(model: nn.Module, calls: Sequence[Call]) -> bool:
    """Tell whether a model runs on some calls."""
    try:
        with torch.no_grad():
            for call in calls:
                model(*call.args, **call.kwargs)
    except Exception:  # noqa: BLE001 - a foreign model's code may fail in any way
        return False
    return True
