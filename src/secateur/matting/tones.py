"""Light and colour of a picture, changed as another camera, lamp or file would."""

from __future__ import annotations

import numpy as np

from secateur.runtimes.packages import require


def random_tone(colours: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Return a picture (H, W, 3) of uint8 with another gamma, gain, white balance and saturation."""
    gamma = np.exp(rng.normal(0, 0.22 * strength))
    gain = np.exp(rng.normal(0, 0.12 * strength) + rng.normal(0, 0.05 * strength, 3))
    levels = np.arange(256)[:, None] / 255
    table = (255 * (levels**gamma * gain)).clip(0, 255).astype(np.uint8)
    cv2 = require("cv2")
    toned = cv2.LUT(colours, table[None])
    saturation = 0.0 if rng.random() < 0.03 * strength else np.exp(rng.normal(0, 0.15 * strength))
    return cv2.transform(toned, saturation * np.eye(3) + (1 - saturation) / 3)


def matched(colours: np.ndarray, alpha: np.ndarray, around: np.ndarray, strength: float) -> np.ndarray:
    """Return a person's colours with mean and contrast moved towards those of a background.

    By the moments of each channel, as Reinhard et al., "Color transfer between images" (2001), but in RGB.

    Args:
        colours: the person (H, W, 3) of uint8.
        alpha: its matte (H, W) of uint8, which says which pixels count.
        around: the background (H, W, 3) of uint8.
        strength: 0 leaves the person as it is, 1 moves it all the way.
    """
    cv2 = require("cv2")
    person = (alpha > 127).astype(np.uint8)
    if not person.any():
        return colours
    mean, spread = (values[:, 0] for values in cv2.meanStdDev(colours, mask=person))
    there, wide = (values[:, 0] for values in cv2.meanStdDev(around))
    contrast = ((wide + 1) / (spread + 1)).clip(0.6, 1.5) ** strength
    moved = np.arange(256)[:, None] * contrast + mean * (1 - contrast) + strength * (there - mean)
    return cv2.LUT(colours, moved.clip(0, 255).astype(np.uint8)[None])


def random_grain(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture with, at times, a little blur, the noise of a sensor, and the blocks of JPEG; all of it mild."""
    cv2 = require("cv2")
    if rng.random() < 0.15:
        colours = cv2.GaussianBlur(colours, (0, 0), rng.uniform(0.3, 1.0))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 6), colours.shape).astype(np.float32)
        colours = (colours + noise).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = int(rng.integers(55, 96))
        stored = cv2.imencode(".jpg", colours, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        colours = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    return colours
