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
    return saturated(toned, 0.0 if rng.random() < 0.03 * strength else np.exp(rng.normal(0, 0.15 * strength)))


def saturated(colours: np.ndarray, saturation: float) -> np.ndarray:
    """Return a picture (H, W, 3) of uint8 with colours so many times as strong: 0 is grey, 1 as it was."""
    return require("cv2").transform(colours, saturation * np.eye(3) + (1 - saturation) / 3)


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


def hidden_face(colours: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture with a part of the head blurred out of recognition, as some sets and cameras do for privacy.

    Args:
        colours: the person (H, W, 3) of uint8.
        alpha: its matte (H, W) of uint8, whose upper third has the head.
        rng: decides everything.
    """
    cv2 = require("cv2")
    rows = np.flatnonzero((alpha > 127).any(axis=1))
    if len(rows) < 8:
        return colours
    head = slice(rows[0], rows[0] + max(4, len(rows) // 3))
    columns = np.flatnonzero((alpha[head] > 127).any(axis=0))
    wide = min(len(columns), 1.5 * (head.stop - head.start))
    radius = max(2.0, rng.uniform(0.22, 0.42) * wide)
    middle = (float(np.median(columns)) + rng.normal(0, 0.08) * wide, head.start + rng.uniform(0.4, 0.8) * wide)
    share = np.zeros(alpha.shape, np.float32)
    axes = (round(radius), round(1.3 * radius))
    cv2.ellipse(share, (round(middle[0]), round(middle[1])), axes, 0, 0, 360, 1, -1)
    reach = 1.6 * radius
    top, left = (max(0, round(centre - reach)) for centre in reversed(middle))
    bottom, right = (max(0, round(centre + reach)) for centre in reversed(middle))
    part = colours[top:bottom, left:right]
    if not part.size:
        return colours
    shape, cells = (part.shape[1], part.shape[0]), int(rng.integers(2, 5))
    smooth = cv2.resize(cv2.resize(part, (cells, cells), interpolation=cv2.INTER_AREA), shape)
    soft = cv2.blur(share[top:bottom, left:right], (max(1, round(0.2 * radius)),) * 2)[..., None]
    hidden = colours.copy()
    hidden[top:bottom, left:right] = (part * (1 - soft) + smooth * soft).astype(np.uint8)
    return hidden


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
        stored = cv2.imencode(".jpg", cv2.cvtColor(colours, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        colours = cv2.cvtColor(cv2.imdecode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return colours
