"""Optimal brain surgeon on what weights read: which channels can the others not stand in for?

Hassibi and Stork, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon", NeurIPS 1992, for whole
channels of a layer's least-squares problem (Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, section
5; Kurtic et al., "ZipLM", NeurIPS 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.calibration.moments import Moments

RIDGE = 1e-3  # on inputs of unit variance, as a compensation would need
NOISE = 1e-9  # of the mean squares: what varies less is rounding
ROUNDS = 64  # in which all units of a group go, at the least


@dataclass
class Reader:
    """A weight that reads the channels of a group: its products, and the inverse of its inputs'."""

    indices: torch.Tensor  # (units, k): of which inputs each unit is
    gram: torch.Tensor  # (channels, channels): products of the weight's columns, summed over its rows
    inverse: torch.Tensor  # of the inputs' second moments, (channels, channels)
    energy: float  # of what the weight makes of its inputs

    @classmethod
    def of(cls, indices: torch.Tensor, weight: torch.Tensor, moments: Moments, centred: bool) -> Reader:
        """Prepare a weight (blocks, rows, width) whose inputs have such moments; unit `u` is `indices[u]` of them."""
        second = torch.block_diag(*moments.second(centred))
        gram = torch.block_diag(*(weight.double().transpose(1, 2) @ weight.double()))
        whole = torch.block_diag(*moments.second(centred=False))
        least = NOISE * float(whole.diagonal().max()) + 1e-100
        scale = second.diagonal().clamp_min(least).sqrt()
        unit = second / scale[:, None] / scale[None, :]
        unit.diagonal().add_(RIDGE)
        inverse = torch.linalg.inv(unit) / scale[:, None] / scale[None, :]
        return cls(
            indices, gram, inverse, max(float((gram * second).sum()), NOISE * float((gram * whole).sum()) + 1e-100)
        )

    def losses(self) -> torch.Tensor:
        """Return what the removal of each unit adds to the error, relative to the energy."""
        own = self.indices[:, :, None], self.indices[:, None, :]
        gram, inverse = self.gram[own], self.inverse[own]
        if self.indices.shape[1] == 1:
            return (gram / inverse.clamp_min(1e-300))[:, 0, 0] / self.energy
        eye = torch.eye(self.indices.shape[1], dtype=torch.float64, device=gram.device)
        solved = torch.linalg.solve(inverse + 1e-300 * eye, gram)
        return solved.diagonal(dim1=1, dim2=2).sum(dim=1) / self.energy

    def remove(self, units: torch.Tensor) -> None:
        """Take units out, and let the weights of the others make up for them."""
        gone = self.indices[units].ravel()
        column = self.inverse[:, gone]
        pivot = torch.linalg.solve(self.inverse[gone][:, gone], column.T)  # (gone, channels)
        self.inverse -= column @ pivot
        taken = -pivot
        taken[:, gone] = 0
        across = self.gram[:, gone]
        self.gram += across @ taken + taken.T @ across.T + taken.T @ self.gram[gone][:, gone] @ taken
        for matrix, filling in ((self.inverse, 1.0), (self.gram, 0.0)):
            matrix[gone] = 0
            matrix[:, gone] = 0
            matrix[gone, gone] = filling


def surgeon_losses(readers: list[Reader], units: int) -> torch.Tensor:
    """Return, for each unit, what its removal adds to the readers' relative errors when it is its turn: (units,).

    Greedy: the one that adds least goes first, and what the others then mean is brought up to date. The numbers never
    fall from one to the next, so that the order is that of the numbers.
    """
    found = torch.zeros(units, dtype=torch.float64)
    left = torch.ones(units, dtype=torch.bool)
    together = max(1, units // ROUNDS)
    least = 0.0
    while bool(left.any()):
        losses = torch.stack([reader.losses().cpu() for reader in readers]).sum(dim=0).clamp_min(0)
        if not bool(torch.isfinite(losses[left]).all()):
            return torch.full_like(found, torch.nan)
        losses[~left] = torch.inf
        going = losses.argsort(stable=True)[: min(together, int(left.sum()))]
        for unit in going.tolist():
            least = max(float(losses[unit]), least * (1 + 1e-9), 1e-300)
            found[unit] = least
        left[going] = False
        if bool(left.any()):
            for reader in readers:
                reader.remove(going.to(reader.indices.device))
    return found
