"""Contact sheets: rows of small pictures with a line above each, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.reporting.figures import FAINT, INK, STYLE, check_figure, import_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 320  # pixels that a picture is made small to
HEIGHT = 1.9  # inches of a row of pictures
WARNING = "#D55E00"


@dataclass(frozen=True)
class Tile:
    """A picture of uint8, (height, width) or (height, width, 3), and what is written above it."""

    picture: np.ndarray
    caption: str
    warned: bool = False


def small(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return a picture of uint8 made so small that no side is longer than `side`, every pixel counted."""
    from PIL import Image

    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(one * scale)) for one in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def grey(matte: np.ndarray) -> np.ndarray:
    """Return a matte in [0, 1] as a picture of uint8."""
    return np.rint(np.clip(matte, 0, 1) * 255).astype(np.uint8)


def difference(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return a matte's errors as a picture: white where there is none, red where it is too much, blue too little.

    The colour is that of the square root of the error, so that small ones are seen.
    """
    error = found - truth
    depth = np.sqrt(np.abs(error))
    much, little = np.where(error > 0, depth, 0), np.where(error < 0, depth, 0)
    return grey(np.stack([1 - little, 1 - depth, 1 - much], axis=2))


def on_colour(picture: np.ndarray, matte: np.ndarray, colour: tuple[int, int, int] = (0, 158, 115)) -> np.ndarray:
    """Return a picture of uint8 behind whose matte in [0, 1] there is one colour."""
    alpha = matte[:, :, None]
    return np.rint(picture * alpha + np.array(colour) * (1 - alpha)).astype(np.uint8)


def draw_sheet(rows: Sequence[Sequence[Tile]], title: str, path: str | Path) -> None:
    """Draw rows of tiles into one picture, SVG or PNG by the suffix, whole or not at all.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    check_figure(path)
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    tiles = [tile for row in rows for tile in row]
    shape = max((tile.picture.shape[1] / tile.picture.shape[0] for tile in tiles), default=1.0)
    columns = max(map(len, rows), default=1)
    with matplotlib.rc_context(STYLE):
        size = (columns * HEIGHT * shape + 0.2, len(rows) * (HEIGHT + 0.25) + 0.4)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        figure.suptitle(title, x=0.012, ha="left", fontsize=10, fontweight="bold")
        for row, line in zip(rows, figure.subplots(max(1, len(rows)), columns, squeeze=False), strict=False):
            for tile, axes in zip_longest(row, line):
                _draw(axes, tile)
        save_figure(figure, path, dpi=110)


def _draw(axes: Axes, tile: Tile | None) -> None:
    from matplotlib.patches import Rectangle

    axes.axis("off")
    if tile is None:
        return
    axes.imshow(tile.picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(tile.caption, fontsize=7, color=WARNING if tile.warned else INK, pad=2)
    height, width = tile.picture.shape[:2]
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=FAINT, linewidth=0.4))
