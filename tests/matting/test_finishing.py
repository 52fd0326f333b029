"""Cut-outs, masks, trimaps and new backgrounds; edges at full size; colours without the old background."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.matting.finishing import Finish, backdrop, blurred, composite, cut_out, plain
from secateur.matting.foregrounds import foreground_of
from secateur.matting.refining import EPSILON, RADIUS, closed_form, guided, resampled
from secateur.matting.trimaps import trimap_of
from tests.matting.making import BLUE, RED, disc

cv2 = pytest.importorskip("cv2")


def soft_disc(height, width, radius=0.3, softness=6.0):
    rows, columns = np.mgrid[:height, :width]
    distance = radius * min(height, width) - np.hypot(rows - height / 2, columns - width / 2)
    return (distance / softness + 0.5).clip(0, 1).astype(np.float32)


def seen(matte, front=RED, back=BLUE):
    """Return the picture that a matte of plain colours makes."""
    share = matte[..., None]
    return (np.asarray(front) * share + np.asarray(back) * (1 - share) + 0.5).astype(np.uint8)


def test_a_cut_out_keeps_colours_at_the_edge_and_nothing_of_the_background_beyond():
    matte = soft_disc(100, 120)
    found = cut_out(seen(matte), matte)
    assert found.shape == (100, 120, 4)
    assert np.array_equal(found[..., 3], np.round(matte * 255))
    assert np.array_equal(found[matte > 0][:, :3], seen(matte)[matte > 0])
    assert not found[0, 0].any()
    assert found[50, 60 - 38][:3].any()  # two pixels outside


def test_a_composite_is_the_weighed_sum_and_exact_where_the_matte_is():
    rng = np.random.default_rng(0)
    front, back = (rng.integers(0, 255, (700, 2000, 3), np.uint8) for _ in range(2))
    matte = rng.random((700, 2000), np.float32)
    matte[:10], matte[10:20] = 0, 1
    found = composite(front, matte, back)
    assert np.abs(found - (front * matte[..., None] + back * (1 - matte[..., None]))).max() <= 0.51
    assert np.array_equal(found[:10], back[:10])
    assert np.array_equal(found[10:20], front[10:20])


def test_what_was_transparent_stays_so():
    alpha = np.full((60, 60), 255, np.uint8)
    alpha[:, 30:] = 0
    found = Finish("mask")(disc(60, 60), np.ones((32, 32), np.float32), alpha)
    assert np.array_equal(found, alpha)


@pytest.mark.parametrize("size", [(50, 200), (200, 50), (64, 64), (300, 300)])
def test_a_backdrop_covers_all_without_distortion(size):
    marked = np.zeros((100, 150, 3), np.uint8)
    marked[40:60, 65:85] = 255  # a square in the middle
    found = backdrop(marked)(np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32))
    assert found.shape == (*size, 3)
    rows, columns = np.nonzero(found[..., 0] > 127)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 2 or max(np.ptp(rows), np.ptp(columns)) >= min(size) - 2
    assert abs(rows.mean() - size[0] / 2) <= 1.5
    assert abs(columns.mean() - size[1] / 2) <= 1.5


def test_a_blurred_background_has_no_shine_of_the_person():
    matte = soft_disc(200, 300)
    found = blurred(seen(matte), matte)
    assert found.shape == (200, 300, 3)
    assert found[matte < 0.9, 0].max() <= 40  # a plain blur would put the person's red around her


def test_a_plain_background_takes_all_that_is_not_the_person():
    matte = soft_disc(100, 120)
    found = Finish(background=plain((0, 177, 64)))(seen(matte), matte)
    assert tuple(found[0, 0]) == (0, 177, 64)
    assert tuple(found[50, 60]) == RED


def test_a_trimap_is_open_along_the_edge_alone():
    matte = soft_disc(200, 200)
    found = trimap_of(matte, width=4)
    assert set(np.unique(found)) == {0, 128, 255}
    assert (found[(matte > 0.05) & (matte < 0.95)] == 128).all()
    assert (matte[found == 255] >= 0.95).all()
    assert (matte[found == 0] <= 0.05).all()
    assert (found == 128).sum() > (trimap_of(matte, width=1) == 128).sum()


@pytest.mark.parametrize("size", [(600, 800), (1600, 900)])
def test_the_guided_filter_finds_the_edges_of_the_full_size(size):
    matte = soft_disc(*size, softness=1.5)
    picture = seen(matte)
    small = cv2.resize(matte, (size[1] // 8, size[0] // 8), interpolation=cv2.INTER_AREA)
    before, after = (np.abs(way(picture, small) - matte).mean() for way in (resampled, guided))
    assert after < 0.5 * before


def test_the_guided_filter_leaves_what_is_flat():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    for value in (0.0, 1.0):
        found = guided(noise, np.full((64, 96), value, np.float32))
        np.testing.assert_allclose(found, value, atol=1e-3)


def test_the_guided_filter_at_the_same_size_is_the_plain_one():
    rng = np.random.default_rng(0)
    picture, matte = rng.integers(0, 255, (40, 50, 3), np.uint8), rng.random((40, 50), np.float32)
    guide, radius, epsilon = picture.astype(np.float64) / 255, RADIUS, EPSILON

    def mean(values):
        padded = np.pad(values, [(radius, radius)] * 2 + [(0, 0)] * (values.ndim - 2), mode="symmetric")
        return np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1,) * 2, (0, 1)).mean((-1, -2))

    slopes = np.empty_like(guide)
    centre = mean(guide)
    covariance = mean(guide[..., :, None] * guide[..., None, :]) - centre[..., :, None] * centre[..., None, :]
    together = mean(guide * matte[..., None]) - centre * mean(matte)[..., None]
    slopes = np.linalg.solve(covariance + epsilon * np.eye(3), together[..., None])[..., 0]
    offset = mean(matte) - (slopes * centre).sum(-1)
    expected = ((mean(slopes) * guide).sum(-1) + mean(offset)).clip(0, 1)
    np.testing.assert_allclose(guided(picture, matte), expected, atol=1e-3)


@pytest.mark.slow
def test_closed_form_solves_the_edge(monkeypatch):
    pytest.importorskip("pymatting")
    matte = soft_disc(160, 200, softness=3)
    picture = seen(matte)
    small = cv2.resize(matte, (50, 40), interpolation=cv2.INTER_AREA)
    errors = [np.abs(way(picture, small) - matte).mean() for way in (resampled, closed_form)]
    assert errors[1] < 0.5 * errors[0]
    monkeypatch.setattr("secateur.matting.refining.MOST_SOLVED", 8000)
    assert np.abs(closed_form(picture, small) - matte).mean() < 0.5 * errors[0]
    flat = np.ones((40, 50), np.float32)
    assert (closed_form(picture, flat) == 1).all()


@pytest.mark.slow
def test_clean_colours_have_no_old_background_in_them(monkeypatch):
    pytest.importorskip("pymatting")
    matte = soft_disc(200, 300, softness=12)
    picture = seen(matte)
    whole = foreground_of(picture, matte)
    edge = (matte > 0.2) & (matte < 0.8)
    assert np.abs(whole[edge].astype(int) - RED).mean() < 0.2 * np.abs(picture[edge].astype(int) - RED).mean()
    assert np.array_equal(whole[matte == 1], picture[matte == 1])
    monkeypatch.setattr("secateur.matting.foregrounds.TILE", 96)
    tiled = foreground_of(picture, matte)
    assert np.abs(tiled[edge].astype(int) - whole[edge]).max() <= 12
