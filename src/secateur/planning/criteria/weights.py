"""Criteria that look at weights alone."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch

from secateur.errors import PlanError
from secateur.planning.criteria.evidence import Evidence, criterion


@criterion("l1")
def l1(evidence: Evidence) -> torch.Tensor:
    """Return the mean L1 norm of a unit's filters (Li et al., 2017, arXiv 1608.08710)."""
    return evidence.reduced(rows.abs().sum(dim=1) for rows in evidence.filters())


@criterion("l2")
def l2(evidence: Evidence) -> torch.Tensor:
    """Return the mean L2 norm of a unit's filters."""
    return evidence.reduced(torch.linalg.vector_norm(rows, dim=1) for rows in evidence.filters())


@criterion("lp")
def lp(evidence: Evidence) -> torch.Tensor:
    """Return the mean p-norm of a unit's filters; written `"lp:3"`."""
    power = power_of(evidence.argument)
    return evidence.reduced(_norm(rows, power) for rows in evidence.filters())


def _norm(rows: torch.Tensor, power: float) -> torch.Tensor:
    """Return the p-norms of rows, (rows,), also where the powers of their elements are too small for floats."""
    largest = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    return torch.linalg.vector_norm(rows / largest, ord=power, dim=1) * largest[:, 0]


@criterion("random")
def random(evidence: Evidence) -> torch.Tensor:
    """Return random numbers, the same for the same seed and group: the baseline that a criterion has to beat."""
    generator = np.random.default_rng([evidence.seed, zlib.crc32(evidence.group.name.encode())])
    return torch.from_numpy(generator.random(evidence.group.size))


@criterion("uniform")
def uniform(evidence: Evidence) -> torch.Tensor:
    """Return the same for every unit: to try out widths, where it does not matter which channels go."""
    return torch.ones(evidence.group.size, dtype=torch.float64, device="cpu")


@criterion("fpgm")
def fpgm(evidence: Evidence) -> torch.Tensor:
    """Return the sum of a filter's distances to all others of its layer: the nearest to the middle can be replaced.

    He et al., "Filter Pruning via Geometric Median", CVPR 2019, arXiv 1811.00250, equation 6.
    """
    return evidence.reduced(torch.cdist(rows, rows).sum(dim=1) for rows in evidence.filters())


@criterion("bn_scale")
def bn_scale(evidence: Evidence) -> torch.Tensor:
    """Return the mean absolute scale of the norms that a unit goes through.

    Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, arXiv 1708.06519.
    """
    norms = {term.layer for term in evidence.graph.costs.terms if term.what == "params" and term.op == "norm"}
    scales = [m for m in evidence.group.members if m.layer in norms and m.tensor.rpartition(".")[2] == "weight"]
    if not scales:
        raise PlanError(
            f"The criterion 'bn_scale' judges by the scales of norms, and channels of {evidence.group.name} go through "
            "none. Take another criterion, or leave these layers alone with ignore."
        )
    return evidence.reduced(evidence.rows(member).abs().mean(dim=1) for member in scales)


@criterion("lamp")
def lamp(evidence: Evidence) -> torch.Tensor:
    """Return each filter's squared norm over the sum of those that are no smaller.

    These compare between layers as they are: for the paper's one threshold say `ranking="global", normalizer="none"`.

    Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, arXiv 2010.07611, equation 4, with
    a unit's filters in the place of a weight.
    """
    squares = evidence.reduced(rows.square().sum(dim=1) for rows in evidence.filters())
    order = squares.argsort(stable=True)
    remaining = squares[order].flip(0).cumsum(0).flip(0)
    found = torch.empty_like(squares)
    found[order] = squares[order] / remaining.clamp_min(1e-300)
    return found


def power_of(argument: str) -> float:
    """Return the power of a norm, as it stands after the colon.

    Raises:
        PlanError: it is no number above 0.
    """
    try:
        power = float(argument)
    except ValueError:
        power = math.nan
    if not 0 < power < math.inf:
        raise PlanError(f'The criterion "lp:{argument}" needs a power above 0. Write, for instance, criterion="lp:3".')
    return power
