"""What a model's mattes are worth on portraits or clips with true ones, and how two models differ on the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.errors import DataError
from secateur.matting.layouts import Clip, Portrait
from secateur.matting.metrics import METRICS, Score, measure, measure_change
from secateur.matting.pictures import read_pair
from secateur.measurement.statistics import Comparison, compare_means

Matter = Callable[[np.ndarray], np.ndarray]  # from RGB of uint8 (height, width, 3) to a matte of float32 in [0, 1]


@dataclass(frozen=True)
class Judged:
    """A portrait, or a clip, whose scores are the means over its frames.

    Attributes:
        name: the portrait's or the clip's.
        scores: by metric.
        shown: the portrait; of a clip the frame that is farthest off.
    """

    name: str
    scores: Mapping[str, Score]
    shown: Portrait


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on all portraits and clips of a set, in the order in which they were given."""

    judged: tuple[Judged, ...]

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of all, (portraits, 2): over the whole picture and over the boundary; NaN if it has none."""
        return np.array([one.scores[metric] for one in self.judged], float)

    @property
    def means(self) -> dict[str, Score]:
        """The mean of each metric, a clip counted as one."""
        return _means([one.scores for one in self.judged])


def evaluate(
    matte_of: Matter,
    subjects: Sequence[Portrait | Clip],
    metrics: Sequence[str] | None = None,
    tell: Callable[[str], object] = len,
) -> Evaluation:
    """Return what a model's mattes are worth on portraits or clips.

    Args:
        matte_of: from a picture to its matte, of the same size.
        subjects: what `find_portraits` or `find_clips` gave.
        metrics: names of `metrics.METRICS`; all if left out.
        tell: is called with the name of each portrait and frame once it is done.

    Raises:
        DataError: a picture is broken, or not of its matte's size; a foreground has no picture; a clip's frames are of
            several sizes; or what the model gave is no matte.

    Example:
        >>> evaluation = evaluate(predictor, find_portraits("PPM-100"))  # doctest: +SKIP
        >>> evaluation.means["MAD"].whole  # doctest: +SKIP
        0.0086
    """
    names = list(METRICS) if metrics is None else list(metrics)
    return Evaluation(tuple(_judged(matte_of, one, names, tell) for one in subjects))


def compare(first: Evaluation, other: Evaluation, metric: str = "MAD") -> tuple[Comparison | None, Comparison | None]:
    """Return how two models differ in a metric's mean over the same portraits: over everything, and on the boundary.

    None where no portrait has a boundary, or no clip a second frame.
    """
    pairs = zip(first.values(metric).T, other.values(metric).T, strict=True)
    whole, boundary = (_compared(one, two) for one, two in pairs)
    return whole, boundary


def worst(evaluations: Sequence[Evaluation], metric: str = "MAD", most: int = 10) -> list[int]:
    """Return the places of the portraits on which the worst of the models is farthest off, the farthest first."""
    values = np.nan_to_num(np.max([one.values(metric)[:, 0] for one in evaluations], axis=0), nan=-1.0)
    return [int(place) for place in np.argsort(-values, kind="stable")[:most]]


def read_truth(portrait: Portrait) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture as RGB of uint8 and its true matte as float32 in [0, 1].

    Raises:
        DataError: one is broken or missing, or they are of different sizes.
    """
    if portrait.image is None:
        raise DataError(f"{portrait.foreground} is a foreground without a picture. Put it on a background first.")
    picture, alpha = read_pair(portrait)
    return picture, alpha.astype(np.float32) / 255


def _judged(matte_of: Matter, subject: Portrait | Clip, names: Sequence[str], tell: Callable[[str], object]) -> Judged:
    frames = subject.frames if isinstance(subject, Clip) else (subject,)
    scores: list[dict[str, Score]] = []
    changes: list[dict[str, Score]] = []
    errors: list[float] = []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for frame in frames:
        picture, truth = read_truth(frame)
        if before is not None and before[1].shape != truth.shape:
            raise DataError(f"{frame.image} is of another size than the frames before it, so these are no clip.")
        found = _checked(matte_of(picture), truth, frame)
        scores.append(measure(found, truth, names))
        errors.append(float(np.abs(found - truth).mean()))
        if before is not None:
            changes.append(measure_change((before[0], found), (before[1], truth), names))
        before = found, truth
        tell(frame.name)
    means = {name: Score(math.nan, math.nan) for name in names} | _means(scores) | _means(changes)
    return Judged(subject.name, means, frames[int(np.argmax(errors))])


def _checked(found: np.ndarray, truth: np.ndarray, frame: Portrait) -> np.ndarray:
    if found.shape != truth.shape:
        shape = "x".join(map(str, found.shape))
        raise DataError(f"The model's matte of {frame.image} is {shape}, not of the picture's size.")
    if not np.isfinite(found).all():
        raise DataError(f"The model's matte of {frame.image} has values that are no numbers. Check its weights.")
    return found


def _means(scores: Iterable[Mapping[str, Score]]) -> dict[str, Score]:
    rows = list(scores)
    return {
        name: Score(*(_mean(column) for column in zip(*(row[name] for row in rows), strict=True)))
        for name in (rows[0] if rows else ())
    }


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _compared(first: np.ndarray, other: np.ndarray) -> Comparison | None:
    known = ~(np.isnan(first) | np.isnan(other))
    return compare_means(first[known].tolist(), other[known].tolist()) if known.any() else None
