"""`folded` and `rewritten`: a model in, a copy for inference out that computes the same function."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.models.rewriting.adjacency import evaluating_copy, foldable, is_plain
from secateur.models.rewriting.folding import fold
from secateur.models.rewriting.half_precision import HalfSafeInstanceNorm2d
from secateur.models.rewriting.registry import HALF_SAFE_REWRITES, REWRITES, Rewrite, register


def rewritten(model: nn.Module, example: Any, half_safe: bool = False) -> nn.Module:
    """Return what `folded` returns, with the modules replaced whose type has a rewrite.

    Args:
        model: the model; untouched.
        example: how it is called: a tensor, a tuple, a dict of keyword arguments, or a list of such calls.
        half_safe: instance norms are computed so that their sums stay in float16's range; slower in float32.

    Raises:
        TraceError: the model cannot be copied, or does not run on the example.

    Example:
        >>> import torch
        >>> rewritten(nn.Sequential(nn.InstanceNorm2d(8), nn.ReLU()), torch.zeros(1, 8, 4, 4), half_safe=True)
        Sequential(
          (0): HalfSafeInstanceNorm2d()
          (1): ReLU()
        )
    """
    return _replaced(folded(model, example), REWRITES | HALF_SAFE_REWRITES if half_safe else REWRITES, {})


def folded(model: nn.Module, example: Any) -> nn.Module:
    """Return a copy of a model for inference, with batch norms folded into the layers that alone feed them.

    It is in evaluation mode and its parameters have no gradients. The norms that `foldable` finds are identities, and
    the layers before them have a bias. It computes the same for calls that take the example's way through the code.

    Args:
        model: the model; untouched.
        example: how it is called: a tensor, a tuple, a dict of keyword arguments, or a list of such calls.

    Raises:
        TraceError: the model cannot be copied, or does not run on the example.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        >>> folded(model, torch.zeros(1, 3, 8, 8))
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
          (2): ReLU()
        )
    """
    pairs = foldable(model, example)
    copy = evaluating_copy(model).requires_grad_(False)
    for layer, norm in pairs:
        fold(copy.get_submodule(layer), copy.get_submodule(norm))
    return copy


def _replaced(module: nn.Module, table: dict[type[nn.Module], Rewrite], done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return the module or what replaces it, and replace what is in it; each once, however many names it has."""
    if module not in done:
        rewrite = table.get(type(module))
        new = rewrite(module) if rewrite and all(map(is_plain, module.modules())) else None
        done[module] = new = new or module
        done[new] = new
        for name, child in new._modules.items():
            new._modules[name] = child and _replaced(child, table, done)
    return done[module]


@register(nn.InstanceNorm2d, HALF_SAFE_REWRITES)
def _half_safe_instance_norm(norm: nn.InstanceNorm2d) -> nn.Module | None:
    return None if norm.track_running_stats else HalfSafeInstanceNorm2d(norm)
