"""Intervals that hold: for the same network, for another, whatever disturbs both."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.measurement.statistics import Spread, compare_means, paired_ratio

OPENINGS, ROUNDS = 5, 8


def times(seed, factor, by_opening=0.0, disturbed=0.0):
    """Draw times of a network and of one that takes `factor` of them, on a machine that drifts."""
    random = np.random.default_rng(seed)
    first, other = [], []
    for _ in range(OPENINGS):
        drift = np.exp(np.cumsum(random.normal(0, 0.05, ROUNDS)))
        luck = np.exp(random.normal(0, by_opening, 2))
        hits = 1 + disturbed * (random.random((2, ROUNDS)) < 0.1)
        noise = np.exp(random.normal(0, 0.02, (2, ROUNDS)))
        first.append(list(10 * drift * luck[0] * hits[0] * noise[0]))
        other.append(list(10 * drift * luck[1] * hits[1] * noise[1] * factor))
    return first, other


@pytest.mark.parametrize("by_opening", [0.0, 0.05])
@pytest.mark.parametrize("disturbed", [0.0, 3.0])
@pytest.mark.parametrize("factor", [1.0, 0.4])
def test_the_interval_holds_the_truth_nineteen_times_in_twenty(factor, by_opening, disturbed):
    held = [1 / factor in paired_ratio(*times(seed, factor, by_opening, disturbed)) for seed in range(200)]
    assert np.mean(held) >= 0.95


def test_it_tells_networks_apart_that_differ_by_a_tenth():
    found = [paired_ratio(*times(seed, 0.9, disturbed=3.0)) for seed in range(50)]
    assert np.mean([1.0 not in ratio for ratio in found]) > 0.9


def test_one_opening_says_nothing_of_the_interval():
    ratio = paired_ratio([[2.0, 2.0]], [[1.0, 1.0]])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 0.0, float("inf"))


def test_percentiles():
    spread = Spread.of(range(1, 12))
    assert (spread.low, spread.median, spread.high) == (2.0, 6.0, 10.0)


def errors(seed, factor, samples=15):
    """Draw errors of two networks on the same pictures: some are hard for both."""
    random = np.random.default_rng(seed)
    hard = np.exp(random.normal(0, 0.6, samples))
    return (hard * np.exp(random.normal(0, 0.3, samples)), factor * hard * np.exp(random.normal(0, 0.3, samples)))


def test_the_interval_of_means_holds_the_truth_and_tells_networks_apart():
    held = [1.2 in compare_means(*errors(seed, 1.2)).ratio for seed in range(150)]
    assert np.mean(held) >= 0.92
    assert np.mean([0.0 not in compare_means(*errors(seed, 2.0)).difference for seed in range(50)]) > 0.9


def test_of_one_sample_nothing_is_known_and_errors_of_nought_are_alike():
    one = compare_means([0.1], [0.2])
    assert (one.ratio.value, one.ratio.low, one.ratio.high) == (2, 0, float("inf"))
    assert compare_means([0, 0, 0], [0, 0, 0]).ratio.value == 1
    assert compare_means([0, 0, 0], [1, 1, 1]).ratio.value == float("inf")
