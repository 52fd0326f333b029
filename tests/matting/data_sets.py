"""Small data sets that tests write: a person is a disc, whose matte is the picture's red channel."""

from __future__ import annotations

import numpy as np
from PIL import Image


def disc(size=(48, 64), at=None, seed=0):
    """Return a picture of uint8 and its matte of uint8, opaque in a disc with a soft edge that moves with the seed."""
    height, width = size
    at = at or (0.6, 0.4 + 0.04 * (seed % 6))
    y, x = np.mgrid[:height, :width]
    away = np.hypot(y - at[0] * height, x - at[1] * width)
    matte = np.rint(np.clip((min(size) / 3 - away) / 4 + 0.5, 0, 1) * 255).astype(np.uint8)
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    picture[:, :, 0] = matte
    return picture, matte


def write_set(folder, names, **options):
    """Write portraits into image/ and alpha/, each other than the last."""
    for part in ("image", "alpha"):
        (folder / part).mkdir(parents=True)
    for seed, name in enumerate(names):
        picture, matte = disc(seed=seed, **options)
        Image.fromarray(picture).save(folder / "image" / f"{name}.png")
        Image.fromarray(matte).save(folder / "alpha" / f"{name}.png")
    return folder
