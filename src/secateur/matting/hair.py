"""More hair for people in samples: few of a hundred portraits have much, and networks cut off what they never saw."""

from __future__ import annotations

import numpy as np

from secateur.runtimes.packages import require

TALL = 1.05  # a head's height as a multiple of its width, ears or hair and all
_LEAST = 24  # pixels of a head's width that is worth the work
_CURLS = (0.4, 0.12, 0.05)  # sizes of locks, as shares of the head's width


def fuller_hair(
    colours: np.ndarray, alpha: np.ndarray, behind: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture and a matte with more hair around the person's head, of the colour that the top of it has.

    Args:
        colours: the person (H, W, 3) of uint8.
        alpha: its matte (H, W) of uint8, whose highest part is taken for the head; if it is cut off, nothing changes.
        behind: whether `colours` shows what is behind the person, too, and not the person's own colours everywhere.
        rng: decides everything.
    """
    head = _head(alpha)
    if head is None:
        return colours, alpha
    x, top, width = head
    fields = [_noise(alpha.shape, share * width, rng) for share in _CURLS]
    reach = _reach(alpha.shape, x, top, width, rng) + sum(
        0.2 * share * field for share, field in zip(_CURLS, fields, strict=True)
    )
    share = alpha.astype(np.float32) / 255
    added = (0.5 - reach / rng.uniform(0.02, 0.12)).clip(0, 1) * (1 - share)
    strands = np.exp(rng.uniform(0.1, 0.4) * (0.3 * fields[0] + 0.5 * fields[1] + fields[2]))[..., None]
    rows = slice(top, top + round(0.25 * width))
    crown = colours[rows][share[rows] > 0.9]
    if not len(crown):
        return colours, alpha
    hair = (crown.mean(axis=0, dtype=np.float32) * np.float32(np.exp(rng.normal(-0.6, 0.4))) * strands).clip(0, 255)
    weight = added if behind else added / np.maximum(share + added, 1e-3)
    drawn = colours + (hair - colours) * weight[..., None]
    return drawn.astype(np.uint8), ((share + added) * 255 + 0.5).astype(np.uint8)


def _head(alpha: np.ndarray) -> tuple[float, int, float] | None:
    """Return a head's middle column, its first row, and its width in pixels."""
    solid = alpha > 127
    rows = np.flatnonzero(solid.any(axis=1))
    if len(rows) < 2 * _LEAST:
        return None
    top = int(rows[0])
    widest = np.maximum.accumulate(solid[top : rows[-1] + 1].sum(axis=1))
    deep = np.arange(1, len(widest) + 1)
    ends = np.flatnonzero((deep >= TALL * widest) & (widest >= _LEAST))
    if not len(ends) or ends[0] > 0.9 * len(widest):
        return None
    columns = np.flatnonzero(solid[top : top + ends[0] + 1].any(axis=0))
    return float(np.median(columns)), top, float(widest[ends[0]])


def _reach(shape: tuple[int, ...], x: float, top: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Return how far each pixel is outside of the hair's outline, in widths of the head; negative inside."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    longer, wider, higher = rng.uniform(0, 1.2), rng.uniform(0.05, 0.6), rng.uniform(0, 0.3)
    middle = top + (0.5 * TALL + 0.5 * longer - 0.5 * higher) * width
    tall = (0.5 * TALL + 0.5 * longer + 0.5 * higher) * width
    across = (columns - x) / (0.5 * width * (1 + 2 * wider))
    return (np.hypot(across, (rows - middle) / tall) - 1) * (0.5 + wider)


def _noise(shape: tuple[int, ...], cell: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise (H, W) of deviation 1 with bumps of `cell` pixels."""
    cells = [max(2, round(length / max(cell, 2.0))) for length in shape[:2]]
    drawn = rng.standard_normal(cells, dtype=np.float32)
    return require("cv2").resize(drawn, (shape[1], shape[0]), interpolation=require("cv2").INTER_CUBIC)
