"""Weights of a classifier for the backbone of another model of the zoo, whose pictures are prepared differently."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.errors import ArtifactError
from secateur.models.checkpoints import load_checkpoint
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.models.registry import ZOO, entry_of


def load_backbone(model: nn.Module, path: str | Path) -> None:
    """Fill the MobileNetV2 inside a model of the zoo with a classifier's weights, as torchvision publishes them.

    The classifier saw `(picture - mean) / std` of ImageNet. The first convolution and its norm are changed so that the
    backbone computes the same of pictures as this model takes them (but for the outermost pixels, where it pads).

    Raises:
        ArtifactError: the model has no such backbone, or the file is not of one.
    """
    entry = entry_of(model)
    backbone = next((part for part in model.modules() if isinstance(part, MobileNetV2)), None)
    if entry is None or backbone is None or backbone is model:
        raise ArtifactError(f"{type(model).__name__} has no MobileNetV2 inside. --backbone is for modnet.")
    report = load_checkpoint(backbone, path, strict=False)
    if report.missing or report.mismatched:
        lacking = [*report.missing, *map(str, report.mismatched)]
        raise ArtifactError(f"{path} is no MobileNetV2 as torchvision's: {lacking[0]}. Give mobilenet_v2's weights.")
    classifier = ZOO["mobilenetv2"]
    _see_otherwise(backbone, (classifier.mean, classifier.std), (entry.mean, entry.std))


@torch.no_grad()
def _see_otherwise(
    backbone: MobileNetV2, was: tuple[Sequence[float], Sequence[float]], now: tuple[Sequence[float], Sequence[float]]
) -> None:
    """Let the first layer compute of `(x - now) / std` what it did of `(x - was) / std`."""
    first: Any = backbone.features[0]
    convolution, norm = first[0], first[1]
    weight = convolution.weight
    (mean, std), (mean_now, std_now) = ([weight.new_tensor(list(one)) for one in pair] for pair in (was, now))
    constant = torch.einsum("oikl,i->o", weight, (mean_now - mean) / std)
    weight *= (std_now / std).view(1, -1, 1, 1)
    norm.running_mean -= constant
