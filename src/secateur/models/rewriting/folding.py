"""`fold`: a batch norm into the layer before it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd


def fold(convolution: nn.Module, norm: nn.Module) -> None:
    """Put a batch norm into the convolution or linear layer before it, in place: the norm becomes an `nn.Identity`.

    Computed in float64, stored in the layer's dtype.

    Example:
        >>> layer, norm = nn.Linear(4, 8), nn.BatchNorm1d(8).eval()
        >>> fold(layer, norm)
        >>> norm
        Identity()
    """
    assert isinstance(norm, _BatchNorm)
    scale, shift = scale_and_shift(norm)
    weight, bias = convolution.weight, convolution.bias
    assert isinstance(weight, torch.Tensor)
    if isinstance(bias, torch.Tensor):
        shift = shift + scale * _exact(bias)
    convolution.weight = _constant(_scaled(_exact(weight), scale, convolution), weight)
    convolution.bias = _constant(shift, weight)
    # Whoever holds the norm, under whatever name or in a list of its own, must hold the identity from now on.
    norm.__class__ = nn.Identity  # pyright: ignore[reportAttributeAccessIssue]
    norm.__dict__ = nn.Identity().eval().__dict__


def scale_and_shift(norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a batch norm with running statistics multiplies by and then adds: (C,) each, float64, on the CPU."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(_exact(norm.running_var) + norm.eps)
    if norm.weight is not None:
        scale = scale * _exact(norm.weight)
    shift = -_exact(norm.running_mean) * scale
    return scale, shift if norm.bias is None else shift + _exact(norm.bias)


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _constant(tensor: torch.Tensor, like: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.to(like), requires_grad=False)


def _scaled(weight: torch.Tensor, scale: torch.Tensor, convolution: nn.Module) -> torch.Tensor:
    """Multiply the weights of each output channel: the first axis, but (in, out / groups, ...) if transposed."""
    kernel = (1,) * (weight.dim() - 2)
    if not isinstance(convolution, _ConvTransposeNd):
        return weight * scale.view(-1, 1, *kernel)
    grouped = weight.unflatten(0, (convolution.groups, -1))
    return (grouped * scale.view(convolution.groups, 1, -1, *kernel)).flatten(0, 1)
