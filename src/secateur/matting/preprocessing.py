"""Pictures as MODNet's authors feed them (Ke et al., arXiv 2011.11961): the size that it sees, and the values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.runtimes.packages import require
from secateur.runtimes.shapes import STEP

SIDE = 512  # pixels of the short side, where a picture is resized
LONGEST = 4096  # pixels of the long side: the authors set no bound, and a line of pixels would take all memory
MEAN = STD = (0.5, 0.5, 0.5)


def network_size(height: int, width: int) -> tuple[int, int]:
    """Return the size in which the network sees a picture.

    A picture that is smaller than 512 on both sides, or larger on both, is resized to a short side of 512, aspect kept;
    any other keeps its size. Then each side is floored to a multiple of 32, at least 32. That is as published; beyond
    it, a long side of more than 4096 is brought to that, aspect kept.

    Example:
        >>> network_size(1080, 1920), network_size(400, 300), network_size(600, 500)
        ((512, 896), (672, 512), (576, 480))
    """
    if max(height, width) < SIDE or min(height, width) > SIDE:
        long = int(max(height, width) / min(height, width) * SIDE)
        height, width = (SIDE, long) if width >= height else (long, SIDE)
    if max(height, width) > LONGEST:
        scale = LONGEST / max(height, width)
        height, width = round(height * scale), round(width * scale)
    return _floored(height), _floored(width)


def prepared(colours: np.ndarray, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return a picture (H, W, 3) of uint8 as a network's input (3, *size) of float32: `(x / 255 - mean) / std`."""
    centre, scale = (np.asarray(values, np.float32).reshape(-1, 1, 1) for values in (mean, std))
    return (area_resized(colours, size) / np.float32(255) - centre) / scale


def area_resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return pixels resampled by area as float32: (*size) of (H, W), and (channels, *size) of (H, W, channels)."""
    cv2 = require("cv2")
    # One channel after the other, so that of a huge picture only one is there as floating point numbers.
    planes = [pixels] if pixels.ndim == 2 else [pixels[:, :, channel] for channel in range(pixels.shape[2])]
    done = [
        cv2.resize(plane.astype(np.float32, order="C"), (size[1], size[0]), interpolation=cv2.INTER_AREA)
        for plane in planes
    ]
    return done[0] if pixels.ndim == 2 else np.stack(done)


def _floored(side: int) -> int:
    return max(STEP, side - side % STEP)
