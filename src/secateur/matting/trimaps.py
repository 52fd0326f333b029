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
