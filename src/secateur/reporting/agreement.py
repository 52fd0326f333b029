"""The picture of a simulated inference: what the masked model puts out, what the cut one does, and the difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from secateur.errors import ArtifactError
from secateur.reporting.figures import FAINT, STYLE, check_figure, import_matplotlib, save_figure

SIDE = 2.1  # inches of a picture
_TITLES = ("simulated: channels silenced", "cut: channels gone", "difference, white at its largest")


def draw_agreement(
    simulated: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], path: str | Path
) -> dict[str, float]:
    """Draw outputs side by side, a row for each, and return the largest difference of each by name.

    Args:
        simulated: outputs of `secateur.mask(model, plan)` that are pictures, by name: (N, C, H, W), the first of the
            batch is drawn; one channel in grey, three in colour, of others the mean.
        found: the cut model's, by the same names.
        path: the picture, SVG or PNG by its suffix.

    Raises:
        ArtifactError: the file cannot be written, or the outputs are not of the same names and shapes.
        RuntimeMissingError: matplotlib is not installed.
    """
    check_figure(path)
    pairs = {name: (_first(one, name), _first(found.get(name), name)) for name, one in simulated.items()}
    for name, (one, other) in pairs.items():
        if one.shape != other.shape:
            raise ArtifactError(f"{name} is {one.shape} simulated and {other.shape} cut. Pass outputs of one model.")
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    largest = {name: float(np.abs(one - other).max()) for name, (one, other) in pairs.items()}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3 * SIDE + 0.6, len(pairs) * (SIDE + 0.15) + 0.3), layout="constrained")
        rows = figure.subplots(len(pairs), 3, squeeze=False)
        for row, (name, (one, other)) in zip(rows, pairs.items(), strict=True):
            low, high = float(one.min()), float(one.max())
            scale = high - low or 1.0
            for axes, image in zip(row, ((one - low) / scale, (other - low) / scale), strict=False):
                axes.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1)
            row[2].imshow(_grey(np.abs(one - other)) / (largest[name] or 1.0), cmap="gray", vmin=0, vmax=1)
            row[0].set_ylabel(f"{name}\n{low:.3g} to {high:.3g}")
            row[2].set_xlabel(f"at most {largest[name]:.1e}", color=FAINT)
            for axes in row:
                axes.set(xticks=[], yticks=[])
        for axes, title in zip(rows[0], _TITLES, strict=True):
            axes.set_title(title)
        save_figure(figure, path, dpi=110)
    return largest


def _first(output: torch.Tensor | None, name: str) -> np.ndarray:
    """Return the first of a batch as (H, W) or (H, W, 3)."""
    if output is None or output.ndim != 4:
        what = "missing" if output is None else f"of shape {tuple(output.shape)}"
        raise ArtifactError(f"{name} is {what}, and pictures (N, C, H, W) are wanted. Leave it out.")
    image = output[0].detach().cpu().double().movedim(0, -1).numpy()
    return image if image.shape[2] == 3 else image.mean(axis=2)


def _grey(image: np.ndarray) -> np.ndarray:
    return image.max(axis=2) if image.ndim == 3 else image
