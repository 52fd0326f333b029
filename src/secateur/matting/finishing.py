"""What comes out of a picture and its matte: a cut-out, a mask, a trimap, or the person on another background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from secateur.matting.foregrounds import foreground_of
from secateur.matting.refining import Refinement, resampled, strips
from secateur.matting.trimaps import trimap_of
from secateur.runtimes.packages import require

Kind = Literal["cut-out", "mask", "trimap"]
Background = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (colours, matte) -> (H, W, 3) of uint8
_FRINGE = 8  # pixels beyond the edge that keep their colours: who resizes a cut-out reads them
_BLURRED_AT, _BLUR = 512, 0.03  # pixels of the long side, and the deviation as a share of it


@dataclass(frozen=True)
class Finish:
    """How a picture is finished.

    Attributes:
        kind: "cut-out": RGBA, black where it is far outside; "mask": the matte in grey; "trimap".
        background: what a cut-out is put on; the result is RGB then.
        refinement: brings the matte to full size.
        clean: the colours at soft edges are estimated without the old background.
    """

    kind: Kind = "cut-out"
    background: Background | None = None
    refinement: Refinement = resampled
    clean: bool = False

    @property
    def has_alpha(self) -> bool:
        """Tell whether the result is transparent."""
        return self.kind == "cut-out" and self.background is None

    def __call__(self, colours: np.ndarray, matte: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
        """Return the result (H, W[, 3 or 4]) of uint8.

        Args:
            colours: the picture (H, W, 3) of uint8.
            matte: (h, w) of float32 as the network gave it.
            alpha: the picture's own transparency (H, W) of uint8: what is transparent stays so.
        """
        full = self.refinement(colours, matte)
        if alpha is not None:
            full *= alpha / np.float32(255)
        if self.kind == "mask":
            return in_bytes(full)
        if self.kind == "trimap":
            return trimap_of(full)
        front = foreground_of(colours, full) if self.clean else colours
        return (
            cut_out(front, full) if self.background is None else composite(front, full, self.background(colours, full))
        )


def in_bytes(matte: np.ndarray) -> np.ndarray:
    """Return a matte (H, W) of float32 in [0, 1] as uint8."""
    return require("cv2").convertScaleAbs(matte, alpha=255)


def cut_out(colours: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Return RGBA (H, W, 4) of uint8; a few pixels beyond the edge the old background is gone, not only transparent."""
    cv2 = require("cv2")
    alpha = in_bytes(matte)
    near = cv2.dilate(alpha, np.ones((2 * _FRINGE + 1, 2 * _FRINGE + 1), np.uint8))
    found = cv2.cvtColor(cv2.bitwise_and(colours, colours, mask=near), cv2.COLOR_RGB2RGBA)
    return cv2.insertChannel(alpha, found, 3)


def composite(front: np.ndarray, matte: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return `front` over `back`, each (H, W, 3) of uint8, by a matte (H, W) of float32."""
    cv2 = require("cv2")
    out = np.empty_like(front)
    for rows in strips(matte.shape):
        share = matte[rows]
        out[rows] = cv2.blendLinear(front[rows], np.ascontiguousarray(back[rows]), share, 1 - share)
    return out


def plain(colour: tuple[int, int, int]) -> Background:
    """Return a background of one colour (RGB, 0 to 255)."""
    return lambda colours, _: np.broadcast_to(np.asarray(colour, np.uint8), colours.shape)


def backdrop(picture: np.ndarray) -> Background:
    """Return a background that is a picture (h, w, 3) of uint8, resized to cover all and cut at its middle."""

    @lru_cache(maxsize=2)
    def covering(height: int, width: int) -> np.ndarray:
        cv2 = require("cv2")
        scale = max(height / picture.shape[0], width / picture.shape[1])
        tall, wide = max(height, round(picture.shape[0] * scale)), max(width, round(picture.shape[1] * scale))
        top, left = (tall - height) // 2, (wide - width) // 2
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return cv2.resize(picture, (wide, tall), interpolation=way)[top : top + height, left : left + width]

    return lambda colours, _: covering(*colours.shape[:2])


def blurred(colours: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Return the old background (H, W, 3) of uint8, blurred; the person leaves no shine in it."""
    cv2 = require("cv2")
    height, width = matte.shape
    scale = min(1.0, _BLURRED_AT / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(colours, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    free = 1 - cv2.resize(matte, size, interpolation=cv2.INTER_AREA)
    weight = np.maximum(free**3, 1e-6)  # what is half the person has half of her colours
    # Weighed by what the person leaves free: a plain blur would smear her into it (normalized convolution).
    sums, weights = (cv2.GaussianBlur(one, (0, 0), _BLUR * max(size)) for one in (small * weight[..., None], weight))
    found = (sums / weights[..., None]).clip(0, 255)
    return cv2.resize((found + 0.5).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
