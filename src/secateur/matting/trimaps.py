"""Trimaps: what is surely the person (255), surely not (0), and open (128)."""

from __future__ import annotations

import numpy as np

from secateur.runtimes.packages import require

FOREGROUND, UNKNOWN, BACKGROUND = 255, 128, 0
SURE = 0.05  # how near to 0 or 1 a matte says that it is sure


def trimap_of(matte: np.ndarray, width: int | None = None) -> np.ndarray:
    """Return the trimap (H, W) of uint8 of a matte (H, W) of float32 in [0, 1].

    What the matte is sure of shrinks by `width` pixels on either side of the edge, by default a hundredth of the short
    side.
    """
    cv2 = require("cv2")
    reach = max(1, round(min(matte.shape) / 100)) if width is None else width
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)

    def shrunk(sure: np.ndarray) -> np.ndarray:
        return cv2.erode(sure.astype(np.uint8), kernel, borderType=cv2.BORDER_REPLICATE).astype(bool)

    trimap = np.full(matte.shape, UNKNOWN, np.uint8)
    trimap[shrunk(matte >= 1 - SURE)] = FOREGROUND
    trimap[shrunk(matte <= SURE)] = BACKGROUND
    return trimap


def random_trimap(matte: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a trimap (H, W) of float32 for training, 0, 1/2 or 1: its band is wider now, and then narrower.

    The matte (H, W) of float32 is shrunk and grown by up to a fortieth of the short side each.
    """
    cv2 = require("cv2")
    most = max(2, min(matte.shape) // 40)
    inner, outer = (
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, [2 * int(rng.integers(1, most + 1)) + 1] * 2) for _ in range(2)
    )
    trimap = np.full(matte.shape, 0.5, np.float32)
    trimap[cv2.erode((matte >= 1 - SURE).astype(np.uint8), inner, borderType=cv2.BORDER_REPLICATE) > 0] = 1
    trimap[cv2.dilate((matte > SURE).astype(np.uint8), outer, borderType=cv2.BORDER_REPLICATE) == 0] = 0
    return trimap
