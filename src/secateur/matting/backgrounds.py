"""What a person is put in front of: crops of pictures, sharp or out of focus, plain walls, gradients, and clutter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from secateur.matting.pictures import read_rgb
from secateur.runtimes.packages import require

# How often each kind is drawn, where there are pictures; without, the others share all.
PICTURE, PLAIN, GRADIENT, CLUTTER = "picture", "plain", "gradient", "clutter"
SHARES: Mapping[str, float] = {PICTURE: 0.8, PLAIN: 0.06, GRADIENT: 0.07, CLUTTER: 0.07}
OUT_OF_FOCUS = 0.35  # share of the pictures; portraits are often taken with an open aperture


def random_background(pictures: Sequence[Path], size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a background (size, size, 3) of uint8.

    Args:
        pictures: files to take crops of; there may be none.
        size: pixels of each side.
        rng: decides everything.

    Raises:
        DataError: a picture is broken.
    """
    kinds = {kind: share for kind, share in SHARES.items() if pictures or kind != PICTURE}
    weights = np.array(list(kinds.values()))
    kind = rng.choice(list(kinds), p=weights / weights.sum())
    if kind == PICTURE:
        return _out_of_focus(random_crop(read_rgb(pictures[int(rng.integers(len(pictures)))]), size, rng), rng)
    return _MADE[kind](size, rng)


def random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a square of a picture, at least two fifths of its short side, resized, and mirrored at times."""
    cv2 = require("cv2")
    short = min(picture.shape[:2])
    side = max(1, round(short * rng.uniform(0.4, 1)))
    top, left = (rng.integers(length - side + 1) for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side]
    square = square[:, ::-1] if rng.random() < 0.5 else square
    way = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=way)


def _out_of_focus(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() >= OUT_OF_FOCUS:
        return picture
    return require("cv2").GaussianBlur(picture, (0, 0), rng.uniform(0.004, 0.025) * len(picture))


def _plain(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.full((size, size, 3), _colour(rng), np.uint8)


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    """Blend two colours along a line, or from a point outwards as a lamp does on a wall."""
    across, down = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        way = (across * np.cos(angle) + down * np.sin(angle)) / 2 + 0.5
    else:
        x, y = rng.uniform(-1, 1, 2)
        way = np.hypot(across - x, down - y) / 2
    share = way.clip(0, 1)[..., None]
    return (_colour(rng) * share + _colour(rng) * (1 - share)).astype(np.uint8)


def _clutter(size: int, rng: np.random.Generator) -> np.ndarray:
    """Add up smooth noise of several scales, and draw shapes with hard edges over it."""
    cv2 = require("cv2")
    base = np.zeros((size, size, 3), np.float32) + _colour(rng)
    for cells in (3, 8, 24):
        noise = rng.normal(0, rng.uniform(5, 40), (cells, cells, 3)).astype(np.float32)
        base += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    drawn = base.clip(0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 12)):
        colour = tuple(int(value) for value in _colour(rng))
        first, second = (tuple(int(value) for value in rng.integers(0, size, 2)) for _ in range(2))
        if rng.random() < 0.5:
            cv2.line(drawn, first, second, colour, int(rng.integers(1, max(2, size // 20))), cv2.LINE_AA)
        else:
            cv2.rectangle(drawn, first, second, colour, -1)
    return drawn


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Draw a colour; most walls are pale."""
    grey, tint = rng.uniform(20, 250), rng.normal(0, 25, 3)
    return (grey + tint).clip(0, 255).astype(np.float32)


_MADE: Mapping[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    PLAIN: _plain,
    GRADIENT: _gradient,
    CLUTTER: _clutter,
}
