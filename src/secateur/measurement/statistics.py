"""What paired measurements say: how two networks differ in time or in quality, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000  # of a bootstrap
_MOST_AT_ONCE = 2**20  # samples drawn at once


@dataclass(frozen=True)
class Estimate:
    """A number, and its 95 % interval."""

    value: float
    low: float
    high: float

    def __contains__(self, other: float) -> bool:
        return self.low <= other <= self.high


class Ratio(Estimate):
    """How many times as fast as the first."""


@dataclass(frozen=True)
class Comparison:
    """How the mean of one network differs from that of the first, on the same samples.

    Attributes:
        difference: the mean less the first's.
        ratio: the mean as a multiple of the first's.
    """

    difference: Estimate
    ratio: Estimate


@dataclass(frozen=True)
class Spread:
    """Milliseconds of one call: the median, with the 10th and the 90th percentile."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Spread:
        """Summarise the times of several rounds."""
        low, median, high = np.percentile(milliseconds, [10, 50, 90])
        return cls(float(median), float(low), float(high), len(milliseconds))


def paired_ratio(first: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Ratio:
    """Return how many times as long one network takes as another, from times that were taken in turns.

    A network that is opened again lies elsewhere in memory, and is a few percent slower or faster for as long as it is
    open. A bootstrap over rounds does not see that, and tells a network from itself. So the openings are what is
    counted: each gives the median ratio of its rounds, and the interval is Student's for the mean of their logarithms
    (Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013).

    Args:
        first: milliseconds of each round, a list for each opening.
        other: those of the same rounds.

    Example:
        >>> ratio = paired_ratio([[2.0, 2.1, 2.0], [2.0, 2.0, 2.1]], [[1.0, 1.1, 1.0], [1.0, 1.0, 1.0]])
        >>> ratio.value, 2.0 in ratio
        (2.0, True)
    """
    medians = np.array(
        [
            np.median(np.log(np.asarray(one, float) / np.asarray(two, float)))
            for one, two in zip(first, other, strict=True)
        ]
    )
    value = float(medians.mean())
    if len(medians) < 2:
        return Ratio(float(np.exp(value)), 0.0, float("inf"))
    reach = _student(len(medians) - 1) * float(medians.std(ddof=1)) / len(medians) ** 0.5
    return Ratio(*(float(np.exp(one)) for one in (value, value - reach, value + reach)))


def compare_means(first: Sequence[float], other: Sequence[float], seed: int = 0) -> Comparison:
    """Return how the mean of one network's errors differs from that of the first, sample by sample of the same set.

    Samples are drawn again with replacement, both networks' errors of a sample together, and the interval is what lies
    between percentiles of the means so found; with few samples these are set farther apart, since drawing again spreads
    less than drawing anew (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015: expanded percentiles).
    Of a single sample nothing is known, and the intervals are everything.

    Args:
        first: an error for each sample.
        other: those of the same samples.
        seed: of the drawing.

    Example:
        >>> found = compare_means([0.02, 0.04, 0.03], [0.01, 0.02, 0.015])
        >>> round(found.difference.value, 3), round(found.ratio.value, 3), 1.0 in found.ratio
        (-0.015, 0.5, False)
    """
    pairs = np.stack([np.asarray(first, float), np.asarray(other, float)], axis=1)
    found = pairs.mean(axis=0)
    count = len(pairs)
    if count < 2:
        endless = float("inf")
        return Comparison(
            Estimate(float(found[1] - found[0]), -endless, endless), Estimate(_divided(*found), 0.0, endless)
        )
    means, tail = _redrawn_means(pairs, seed), _expanded_tail(count)
    low, high = np.quantile(means[:, 1] - means[:, 0], [tail, 1 - tail])
    ratios = [_divided(*one) for one in means.tolist()]
    least, most = np.quantile(ratios, [tail, 1 - tail], method="nearest")  # infinities are not averaged
    return Comparison(
        Estimate(float(found[1] - found[0]), float(low), float(high)),
        Estimate(_divided(*found), float(least), float(most)),
    )


def _redrawn_means(samples: np.ndarray, seed: int) -> np.ndarray:
    """Return the means of samples (count, columns) that were drawn again, for each resample."""
    generator, count = np.random.default_rng(seed), len(samples)
    at_once = max(1, min(RESAMPLES, _MOST_AT_ONCE // count))
    parts = [
        samples[generator.integers(count, size=(min(at_once, RESAMPLES - start), count))].mean(axis=1)
        for start in range(0, RESAMPLES, at_once)
    ]
    return np.concatenate(parts)


def _divided(first: float, other: float) -> float:
    """Return how many times the first the other is; two that are nought are alike."""
    if first:
        return float(other / first)
    return float("inf") if other else 1.0


def _expanded_tail(count: int) -> float:
    from scipy import stats

    return float(stats.norm.cdf(-((count / (count - 1)) ** 0.5) * _student(count - 1)))


def _student(freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
