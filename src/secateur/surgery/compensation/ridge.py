"""The kept channels say what the cut ones said: a ridge regression, from moments alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secateur.calibration.moments import Moments

STRENGTHS = (1e-12, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, on inputs of unit variance
DEAD = 1e-12  # a channel with this share of the largest variance says nothing


@dataclass(frozen=True, eq=False)
class Fit:
    """What every channel of the original is made of: `map @ kept + constant`."""

    map: torch.Tensor  # (blocks, channels, kept)
    constant: torch.Tensor  # (blocks, channels)
    how: str  # "none", "mean" or "ridge 0.001"
    error: float  # of what the weight makes of it, on the held-out rows: the mean square
    error_before: float  # the same with nothing made up for


def best_fit(
    fit: Moments,
    held: Moments,
    kept: torch.Tensor,
    weight: torch.Tensor,
    affine: bool,
    strengths: Sequence[float] = STRENGTHS,
) -> Fit:
    """Return the regression of a weight's inputs on the kept ones that serves this weight best on held-out rows.

    Candidates are: nothing, the mean of what is missing (Molchanov et al., arXiv 1611.06440; VBP, ICCV 2025), and
    ridges of several strengths towards the plain selection (GRAIL, arXiv 2602.23795).

    Args:
        fit: moments of rows (blocks, n, channels + kept): the original's inputs, then those that are there now.
        held: those of rows that were not fitted.
        kept: which of the original's channels the latter are, (blocks, kept).
        weight: what reads them, (blocks, rows, channels).
        affine: whether a constant can go somewhere.
        strengths: of the ridges to try.
    """
    channels = weight.shape[2]
    selection = torch.zeros(*weight.shape[::2], kept.shape[1], dtype=torch.float64, device=weight.device)
    selection.scatter_(1, kept[:, None, :], 1.0)
    gram = weight.double().transpose(1, 2) @ weight.double()
    nothing = torch.zeros(weight.shape[0], channels, dtype=torch.float64, device=weight.device)
    candidates = [(selection, nothing, "none")]
    if affine:
        candidates.append((selection, _constant(fit, selection), "mean"))
    for strength in strengths:
        ridge = _ridge(fit, selection, strength, affine)
        if ridge is not None:
            candidates.append((ridge, _constant(fit, ridge) if affine else nothing, f"ridge {strength:g}"))
    errors = [_error(held, gram, linear, constant) for linear, constant, _ in candidates]
    best = min(range(len(errors)), key=errors.__getitem__)
    return Fit(*candidates[best], error=errors[best], error_before=errors[0])


def _constant(moments: Moments, linear: torch.Tensor) -> torch.Tensor:
    channels = linear.shape[1]
    target, inputs = moments.mean[:, :channels], moments.mean[:, channels:]
    return target - (linear @ inputs[:, :, None])[:, :, 0]


def _ridge(moments: Moments, selection: torch.Tensor, strength: float, affine: bool) -> torch.Tensor | None:
    """Return the map nearest to the selection, or None where this is too weak for the rows at hand."""
    channels = selection.shape[1]
    second = moments.second(affine)
    inputs, cross = second[:, channels:, channels:], second[:, :channels, channels:]
    variance = inputs.diagonal(dim1=1, dim2=2)
    dead = variance <= DEAD * variance.amax(dim=1, keepdim=True)
    scale = torch.where(dead, 0.0, variance.clamp_min(1e-300).rsqrt())
    unit = scale[:, :, None] * inputs * scale[:, None, :]
    unit = unit + torch.diag_embed(strength + dead.double())
    factor, info = torch.linalg.cholesky_ex(unit)
    if bool(info.any()):
        return None
    residual = (cross - selection @ inputs) * scale[:, None, :]
    found = torch.cholesky_solve(residual.transpose(1, 2), factor).transpose(1, 2) * scale[:, None, :]
    return selection + found if bool(torch.isfinite(found).all()) else None


def _error(moments: Moments, gram: torch.Tensor, linear: torch.Tensor, constant: torch.Tensor) -> float:
    """Return the mean square of `weight @ (target - linear @ inputs - constant)`, summed over the weight's rows."""
    channels = linear.shape[1]
    second, mean = moments.second(centred=False), moments.mean
    targets, inputs, cross = (
        second[:, :channels, :channels],
        second[:, channels:, channels:],
        second[:, :channels, channels:],
    )
    mapped = linear @ cross.transpose(1, 2)
    square = targets - mapped - mapped.transpose(1, 2) + linear @ inputs @ linear.transpose(1, 2)
    missing = mean[:, :channels] - (linear @ mean[:, channels:, None])[:, :, 0]
    outer = missing[:, :, None] * constant[:, None, :]
    square = square - outer - outer.transpose(1, 2) + constant[:, :, None] * constant[:, None, :]
    return float((gram * square).sum())
