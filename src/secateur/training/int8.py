"""Run a network as it will be in INT8, in a way that it can be trained in: quantization-aware training.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018,
arXiv 1712.05877. The gradient passes the rounding as if it were not there (Bengio et al., arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from secateur.errors import TrainingError, nearest

LARGEST = 63  # of a weight: of the 8 bits that a weight has it uses 7, as in the files that `export --int8` writes
LEVELS = 255  # of an activation
WEIGHTED = frozenset((torch.conv1d, torch.conv2d, torch.conv3d, functional.linear))
TRANSPOSED = frozenset((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d))
SUMS = frozenset((torch.add, torch.Tensor.add, torch.Tensor.__add__))  # in place, another name may see the sum


class AsINT8:
    """Runs networks with what INT8 would lose, wherever `with as_int8(network):` is around.

    Weights of convolutions and linear layers are rounded by output channel, symmetrically; what these layers read, and
    what is summed by element, by tensor, over the range that it has in this batch. Batch norms after a convolution
    change nothing, as they scale output channels. The products inside of attention stay in float, and so does all of
    `nn.MultiheadAttention`.

    Args:
        keep_float: names of layers that stay in float, with all inside.
    """

    def __init__(self, keep_float: Sequence[str] = ()) -> None:
        self.keep_float = tuple(keep_float)

    def __call__(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return the context in which `network` runs.

        Raises:
            TrainingError: it has no layer of a name in `keep_float`.
        """
        modules = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
        kept = set()
        for layer in self.keep_float:
            found = [module for name, module in modules.items() if f".{name}".endswith(f".{layer}")]
            if not found:
                raise TrainingError(
                    f"{type(network).__name__} has no layer {layer!r} to keep in float.{nearest(layer, modules)}"
                )
            kept.update(id(weight) for module in found for weight in module.parameters())
        return _Rounding(kept)


class _Rounding(TorchFunctionMode):
    """Rounds what some operations read; `kept` are the weights (by `id`) whose layers do not round."""

    def __init__(self, kept: set[int]) -> None:
        super().__init__()
        self.kept = kept

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in WEIGHTED or func in TRANSPOSED:
            kwargs = dict(zip(("input", "weight"), args, strict=False)) | dict(kwargs or {})
            value, weight = kwargs.pop("input"), kwargs.pop("weight")
            if id(weight) not in self.kept:
                value, weight = rounded_activations(value), rounded_weights(weight, int(func in TRANSPOSED))
            args = (value, weight, *args[2:])
        elif func in SUMS and len(args) > 1 and _are_features(*args[:2]):
            args = (*map(rounded_activations, args[:2]), *args[2:])
        return func(*args, **(kwargs or {}))


def rounded_weights(weight: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Return weights as 7 bits hold them: each output channel, along `axis`, over the range of its own."""
    value = weight.float()
    others = [dim for dim in range(value.ndim) if dim != axis]
    scale = value.detach().abs().amax(others).div(LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(value, scale, zero, axis, -LARGEST, LARGEST)


def rounded_activations(value: torch.Tensor) -> torch.Tensor:
    """Return activations as 8 bits hold them, all over one range, which has zero in it."""
    value = value.float()
    least, most = torch.aminmax(value.detach())
    least, most = least.clamp_max(0), most.clamp_min(0)
    scale = ((most - least) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    zero = (-least / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero, 0, LEVELS)


def _are_features(one: Any, other: Any) -> bool:
    return (
        isinstance(one, torch.Tensor)
        and isinstance(other, torch.Tensor)
        and one.shape == other.shape
        and one.ndim > 2
        and one.is_floating_point()
    )
