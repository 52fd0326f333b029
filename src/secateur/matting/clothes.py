"""Other clothes for people in samples: a hundred portraits wear too few for a network to learn what people may wear."""

from __future__ import annotations

import numpy as np

from secateur.runtimes.packages import require

NECK = (0.45, 0.8)  # where clothes begin, as a share of the person from the top: below some faces, at some waists
_FOLDS = 0.06  # of the person's height: what is finer is shading of the cloth, what is coarser its colour


def other_clothes(colours: np.ndarray, alpha: np.ndarray, pattern: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture in which a person wears something else, with its own folds and shadows.

    One of three: another colour, a plain one from black to white, or a pattern.

    Args:
        colours: the person (H, W, 3) of uint8.
        alpha: its matte (H, W) of uint8, which says where the clothes may be.
        pattern: a picture of the same size that may be printed on them.
        rng: decides everything.
    """
    cv2 = require("cv2")
    rows, columns = (np.flatnonzero((alpha > 127).any(axis=axis)) for axis in (1, 0))
    if len(rows) < 8:
        return colours
    height, middle = rows[-1] - rows[0] + 1, columns[0] + rng.uniform(0.4, 0.6) * len(columns)
    below = _neckline(alpha.shape, rows[0], height, middle, rng)
    worn = (below / max(1.0, rng.uniform(0.002, 0.03) * height)).clip(0, 1) * (alpha / np.float32(255))
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY).astype(np.float32) + 8
    folds = (grey / cv2.blur(grey, (max(3, round(_FOLDS * height)),) * 2)).clip(0.3, 2.0)[..., None]
    cloth = (_tinted, _plain, _printed)[rng.choice(3, p=(0.3, 0.35, 0.35))](colours, folds, pattern, rng)
    return (colours + (cloth.clip(0, 255) - colours) * worn[..., None]).astype(np.uint8)


def _neckline(shape: tuple[int, ...], top: int, height: int, middle: float, rng: np.random.Generator) -> np.ndarray:
    """Return how many pixels each one is below a neckline, which goes up towards the shoulders."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    neck = top + rng.uniform(*NECK) * height
    line = neck - rng.uniform(-0.2, 0.8) * np.abs(x - middle)
    return y - np.maximum(line, neck - 0.15 * height)


def _tinted(colours: np.ndarray, _: np.ndarray, __: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return colours * np.exp(rng.normal(0, 0.6) + rng.normal(0, 0.4, 3)).astype(np.float32)


def _plain(_: np.ndarray, folds: np.ndarray, __: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take one colour; black, grey and white as often as others, as in wardrobes."""
    light = 255 * rng.beta(0.6, 0.6)
    return folds * (light + rng.normal(0, rng.choice([4, 60]), 3)).clip(5, 250).astype(np.float32)


def _printed(_: np.ndarray, folds: np.ndarray, pattern: np.ndarray, __: np.random.Generator) -> np.ndarray:
    return folds * pattern
