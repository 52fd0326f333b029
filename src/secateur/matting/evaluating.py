"""What a model's mattes are worth on portraits or clips with true ones, and how two models differ on the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.errors import DataError, RuntimeUnfitError
from secateur.matting.layouts import Clip, Portrait
from secateur.matting.metrics import METRICS, Score, measure, measure_change
from secateur.matting.pictures import read_alpha, read_rgb
from secateur.measurement.statistics import Comparison, compare_means
from secateur.runtimes.packages import require

SIDE, STEP = 512, 32  # the published pre-processing's: of the short side, and of both
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


def read_pair(portrait: Portrait) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture as RGB of uint8 and its true matte as float32 in [0, 1].

    Raises:
        DataError: one is broken or missing, or they are of different sizes.
    """
    if portrait.image is None:
        raise DataError(f"{portrait.foreground} is a foreground without a picture. Put it on a background first.")
    picture, alpha = read_rgb(portrait.image), read_alpha(portrait.alpha)
    if picture.shape[:2] != alpha.shape:
        sizes = [f"{path} is {one.shape[1]}x{one.shape[0]}" for path, one in zip(
            (portrait.image, portrait.alpha), (picture, alpha), strict=True)]  # fmt: skip
        raise DataError(f"{' and '.join(sizes)}; a matte is of its picture's size. `secateur data check` lists all.")
    return picture, alpha.astype(np.float32) / 255


def matte_of(
    run: Callable[[np.ndarray], Sequence[np.ndarray]], picture: np.ndarray, name: str = "The model"
) -> np.ndarray:
    """Return a picture's matte by MODNet's published pre-processing, float32 (height, width) in [0, 1].

    Args:
        run: a runtime's session, or any function from an input (1, 3, height, width) to outputs, the last the matte.
        picture: RGB of uint8, (height, width, 3).
        name: what errors call the model.

    Raises:
        RuntimeUnfitError: the model does not take the picture, or its output is no matte.
    """
    cv2 = require("cv2")
    height, width = _input_size(*picture.shape[:2])
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    values = ((resized.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    try:
        output = np.asarray(run(np.ascontiguousarray(values))[-1], np.float32)
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise RuntimeUnfitError(f"{name} does not run on a picture of {height}x{width}: {why}.") from error
    if output.shape != (1, 1, height, width):
        shape = "x".join(map(str, output.shape))
        raise RuntimeUnfitError(f"{name} gives {shape} for a picture of {height}x{width}, which is no matte.")
    matte = cv2.resize(output[0, 0], picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    return np.clip(matte, 0, 1)


def _input_size(height: int, width: int) -> tuple[int, int]:
    short = min(height, width)
    if max(height, width) < SIDE or short > SIDE:
        height, width = (int(one * SIDE / short) for one in (height, width))
    return max(height // STEP, 1) * STEP, max(width // STEP, 1) * STEP


def _judged(matte_of: Matter, subject: Portrait | Clip, names: Sequence[str], tell: Callable[[str], object]) -> Judged:
    frames = subject.frames if isinstance(subject, Clip) else (subject,)
    scores: list[dict[str, Score]] = []
    changes: list[dict[str, Score]] = []
    errors: list[float] = []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for frame in frames:
        picture, truth = read_pair(frame)
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
