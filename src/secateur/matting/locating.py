"""Train only the part of a matting network that tells where people are, in less time than all of it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from secateur.errors import TrainingError
from secateur.matting.compositing import Sample
from secateur.matting.losses import coarse, semantic_entropy
from secateur.matting.recovering import normalized


class Locator(nn.Module):
    """A network with a branch as MODNet's of low resolution, up to the semantic map (N, 1, H/16, W/16).

    Its modules are those of the network: training it trains them.

    Raises:
        TrainingError: there is no such branch.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        branch = getattr(network, "lr_branch", None)
        if not isinstance(branch, nn.Module):
            raise TrainingError(
                f"{type(network).__name__} has no lr_branch, which makes a semantic map in MODNet. Train all of it: "
                "leave --only-semantic out."
            )
        self.lr_branch = branch

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """Return the semantic map of images (N, 3, H, W)."""
        return self.lr_branch(img, False)[0]


@dataclass(frozen=True)
class Locating:
    """What a `Locator` is trained to do (`secateur.training.fitting.Task`).

    The loss is `semantic_entropy`.

    Attributes:
        mean, std: an image with values in [0, 1] becomes an input by `(image - mean) / std`.
        validation: samples of people that are not trained on; all of them are looked at.
    """

    mean: Sequence[float]
    std: Sequence[float]
    validation: Mapping[str, Dataset[Sample]] = field(default_factory=dict)

    def losses(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the loss of a batch of samples."""
        found = model(normalized(batch["image"], self.mean, self.std))
        return {"semantic": semantic_entropy(found, batch["matte"])}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean absolute difference of the semantic maps: on all sets together, then on each."""
        found = {f"semantic_mad_{name}": self._error(model, samples) for name, samples in self.validation.items()}
        return {"semantic_mad": sum(found.values()) / len(found), **found} if found else {}

    def _error(self, model: nn.Module, samples: Any) -> float:
        device = next(model.parameters()).device
        errors = []
        for number in range(len(samples)):
            sample = samples[number]
            semantic = model(normalized(sample["image"][None].to(device), self.mean, self.std)).float().cpu()
            truth = coarse(sample["matte"][None], semantic.shape[-2:])
            errors.append(float((semantic - truth).abs().mean()))
        return sum(errors) / len(errors)
