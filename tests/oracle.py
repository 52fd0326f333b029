"""Is a pruned model right? An answer that shares no code with the engine's own proof.

The masked original is built here from `plan.keep` alone: every removed slice of every tensor is set to zero, and norms
with statistics across channels take them over the kept ones. All numbers are random, all arithmetic is float64.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from secateur.graph.calls import Call, calls_of

SEED = 20_011


class DeadOutputError(AssertionError):
    """The outputs hardly depend on the inputs."""


def relative_error(
    model: nn.Module, plan: Any, small: nn.Module, example: Any, reference: Literal["zeros", "mask"] = "zeros"
) -> float:
    """Return how far the pruned model is from the masked original, in units of the outputs' spread over inputs.

    Args:
        model: the original; its structure counts, its numbers are replaced by random ones.
        plan: what was cut.
        small: the pruned model under test; it is given the random numbers, cut by the same plan.
        example: how the model is called.
        reference: "mask" compares with `secateur.mask` where zeros in the weights silence nothing.

    Raises:
        DeadOutputError: no output varies with the input.
    """
    kept = kept_of(model, plan)
    full = randomized(model, example, kept=kept)
    narrow = refilled(small, secateur.cut(full, plan))
    masked = secateur.mask(full, plan) if reference == "mask" else filled(full, kept)
    statistics = {id(one): kept[name] for name, one in named_tensors(masked) if name in kept and reference == "zeros"}
    with masked_statistics(statistics):
        expected, other = (answers(masked, example, seed) for seed in (SEED, SEED + 1))
    found = answers(narrow, example, SEED)
    assert len(found) == len(expected), f"{len(found)} outputs instead of {len(expected)}"
    spreads = [spread_of(*pair) for pair in zip(expected, other, strict=True)]
    if not any(spreads):
        raise DeadOutputError("no output varies with the input, so that comparing them says nothing")
    return max(distance(*triple) for triple in zip(found, expected, spreads, strict=True))


def randomized(
    model: nn.Module, example: Any, seed: int = SEED, kept: Mapping[str, torch.Tensor] | None = None
) -> nn.Module:
    """Return a copy in float64 and eval mode with random weights, statistics and affine parameters.

    The signal is alive in what is left of it: without what is not `kept`, scales and statistics suit what they see.
    """
    full = _doubled(copy.deepcopy(model).eval())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in named_tensors(full):
            if tensor.is_floating_point():
                tensor.copy_(_random_like(name.rpartition(".")[2], tensor, generator))
        if not kept:
            _levelled(full, example, generator)
            return full
        masked = filled(full, kept)
        _levelled(masked, example, generator)
        for (name, tensor), (_, suited) in zip(named_tensors(full), named_tensors(masked), strict=True):
            tensor.copy_(torch.where(kept[name], suited, tensor) if name in kept else suited)
    return full


def silenced(full: nn.Module, plan: Any) -> nn.Module:
    """Return a copy in which every removed slice of every tensor is zero (of a running variance: one)."""
    return filled(full, kept_of(full, plan))


def filled(full: nn.Module, kept: Mapping[str, torch.Tensor], value: float = 0.0) -> nn.Module:
    """Return a copy in which everything that is not kept has one value (a running variance, instead of zero: one).

    Rows of a direction (weight norm) stay as they are instead of zero: their lengths are, and zeros have no direction.
    """
    masked = copy.deepcopy(full)
    with torch.no_grad():
        for name, tensor in named_tensors(masked):
            if name in kept and tensor.is_floating_point():
                gone = ~kept[name]
                if value == 0 and name.endswith(("original1", "weight_v")):
                    gone &= kept[name].flatten(1).any(dim=1).view(-1, *[1] * (tensor.ndim - 1))
                tensor[gone] = 1.0 if value == 0 and name.endswith("running_var") else value
    return masked


def kept_of(model: nn.Module, plan: Any) -> dict[str, torch.Tensor]:
    """Return which elements of each tensor a plan keeps, where not all."""
    return {name: kept_elements(one, plan.keep[name]) for name, one in named_tensors(model) if name in plan.keep}


def kept_elements(tensor: torch.Tensor, keep: Mapping[Any, Any]) -> torch.Tensor:
    """Return which elements of a tensor stay, as booleans of its shape."""
    kept = torch.ones(tensor.shape, dtype=torch.bool)
    for axis in (axis for axis in keep if axis != "grouped"):
        along = torch.zeros(tensor.shape[axis], dtype=torch.bool)
        along[list(keep[axis])] = True
        kept &= along.view([-1 if dim == axis else 1 for dim in range(tensor.ndim)])
    if "grouped" in keep:
        rows = torch.zeros_like(kept)
        for output, inputs in _inputs_by_output(keep, len(tensor)):
            rows[output, list(inputs)] = True
        kept &= rows
    return kept


def sliced(tensor: torch.Tensor, keep: Mapping[Any, Any]) -> torch.Tensor:
    """Return what is left of a tensor, in the order of the plan."""
    for axis in (axis for axis in keep if axis != "grouped"):
        if not ("grouped" in keep and axis == 0):
            tensor = tensor.index_select(axis, torch.tensor(keep[axis], dtype=torch.long))
    if "grouped" in keep:
        tensor = torch.stack([tensor[output, list(inputs)] for output, inputs in _inputs_by_output(keep, len(tensor))])
    return tensor


def _inputs_by_output(keep: Mapping[Any, Any], outputs: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Pair each kept output of a grouped convolution with the rows that its group keeps; groups are of one size."""
    kept = keep.get(0, range(outputs))
    width = len(kept) // len(keep["grouped"])
    for place, output in enumerate(kept):
        yield output, keep["grouped"][place // width]


def tensors_of(output: Any) -> list[torch.Tensor]:
    """Return every tensor in whatever a model returned, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    if dataclasses.is_dataclass(output):
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
    if isinstance(output, Mapping):
        output = list(output.values())
    return [tensor for item in output for tensor in tensors_of(item)] if isinstance(output, (list, tuple)) else []


@contextmanager
def masked_statistics(kept_by_weight: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Let layer and group norms take statistics over kept channels, where their weight is one that lost some."""
    layer_norm, group_norm = F.layer_norm, F.group_norm

    def masked_layer_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> torch.Tensor:
        kept = kept_by_weight.get(id(weight))
        if kept is None:
            return layer_norm(x, shape, weight, bias, eps)
        dims = tuple(range(x.ndim - len(shape), x.ndim))
        normed = _normed(x, kept.expand(x.shape), dims, eps) * weight
        return normed if bias is None else normed + bias

    def masked_group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> torch.Tensor:
        kept = kept_by_weight.get(id(weight))
        if kept is None:
            return group_norm(x, groups, weight, bias, eps)
        split = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
        by_channel = (1, -1, *[1] * (x.ndim - 2))
        parts = kept.view(by_channel).expand(x.shape).reshape(split)
        normed = _normed(x.reshape(split), parts, tuple(range(2, len(split))), eps).reshape(x.shape)
        normed = normed * weight.view(by_channel)
        return normed if bias is None else normed + bias.view(by_channel)

    F.layer_norm, F.group_norm = masked_layer_norm, masked_group_norm
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole layer, which has norms of its own
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        F.layer_norm, F.group_norm = layer_norm, group_norm


def _normed(x: torch.Tensor, kept: torch.Tensor, dims: tuple[int, ...], eps: float) -> torch.Tensor:
    count = kept.sum(dims, keepdim=True).clamp(min=1)
    mean = (x * kept).sum(dims, keepdim=True) / count
    variance = ((x - mean).square() * kept).sum(dims, keepdim=True) / count
    return (x - mean) / (variance + eps).sqrt()


def named_tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return every parameter and buffer with its first name."""
    return [*model.named_parameters(), *model.named_buffers()]


def _doubled(model: nn.Module) -> nn.Module:
    model = model.double()
    for module in model.modules():
        for key, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(module, key, value.double())
    return model


def _random_like(key: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(tensor.shape, dtype=torch.float64, generator=generator)
    positive = 0.5 + 1.5 * torch.rand(tensor.shape, dtype=torch.float64, generator=generator)
    if key == "running_var":
        return positive
    if key in ("bias", "running_mean"):
        return 0.3 * normal
    inputs = tensor[0].numel() if tensor.ndim > 1 else 1
    return normal * math.sqrt(2 / inputs) if inputs > 1 else positive


def _levelled(full: nn.Module, example: Any, generator: torch.Generator) -> None:
    """Keep the signal alive, however deep: outputs are of order 1, running statistics near what they see."""
    seen: set[int] = set()

    def scale(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
        if weight is None or id(weight) in seen or output.numel() < 2:
            return None
        seen.add(id(weight))
        factor = 1 / (float(output.std()) + 1e-6)
        weight.mul_(factor)
        if bias is not None:
            bias.mul_(factor)
        return output * factor

    def centre(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        mean, variance = module._buffers.get("running_mean"), module._buffers.get("running_var")
        values = inputs[0].transpose(0, 1).flatten(1) if inputs[0].ndim > 1 else inputs[0][:, None]
        if mean is None or variance is None or id(mean) in seen or len(values) != len(mean) or values.shape[1] < 8:
            return
        seen.add(id(mean))
        noise, factor = (_random_like(key, mean, generator) for key in ("running_mean", "running_var"))
        silent = values.var(1) == 0  # a cut channel: random numbers would be missed, those that suit it would not
        mean.copy_(torch.where(silent, mean, values.mean(1) + values.std(1) * noise))
        variance.copy_(torch.where(silent, variance, (values.var(1) + 1e-3) * factor))

    with _hooked(full, scale, centre):
        for number, call in enumerate(calls_of(example)):
            _run_on_two(full, call, number)


@contextmanager
def _hooked(full: nn.Module, scale: Any, centre: Any) -> Iterator[None]:
    handles = []
    for module in full.modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            handles.append(module.register_forward_hook(scale))
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            handles.append(module.register_forward_pre_hook(centre))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run_on_two(model: nn.Module, call: Call, number: int) -> None:
    """Run the two inputs that are compared later as one batch, or one of them where a batch is not taken.

    Statistics then suit both, and how they differ: on others a deep network could blow rounding up.
    """
    one, other = (random_call(call, seed + 1000 * number) for seed in (SEED, SEED + 1))
    others = iter(other.tensors())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        try:
            both = one.map(lambda tensor: torch.cat([tensor, next(others)]))
            model(*both.args, **both.kwargs)
        except Exception:  # noqa: BLE001 - a foreign model's code may fail in any way
            model(*one.args, **one.kwargs)


def refilled(small: nn.Module, source: nn.Module) -> nn.Module:
    """Return `small` with the numbers of `source`, a model cut by the same plan."""
    filled = _doubled(copy.deepcopy(small).eval())
    numbers = dict(named_tensors(source))
    with torch.no_grad():
        for name, tensor in named_tensors(filled):
            assert tensor.shape == numbers[name].shape, f"{name}: {tuple(tensor.shape)}, {tuple(numbers[name].shape)}"
            tensor.copy_(numbers[name])
    return filled


def random_call(call: Call, seed: int) -> Call:
    """Return a call with random numbers for the floating-point inputs; integers and flags stay as they are."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, dtype=torch.float64, generator=generator)
        level = torch.randn(tensor.shape[:2], dtype=torch.float64, generator=generator)  # or else averages hardly vary
        return noise + level.reshape(*level.shape, *[1] * (tensor.ndim - level.ndim))

    return call.map(drawn)


def answers(model: nn.Module, example: Any, seed: int, factor: float = 1.0) -> list[torch.Tensor]:
    """Return every output of a model for random inputs, which are multiplied by `factor`."""
    found: list[torch.Tensor] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, call in enumerate(calls_of(example)):
            random = random_call(call, seed + 1000 * number).map(lambda x: x * factor if x.is_floating_point() else x)
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002 - models that draw from the global generator
            found += tensors_of(model(*random.args, **random.kwargs))
    return found


def spread_of(expected: torch.Tensor, other: torch.Tensor) -> float:
    """Return how much an output varies over inputs (if those are integers: over its elements); 0 if hardly."""
    if not expected.is_floating_point():
        return 0.0
    alike = expected.shape != other.shape or torch.equal(expected, other)  # or its size depends on values
    varied = expected - (expected.mean() if alike else other)
    spread = float(varied.square().mean().sqrt())
    return spread if spread > 1e-6 * float(expected.abs().max()) else 0.0


def distance(found: torch.Tensor, expected: torch.Tensor, spread: float) -> float:
    """Return the largest difference in units of `spread`, or of the largest value where that is 0; never NaN."""
    assert found.shape == expected.shape, f"output of shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    if not expected.is_floating_point():
        return float((found != expected).any())
    relative = float((found - expected).abs().max()) / (spread or float(expected.abs().max()) or 1.0)
    return relative if math.isfinite(relative) else math.inf
