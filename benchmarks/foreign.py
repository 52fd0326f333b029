"""A model of torchvision's in a module of ours, which makes torchvision importable in whatever process reads it."""

from __future__ import annotations

import torch
from torch import nn

from tests import torchvision_operators

torchvision_operators.declare()


class Foreign(nn.Module):
    """A classifier of torchvision's by name, with random weights."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model

        self.net = get_model(name, weights=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return self.net(x)
