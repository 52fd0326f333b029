"""How far a matte is from the true one: the field's metrics, over the whole picture and over the boundary alone.

Implementations of these metrics differ in details, so each says what it computes in `Metric.convention`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from secateur.errors import DataError, nearest

RADIUS = 10  # pixels that the boundary band reaches to either side of what is neither 0 nor 1
BAND = f"boundary: pixels with a matte other than 0, or other than 1, at most {RADIUS} rows and columns away"
SIGMA = 1.4  # of Grad's Gaussian, in pixels
STEPS = 10  # levels of Conn
LEAST_BREAK = 0.15  # how far above its connected level a matte must be to count as broken off

ErrorMap = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Score(NamedTuple):
    """A metric over the whole picture, and over the boundary band; NaN where there is no such pixel."""

    whole: float
    boundary: float


@dataclass(frozen=True)
class Metric:
    """An error at every pixel, and how these make one number; the smaller the better.

    Attributes:
        name: as papers write it.
        convention: what is computed, in words.
        errors: from the matte found and the true one, (height, width) in [0, 1] each, to the error at every pixel.
        gathered: from errors, in an array of any shape, to the number.
        of_changes: `errors` takes the changes from one frame to the next instead of mattes.
    """

    name: str
    convention: str
    errors: ErrorMap
    gathered: Callable[[np.ndarray], float]
    of_changes: bool = False

    def score(self, found: np.ndarray, truth: np.ndarray, band: np.ndarray) -> Score:
        """Return the metric over everything, and over the pixels where `band` is true."""
        errors = self.errors(found, truth)
        return Score(self.gathered(errors), self.gathered(errors[band]) if band.any() else math.nan)


def measure(found: np.ndarray, truth: np.ndarray, names: Sequence[str] | None = None) -> dict[str, Score]:
    """Return the metrics of a matte by name; of video see `measure_change`.

    Args:
        found: the matte, (height, width), floats in [0, 1].
        truth: the true one, alike.
        names: of `METRICS`; all if left out. Those of changes are passed over.

    Raises:
        DataError: the mattes are of different sizes, or hold something else than numbers from 0 to 1.

    Example:
        >>> truth = np.zeros((8, 8), np.float32)
        >>> truth[:4] = 1
        >>> measure(truth * 0.5, truth, ["MAD", "SAD"])["MAD"]
        Score(whole=0.25, boundary=0.25)
    """
    for matte in (found, truth):
        _check(matte)
    band = boundary_band(truth)
    return {one.name: one.score(found, truth, band) for one in _chosen(found, truth, names) if not one.of_changes}


def measure_change(
    found: tuple[np.ndarray, np.ndarray], truth: tuple[np.ndarray, np.ndarray], names: Sequence[str] | None = None
) -> dict[str, Score]:
    """Return the metrics of video between two frames: the earlier and the later matte, and the true ones.

    The boundary band is the later frame's. Erofeev et al., "Perceptually Motivated Benchmark for Video Matting", BMVC
    2015.

    Raises:
        DataError: the mattes are of different sizes.
    """
    if any(earlier.shape != later.shape for earlier, later in (found, truth)):
        raise DataError("The frames of a video are of one size, and these differ.")
    change, true_change = (later - earlier for earlier, later in (found, truth))
    band, chosen = boundary_band(truth[1]), _chosen(change, true_change, names)
    return {one.name: one.score(change, true_change, band) for one in chosen if one.of_changes}


def boundary_band(truth: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Return where a true matte, dilated and eroded by a square of 2 `radius` + 1 pixels, is not 0 or 1 in both.

    That is the unknown part of a trimap: everything that is half transparent, and `radius` pixels around it and around
    hard edges.

    Example:
        >>> boundary_band(np.array([[0.0, 0, 0, 1, 1, 1]]), radius=1)
        array([[False, False,  True,  True, False, False]])
    """
    side = 2 * radius + 1
    return (ndimage.maximum_filter(truth, side) > 0) & (ndimage.minimum_filter(truth, side) < 1)


def metrics_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of metrics as papers write them, whatever their case was.

    Raises:
        DataError: there is no such metric; offers the nearest.
    """
    known = {name.lower(): name for name in METRICS}
    for name in names:
        if name.lower() not in known:
            raise DataError(f"There is no metric {name!r}.{nearest(name, METRICS)}")
    return tuple(dict.fromkeys(known[name.lower()] for name in names))


def _chosen(found: np.ndarray, truth: np.ndarray, names: Sequence[str] | None) -> list[Metric]:
    if found.shape != truth.shape:
        sizes = " and ".join("x".join(map(str, one.shape)) for one in (found, truth))
        raise DataError(f"A matte is compared with a true one of its own size, and these are {sizes}. Resize one.")
    return [METRICS[name] for name in (METRICS if names is None else metrics_of(names))]


def _check(matte: np.ndarray) -> None:
    if matte.ndim != 2 or not matte.size or not np.issubdtype(matte.dtype, np.floating):
        raise DataError(f"A matte is (height, width) of floats, not {matte.shape} of {matte.dtype}.")
    low, high = float(matte.min()), float(matte.max())
    if not 0 <= low <= high <= 1:
        raise DataError(f"A matte has values from 0 to 1, and these go from {low:.3g} to {high:.3g}. Scale or clip it.")


def _mean(errors: np.ndarray) -> float:
    return float(errors.mean(dtype=np.float64))


def _thousands(errors: np.ndarray) -> float:
    return float(errors.sum(dtype=np.float64)) / 1000


def _root_mean(errors: np.ndarray) -> float:
    return 100 * math.sqrt(_mean(errors))


def _squared(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.square(found - truth)


def _absolute(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs(found - truth)


def _gradient_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the squared differences of the gradients' magnitudes.

    Rhemann et al., "A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009.
    """
    return np.square(_steepness(found) - _steepness(truth))


def _steepness(matte: np.ndarray) -> np.ndarray:
    """Return the magnitude of the gradient, by derivatives of a Gaussian whose kernels have a Euclidean norm of 1.

    The outermost pixels go on outside of the picture.
    """
    places = np.arange(-_REACH, _REACH + 1)
    gaussian = np.exp(-(places**2) / (2 * SIGMA**2))
    smooth, slope = (kernel / np.linalg.norm(kernel) for kernel in (gaussian, places * gaussian))
    along_y, along_x = (_filtered(_filtered(matte, slope, axis), smooth, 1 - axis) for axis in (0, 1))
    return np.hypot(along_y, along_x)


def _filtered(matte: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    return ndimage.correlate1d(matte, kernel, axis=axis, mode="nearest")


# Beyond this many pixels the Gaussian's density is below a hundredth.
_REACH = math.ceil(SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * SIGMA * 0.01)))


def _connectivity_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the differences of the degrees to which pixels are connected with the person.

    The person is the largest 4-connected part of what both mattes hold at a level. Rhemann et al., as for Grad.
    """
    level = _connected_level(found, truth)
    return np.abs(_degree(found, level) - _degree(truth, level))


def _connected_level(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return for every pixel the highest level up to which it is part of the person at all levels."""
    both = np.minimum(found, truth)
    joined, levels = np.ones(both.shape, bool), np.zeros(both.shape, np.uint8)
    for step in range(1, STEPS + 1):
        joined &= _largest_part(both >= step / STEPS)
        levels += joined
    return levels.astype(both.dtype) / STEPS


def _largest_part(where: np.ndarray) -> np.ndarray:
    labels = np.empty(where.shape, np.int32)
    ndimage.label(where, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (labels == sizes.argmax()) & where


def _degree(matte: np.ndarray, level: np.ndarray) -> np.ndarray:
    above = matte - level
    return 1 - above * (above >= LEAST_BREAK)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("MSE", "mean of the squared differences, mattes in [0, 1]", _squared, _mean),
        Metric("MAD", "mean of the absolute differences, mattes in [0, 1]", _absolute, _mean),
        Metric("SAD", "sum of the absolute differences / 1000", _absolute, _thousands),
        Metric(
            "Grad",
            f"sum of the squared differences of the gradients' magnitudes / 1000, by Gaussian derivatives of sigma "
            f"{SIGMA} in {2 * _REACH + 1} x {2 * _REACH + 1} pixels of norm 1 (Rhemann et al. 2009)",
            _gradient_errors,
            _thousands,
        ),
        Metric(
            "Conn",
            f"sum of the differences in connectedness / 1000, in steps of {1 / STEPS}, 4-connected, from "
            f"{LEAST_BREAK} on (Rhemann et al. 2009)",
            _connectivity_errors,
            _thousands,
        ),
        Metric(
            "dtSSD",
            "100 x root of the mean squared difference of the changes from frame to frame, mean over the frames "
            "(Erofeev et al. 2015)",
            _squared,
            _root_mean,
            of_changes=True,
        ),
    )
}
