"""What a matting network makes of people that it is not trained on, while it is trained: a sheet a validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from secateur.matting.recovering import Matting
from secateur.reporting.sheets import Tile, difference, draw_sheet, grey

SHOWN = 3  # samples of each set


def draw_progress(task: Matting, model: nn.Module, step: int, path: str | Path) -> None:
    """Draw some of the samples that are held out: image, true matte, the network's, and its errors.

    Args:
        task: has the samples.
        model: the network, in evaluation mode.
        step: of its training.
        path: the picture, SVG or PNG by its suffix.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    rows = [
        _row(task, model, samples[number], f"{name} {number}")
        for name, samples in task.validation.items()
        for number in range(min(SHOWN, len(samples)))  # type: ignore[arg-type]
    ]
    draw_sheet(rows, f"Step {step}; errors: red too much, blue too little, square root", path)


def _row(task: Matting, model: nn.Module, sample: dict[str, torch.Tensor], name: str) -> list[Tile]:
    found, truth = task.matte(model, sample["image"])[0].numpy(), sample["matte"][0].numpy()
    image = np.rint(sample["image"].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
    error = float(np.abs(found - truth).mean())
    return [
        Tile(image, name),
        Tile(grey(truth), "true matte"),
        Tile(grey(found), f"MAD {error:.4f}"),
        Tile(difference(found, truth), "errors"),
    ]
