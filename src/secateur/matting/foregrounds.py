"""The person's own colours, without the light of the old background that shines through soft edges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from secateur.runtimes.packages import quiet, require

TILE, MARGIN = 1024, 64  # pixels
_SOFT = 1 / 512  # less is 0 in 8 bits


def foreground_of(colours: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Return the colours (H, W, 3) of uint8 of what a matte (H, W) of float32 takes out of a picture.

    Where the matte is 1 they are the picture's. Elsewhere the multi-level estimation of Germer et al. (arXiv
    2006.14970) by pymatting, in tiles that overlap, so that memory does not grow with the picture; tiles without a soft
    edge stay as they are.

    Raises:
        RuntimeMissingError: pymatting is not installed.
    """
    soft = (matte > _SOFT) & (matte < 1 - _SOFT)
    found = colours.copy()
    for tile in _tiles(matte.shape):
        if soft[tile].any():
            _estimate(found, colours, matte, tile)
    found[matte >= 1 - _SOFT] = colours[matte >= 1 - _SOFT]
    return found


def _estimate(found: np.ndarray, colours: np.ndarray, matte: np.ndarray, tile: tuple[slice, slice]) -> None:
    wider = tuple(slice(max(0, one.start - MARGIN), one.stop + MARGIN) for one in tile)
    inner = tuple(
        slice(one.start - outer.start, one.stop - outer.start) for one, outer in zip(tile, wider, strict=True)
    )
    with quiet():
        estimated = require("pymatting").estimate_foreground_ml(
            colours[wider].astype(np.float32) / 255, np.ascontiguousarray(matte[wider])
        )
    found[tile] = (estimated[inner] * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            yield slice(top, min(top + TILE, shape[0])), slice(left, min(left + TILE, shape[1]))
