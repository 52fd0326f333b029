"""What a criterion sees of a group, and the table of criteria."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from secateur.calibration.calibrating import Calibration
from secateur.calibration.gradients import laid_along
from secateur.errors import PlanError
from secateur.graph.groups import Graph, Group, Member

REDUCTIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda norms: norms.mean(dim=0),
    "sum": lambda norms: norms.sum(dim=0),
    "max": lambda norms: norms.amax(dim=0),
    "product": lambda norms: norms.prod(dim=0),
    "first": lambda norms: norms[0],
}


@dataclass(frozen=True)
class Evidence:
    """What a criterion sees of one group."""

    graph: Graph
    group: Group
    makers: tuple[Member, ...]  # rows of the weights, biases and norms that make the channels
    producers: tuple[Member, ...]  # those of weights with filters; never empty
    tensors: Mapping[str, torch.Tensor]
    argument: str = ""  # what follows the colon in "lp:3"
    seed: int = 0
    calibration: Calibration | None = None  # what weights read, where data were given
    reduction: str = "mean"  # a key of `REDUCTIONS`

    def filters(self) -> Iterator[torch.Tensor]:
        """Yield, for each producer, its elements unit by unit: float64, (units, elements)."""
        return (self.rows(member) for member in self.producers)

    def reduced(self, norms: Iterable[torch.Tensor]) -> torch.Tensor:
        """Join the numbers that several layers give to the units, one tensor (units,) each, into one."""
        return REDUCTIONS[self.reduction](torch.stack([norm.cpu() for norm in norms]))

    def data(self, name: str) -> Calibration:
        """Return what weights read.

        Raises:
            PlanError: there are no data.
        """
        if self.calibration is None:
            raise PlanError(
                f"The criterion {name!r} looks at data. Give some: prune(..., calibrate=batches), --calibrate DIR."
            )
        return self.calibration

    def rows(self, member: Member) -> torch.Tensor:
        """Return the elements of a member, unit by unit: float64, (units, elements)."""
        tensor = self.tensors[member.tensor].detach()
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        indices = torch.from_numpy(np.ascontiguousarray(member.indices)).to(tensor.device)
        groups = self.graph.tensors[member.tensor].conv_groups
        along = laid_along(tensor, member.axis, groups).index_select(0, indices.reshape(-1))
        return along.reshape(len(indices), -1).to(torch.float64)


Criterion = Callable[[Evidence], torch.Tensor]

CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Join a function to the table of criteria: it gives one number a unit, the larger the more important."""

    def join(function: Criterion) -> Criterion:
        CRITERIA[name] = function
        return function

    return join
