"""What paired measurements say: the ratio of two networks' times, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the first: the estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def __contains__(self, other: float) -> bool:
        return self.low <= other <= self.high


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


def _student(freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
