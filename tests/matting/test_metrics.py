"""The metrics, by hand and beside a plain implementation that shares no code with them."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
from scipy import ndimage

from secateur.errors import DataError
from secateur.matting.metrics import METRICS, boundary_band, measure, measure_change, metrics_of


def mattes(seed, height=45, width=40):
    """Draw a blob and another one like it, with opaque, transparent and soft parts."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(2, height, width)), (0, 6, 6))
    mixed = np.stack([noise[0], 0.8 * noise[0] + 0.5 * noise[1]])
    drawn = np.clip(0.5 + 40 * mixed, 0, 1)
    return tuple((np.rint(drawn * 255) / 255).astype(np.float32))


def plain(found, truth, band):
    """Return every metric of pictures over the pixels in `band`, pixel by pixel as the papers define them."""
    height, width = truth.shape
    inside = [(y, x) for y in range(height) for x in range(width) if band[y, x]]
    off = [float(found[at]) - float(truth[at]) for at in inside]
    steep, true_steep, level = plain_steepness(found), plain_steepness(truth), plain_level(found, truth)
    return {
        "MSE": sum(one * one for one in off) / len(off),
        "MAD": sum(abs(one) for one in off) / len(off),
        "SAD": sum(abs(one) for one in off) / 1000,
        "Grad": sum((steep[at] - true_steep[at]) ** 2 for at in inside) / 1000,
        "Conn": sum(abs(plain_degree(found[at], level[at]) - plain_degree(truth[at], level[at])) for at in inside)
        / 1000,
    }


def plain_steepness(matte, sigma=1.4, reach=4):
    height, width = matte.shape

    def gauss(x):
        return math.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))

    around = range(-reach, reach + 1)
    kernel = {(dy, dx): gauss(dy) * -dx * gauss(dx) / sigma**2 for dy in around for dx in around}
    norm = math.sqrt(sum(value**2 for value in kernel.values()))

    def at(y, x):
        return float(matte[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    steep = {}
    for y in range(height):
        for x in range(width):
            along_x = sum(value * at(y + dy, x + dx) for (dy, dx), value in kernel.items()) / norm
            along_y = sum(value * at(y + dx, x + dy) for (dy, dx), value in kernel.items()) / norm
            steep[y, x] = math.sqrt(along_x**2 + along_y**2)
    return steep


def plain_level(found, truth):
    """Return for every pixel the last of 0, .1, ... 1 before it fell out of the largest part common to both."""
    height, width = truth.shape
    level = dict.fromkeys(np.ndindex(height, width), 1.0)
    open_still = set(level)
    for step in range(1, 11):
        threshold = np.float32(step / 10)
        both = {at for at in level if found[at] >= threshold and truth[at] >= threshold}
        for at in open_still - plain_largest(both):
            level[at] = (step - 1) / 10
            open_still = open_still - {at}
    return level


def plain_largest(places):
    left, largest = set(places), set()
    for start in sorted(places):
        if start not in left:
            continue
        part, waiting = {start}, deque([start])
        left.discard(start)
        while waiting:
            y, x = waiting.popleft()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.discard(near)
                    part.add(near)
                    waiting.append(near)
        largest = part if len(part) > len(largest) else largest
    return largest


def plain_degree(value, level):
    above = float(value) - level
    return 1 - above if above >= 0.15 else 1.0


def plain_band(truth, radius):
    height, width = truth.shape
    band = np.zeros(truth.shape, bool)
    for y, x in np.ndindex(height, width):
        near = truth[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        band[y, x] = near.max() > 0 and near.min() < 1
    return band


@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_a_plain_implementation(seed):
    found, truth = mattes(seed)
    scores, band = measure(found, truth), plain_band(truth, 10)
    whole, boundary = plain(found, truth, np.ones_like(band)), plain(found, truth, band)
    for name in ("MSE", "MAD", "SAD", "Grad", "Conn"):
        assert scores[name].whole == pytest.approx(whole[name], rel=2e-5, abs=1e-7)
        assert scores[name].boundary == pytest.approx(boundary[name], rel=2e-5, abs=1e-7)


@pytest.mark.parametrize("radius", [1, 3])
def test_the_band_is_what_is_near_to_both_sides(radius):
    _, truth = mattes(7, 30, 40)
    assert 0 < plain_band(truth, radius).mean() < 1
    np.testing.assert_array_equal(boundary_band(truth, radius), plain_band(truth, radius))


def test_differences_by_hand():
    truth = np.zeros((40, 100), np.float32)
    truth[:, :50] = 1
    found = truth.copy()
    found[:10, 45:55] = 0.5  # 100 of 4,000 pixels are off by a half, all of them near the edge
    scores = measure(found, truth)
    assert scores["MAD"] == pytest.approx((0.0125, 50 / 800))  # the band is 20 columns of 40 pixels
    assert scores["MSE"] == pytest.approx((0.00625, 25 / 800))
    assert scores["SAD"] == pytest.approx((0.05, 0.05))


def test_a_gradient_by_hand():
    slope = 0.002
    ramp = np.tile(np.arange(400, dtype=np.float32) * slope, (30, 1))
    whole = measure(ramp, np.zeros_like(ramp), ["Grad"])["Grad"].whole
    # A derivative of a Gaussian, as a plane of norm 1, gives 2 sqrt(2 pi) sigma^2 of a slope; a hundredth is cut off.
    steepness = 2 * math.sqrt(2 * math.pi) * 1.4**2 * slope
    assert whole == pytest.approx(ramp.size * steepness**2 / 1000, rel=0.05)


@pytest.mark.parametrize(("speck", "expected"), [(1.0, 1.0), (0.2, 0.2), (0.1, 0.0)])
def test_what_is_apart_from_the_person_by_hand(speck, expected):
    truth = np.array([[1, 1, 1, 0, 0, 0]], np.float32)
    found = np.array([[1, 1, 1, 0, speck, 0]], np.float32)
    assert measure(found, truth, ["Conn"])["Conn"].whole == pytest.approx(expected / 1000)


def test_flicker_by_hand():
    truth = np.full((2, 8, 8), 0.5, np.float32)
    found = np.stack([truth[0], truth[0] + 0.1])
    scores = measure_change(tuple(found), tuple(truth))
    assert scores == {"dtSSD": pytest.approx((10.0, 10.0), rel=1e-5)}
    moving = np.stack([truth[0], truth[0] - 0.3])
    assert measure_change(tuple(moving + 0.05), tuple(moving))["dtSSD"].whole == pytest.approx(0, abs=1e-4)


def test_equal_mattes_have_no_error():
    _, truth = mattes(3)
    assert all(score == (0, 0) for score in measure(truth, truth).values())


@pytest.mark.parametrize("turned", [np.fliplr, np.flipud, np.transpose])
def test_a_picture_turned_has_the_same_errors(turned):
    found, truth = mattes(5, 24, 24)
    scores, others = (measure(*pair) for pair in ((found, truth), (turned(found), turned(truth))))
    for name, score in scores.items():
        assert others[name] == pytest.approx(score, rel=1e-5)


def test_without_a_boundary_its_error_is_not_known():
    empty = np.zeros((5, 5), np.float32)
    assert math.isnan(measure(empty, empty, ["MAD"])["MAD"].boundary)


def test_every_metric_says_what_it_computes():
    assert all(metric.convention for metric in METRICS.values())
    assert metrics_of(["mad", "DTSSD"]) == ("MAD", "dtSSD")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.zeros((4, 5), np.float32), "4x5 and 4x4"),
        (np.zeros((4, 4), np.uint8), "uint8"),
        (np.full((4, 4), 2, np.float32), "from 2 to 2"),
        (np.full((4, 4), np.nan, np.float32), "nan"),
    ],
)
def test_what_is_no_matte_is_refused(found, expected):
    with pytest.raises(DataError, match=expected):
        measure(found, np.zeros((4, 4), np.float32))


def test_a_misspelt_metric_offers_the_nearest():
    with pytest.raises(DataError, match="Did you mean Conn"):
        metrics_of(["Con"])
