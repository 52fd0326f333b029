"""Trimaps to train on: their bands are of random width, within bounds that grow with the picture."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.matting.trimaps import SURE, random_trimap

pytest.importorskip("cv2")


def half(side):
    """Return a matte that is 1 in the right half."""
    matte = np.zeros((side, side), np.float32)
    matte[:, side // 2 :] = 1
    return matte


@pytest.mark.parametrize(("side", "most"), [(32, 2), (80, 2), (160, 4), (240, 6)])
def test_the_band_is_from_one_pixel_to_a_fortieth_on_either_side(side, most):
    outside, inside = set(), set()
    for seed in range(120):
        trimap = random_trimap(half(side), np.random.default_rng(seed))
        assert trimap.dtype == np.float32
        assert (trimap == trimap[0]).all()
        row = trimap[0].tolist()
        assert row == sorted(row)
        assert set(row) == {0.0, 0.5, 1.0}
        outside.add(side // 2 - row.count(0.0))
        inside.add(side // 2 - row.count(1.0))
    assert outside == inside == set(range(1, most + 1))


def test_the_band_holds_all_that_is_not_sure():
    ramp = np.tile(np.linspace(-0.5, 1.5, 240, dtype=np.float32).clip(0, 1), (240, 1))
    for seed in range(20):
        trimap = random_trimap(ramp, np.random.default_rng(seed))
        assert (trimap[(ramp > SURE) & (ramp < 1 - SURE)] == 0.5).all()
        assert (ramp[trimap == 1] >= 1 - SURE).all()
        assert (ramp[trimap == 0] <= SURE).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_there_is_no_edge_there_is_no_band(value):
    trimap = random_trimap(np.full((64, 64), value, np.float32), np.random.default_rng(0))
    assert (trimap == value).all()


def test_the_same_seed_is_the_same_band():
    first, again, other = (random_trimap(half(240), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
