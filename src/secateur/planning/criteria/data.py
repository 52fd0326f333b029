"""Criteria that look at what samples make of a model: what weights read, or the gradients of a loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from secateur.calibration.calibrating import Calibration
from secateur.calibration.gradients import Gradients
from secateur.calibration.moments import Moments, weight_rows
from secateur.errors import PlanError
from secateur.graph.groups import Member
from secateur.planning.brain_surgeon import Reader, surgeon_losses
from secateur.planning.criteria.evidence import Evidence, criterion


@criterion("obs")
def obs(evidence: Evidence) -> torch.Tensor:
    """Return what the removal of each unit adds to the relative error of all that reads it, once the others stand in.

    Structured optimal brain surgeon, see `secateur.planning.brain_surgeon`. A group that no weight reads by itself, as
    queries and keys, is judged by the share of its energy that its filters have.
    """
    calibration = evidence.data("obs")
    key = "obs", evidence.group.name, evidence.group.size
    if key not in calibration.worked_out:
        calibration.worked_out[key] = _surgeon_losses(evidence, calibration)
    return calibration.worked_out[key]


def _surgeon_losses(evidence: Evidence, calibration: Calibration) -> torch.Tensor:
    readers = []
    for member, moments in _readings(evidence, calibration):
        use = calibration.uses[member.tensor, member.axis]
        rows = weight_rows(evidence.tensors[member.tensor].detach(), member.axis, use.blocks)
        readers.append(Reader.of(_indices(member).to(rows.device), rows, moments, use.intercept is not None))
    if readers:
        return surgeon_losses(readers, evidence.group.size)
    energies = evidence.reduced(rows.square().sum(dim=1) for rows in evidence.filters())
    return energies / energies.sum().clamp_min(1e-300)


@criterion("activation")
def activation(evidence: Evidence) -> torch.Tensor:
    """Return the root mean square of what is read of a unit (after Hu et al., "Network Trimming", arXiv 1607.03250)."""
    return _activations(evidence, "activation", centred=False)


@criterion("variance")
def variance(evidence: Evidence) -> torch.Tensor:
    """Return the standard deviation of what is read of a unit: a constant goes into a bias at no loss.

    Variance-based pruning, "VBP", ICCV 2025 (arXiv 2507.12988).
    """
    return _activations(evidence, "variance", centred=True)


@criterion("taylor")
def taylor(evidence: Evidence) -> torch.Tensor:
    """Return the mean square of what a loss would change by without a unit, to the first order.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, arXiv 1906.10771, equation 8: the
    sum of gradient times weight over all that makes the unit, squared, and averaged over batches.
    """
    gradients, makers = _gradients(evidence, "taylor")
    sums = [gradients.first[m.tensor, m.axis][:, _indices(m)].sum(dim=2) for m in makers]
    return torch.stack(sums).sum(dim=0).square().mean(dim=0)


@criterion("fisher")
def fisher(evidence: Evidence) -> torch.Tensor:
    """Return what a loss would grow by without a unit, by the diagonal of its Fisher information.

    Half of the squared gradient times the squared weight, summed over all that makes the unit: LeCun et al., "Optimal
    Brain Damage", NeurIPS 1989, equation 5, with the Hessian as in Theis et al., arXiv 1801.05787. Batches of one
    sample give the Fisher information proper, larger ones an estimate from below.
    """
    gradients, makers = _gradients(evidence, "fisher")
    sums = [gradients.second[m.tensor, m.axis][_indices(m)].sum(dim=1) for m in makers]
    return torch.stack(sums).sum(dim=0) / 2


def _gradients(evidence: Evidence, name: str) -> tuple[Gradients, list[Member]]:
    """Return the gradients, and what makes the units; where nothing is known to, all that belongs to them."""
    found = evidence.data(name).gradients
    if found is None:
        raise PlanError(
            f"The criterion {name!r} looks at gradients. Give a loss beside the data: prune(..., loss=function)."
        )
    for members in (evidence.makers, evidence.group.members):
        makers = [member for member in members if (member.tensor, member.axis) in found.first]
        if makers:
            return found, makers
    raise PlanError(
        f"The criterion {name!r} judges by the gradients of parameters, and channels of {evidence.group.name} have "
        "none. Take another criterion, or leave these layers alone with ignore."
    )


def _indices(member: Member) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(member.indices))


def _activations(evidence: Evidence, name: str, centred: bool) -> torch.Tensor:
    """Return the root of the mean square of each unit, as the weights that read it see it."""
    found = [
        torch.cat(list(moments.second(centred).diagonal(dim1=1, dim2=2)))[_indices(member).to(moments.sums.device)]
        for member, moments in _readings(evidence, evidence.data(name))
    ]
    if not found:
        raise PlanError(
            f"The criterion {name!r} judges by what weights read, and none reads channels of {evidence.group.name} by "
            "itself. Take another criterion, or leave these layers alone with ignore."
        )
    return evidence.reduced(squares.mean(dim=1).clamp_min(0).sqrt() for squares in found)


def _readings(evidence: Evidence, calibration: Calibration) -> Iterator[tuple[Member, Moments]]:
    for member in evidence.group.members:
        moments = calibration.fit.get((member.tensor, member.axis))
        if moments is not None:
            yield member, moments
