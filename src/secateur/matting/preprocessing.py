"""Pictures as MODNet's authors feed them (Ke et al., arXiv 2011.11961): the size that it sees, and the values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.errors import STEP
from secateur.runtimes.packages import require

SIDE = 512  # pixels of the short side, where a picture is resized
LONGEST = 4096  # pixels of the long side: the authors set no bound, and a line of pixels would take all memory
_AT_ONCE = 2**24  # values; of a larger picture one channel after the other is there as floating point numbers
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
        return video_size(height, width)
    return _floored(height, width)


def video_size(height: int, width: int) -> tuple[int, int]:
    """Return the size in which the network sees the frames of a video: as `network_size`, but 512 whatever their size.

    Example:
        >>> video_size(480, 640)
        (512, 672)
    """
    long = int(max(height, width) / min(height, width) * SIDE)
    return _floored(*((SIDE, long) if width >= height else (long, SIDE)))


def prepared(colours: np.ndarray, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return a picture (H, W, 3) of uint8 as a network's input (3, *size) of float32: `(x / 255 - mean) / std`."""
    values = area_resized(colours, size)
    centre, scale = (np.asarray(given, np.float32).reshape(-1, 1, 1) for given in (mean, std))
    values *= 1 / (255 * scale)
    values -= centre / scale
    return values


def area_resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return pixels resampled by area as float32: (*size) of (H, W), and (channels, *size) of (H, W, channels)."""
    cv2 = require("cv2")
    if pixels.ndim == 3 and pixels.size > _AT_ONCE:
        channels = (cv2.extractChannel(pixels, number) for number in range(pixels.shape[2]))
        return np.stack([area_resized(channel, size) for channel in channels])
    values = cv2.resize(pixels.astype(np.float32, copy=False), (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return values if values.ndim == 2 else np.stack(cv2.split(values))


def _floored(height: int, width: int) -> tuple[int, int]:
    """Return both sides as multiples of `STEP`, the long one of at most `LONGEST`."""
    if max(height, width) > LONGEST:
        scale = LONGEST / max(height, width)
        height, width = round(height * scale), round(width * scale)
    return max(STEP, height - height % STEP), max(STEP, width - width % STEP)
