"""Mattes at full size that follow the picture's own edges, from mattes at the network's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from secateur.errors import DataError
from secateur.matting.preprocessing import area_resized
from secateur.matting.trimaps import BACKGROUND, FOREGROUND, UNKNOWN, trimap_of
from secateur.runtimes.packages import quiet, require

RADIUS, EPSILON = 1, 1e-5  # pixels of the matte, whose own size is small already; of a variance in [0, 1]
MOST_SOLVED = 4_000_000  # pixels; closed form takes about a kilobyte for each
STRIP = 2**20  # pixels that are worked on at once where nothing holds a whole picture

Refinement = Callable[[np.ndarray, np.ndarray], np.ndarray]


def resampled(colours: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Return a matte (h, w) of float32 at the size of a picture (H, W, 3) of uint8.

    Made smaller by area, as published. Made larger by cubics: area, as published, repeats values, and is further off at
    soft edges.
    """
    height, width = colours.shape[:2]
    if height < matte.shape[0] or width < matte.shape[1]:
        return area_resized(matte, (height, width))
    cv2 = require("cv2")
    larger = cv2.resize(matte, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(larger, 0, 1, out=larger)


def guided(colours: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Return a matte (h, w) of float32 at the size of a picture (H, W, 3) of uint8, edges where the picture has them.

    The guided filter of He, Sun and Tang (IEEE TPAMI 35, 2013) with colour as its guide: around each pixel the matte is
    taken for a linear function of the colours, found at the matte's size and applied at the picture's (He and Sun, Fast
    Guided Filter, arXiv 1505.00996).
    """
    guide = np.moveaxis(area_resized(colours, matte.shape) / np.float32(255), 0, 2)
    slopes, offset = _linear_model(guide, matte)
    return _applied(np.dstack((slopes, offset)), colours).clip(0, 1)


def closed_form(colours: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Return a matte (h, w) of float32 at the size of a picture (H, W, 3) of uint8, solved anew along its edge.

    Closed-form matting (Levin, Lischinski and Weiss, IEEE TPAMI 30, 2008) by pymatting, on the trimap of the matte. A
    picture of more than `MOST_SOLVED` pixels is solved at that size and brought to its own by the guided filter.

    Raises:
        DataError: there is no solution, which an edge without contrast may cause.
        RuntimeMissingError: pymatting is not installed.
    """
    height, width = colours.shape[:2]
    if height * width > MOST_SOLVED:
        scale = (MOST_SOLVED / (height * width)) ** 0.5
        size = max(1, round(height * scale)), max(1, round(width * scale))
        smaller = np.moveaxis(area_resized(colours, size), 0, 2)
        return guided(colours, _solved(smaller, area_resized(matte, size)))
    return _solved(colours, resampled(colours, matte))


REFINEMENTS: dict[str, Refinement] = {"guided": guided, "closed-form": closed_form}


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of a picture in parts of about `STRIP` pixels."""
    rows = max(1, STRIP // shape[1])
    return (slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows))


def _linear_model(guide: np.ndarray, matte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, averaged over windows, the slopes (h, w, 3) and offset (h, w) of the matte in the guide's colours."""
    red, green, blue = np.moveaxis(guide, 2, 0)
    mean, mean_matte = _mean(guide), _mean(matte)
    products = np.dstack((red * red, red * green, red * blue, green * green, green * blue, blue * blue))
    # cv2 filters four channels at most at once.
    rr, rg, rb, gg, gb, bb = np.moveaxis(np.dstack((_mean(products[..., :3]), _mean(products[..., 3:]))), 2, 0)
    r, g, b = np.moveaxis(mean, 2, 0)
    rows = (
        np.dstack((rr - r * r + EPSILON, rg - r * g, rb - r * b)),
        np.dstack((rg - r * g, gg - g * g + EPSILON, gb - g * b)),
        np.dstack((rb - r * b, gb - g * b, bb - b * b + EPSILON)),
    )
    together = _mean(guide * matte[..., None]) - mean * mean_matte[..., None]
    # The inverse of a symmetric matrix by its cofactors.
    cofactors = np.cross(rows[1], rows[2]), np.cross(rows[2], rows[0]), np.cross(rows[0], rows[1])
    determinant = (rows[0] * cofactors[0]).sum(2)
    slopes = np.dstack([(together * one).sum(2) for one in cofactors]) / determinant[..., None]
    offset = mean_matte - (slopes * mean).sum(2)
    return _mean(slopes), _mean(offset)


def _mean(values: np.ndarray) -> np.ndarray:
    cv2 = require("cv2")
    side = 2 * RADIUS + 1
    return cv2.boxFilter(values.astype(np.float32, order="C"), -1, (side, side), borderType=cv2.BORDER_REFLECT)


def _applied(model: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return the model (h, w, 4), brought to full size bilinearly, of the colours (H, W, 3)."""
    cv2 = require("cv2")
    height, width = colours.shape[:2]
    wide = cv2.resize(model, (width, len(model)), interpolation=cv2.INTER_LINEAR)
    places = ((np.arange(height, dtype=np.float32) + 0.5) * len(model) / height - 0.5).clip(0, len(model) - 1)
    above = places.astype(int)
    below, share = np.minimum(above + 1, len(model) - 1), (places - above)[:, None, None]
    matte = np.empty((height, width), np.float32)
    for rows in strips(matte.shape):
        part = wide[above[rows]] * (1 - share[rows]) + wide[below[rows]] * share[rows]
        matte[rows] = (part[..., :3] * colours[rows]).sum(2) / 255 + part[..., 3]
    return matte


def _solved(colours: np.ndarray, matte: np.ndarray) -> np.ndarray:
    trimap = trimap_of(matte)
    if not all((trimap == one).any() for one in (FOREGROUND, UNKNOWN, BACKGROUND)):
        return matte  # nothing is open, or nothing is sure
    with quiet():
        library = require("pymatting")
        try:
            found = library.estimate_alpha_cf(
                np.ascontiguousarray(colours, np.float64) / 255,
                np.where(trimap == UNKNOWN, 0.5, trimap / 255.0),
            )
        except ValueError as error:
            raise DataError(f"Closed form finds no matte: {error}. Take the guided filter.") from error
    return found.astype(np.float32).clip(0, 1)
