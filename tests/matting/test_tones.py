"""People take on the light of where they stand; noise and JPEG are mild, and leave mattes as they are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from secateur.matting.backgrounds import random_background
from secateur.matting.compositing import Composites, Scene
from secateur.matting.layouts import find_portraits
from secateur.matting.tones import matched, random_grain, random_tone

pytest.importorskip("cv2")


def dotted(level, spread):
    """Return a picture of dots that are as much brighter as others are darker."""
    return np.rint(level + spread * np.sign(np.random.default_rng(0).normal(size=(60, 80, 1))) * np.ones(3)).astype(
        np.uint8
    )


@pytest.fixture
def standing():
    """A matte that is 1 in a part of the picture alone."""
    alpha = np.zeros((60, 80), np.uint8)
    alpha[10:, 20:60] = 255
    return alpha


def test_a_bright_person_before_a_dark_background_gets_darker_and_a_dark_one_brighter(standing):
    for person, around in ((dotted(200, 20), dotted(40, 20)), (dotted(40, 20), dotted(200, 20))):
        means = [float(matched(person, standing, around, by)[standing > 0].mean()) for by in (0, 0.3, 0.6, 1)]
        assert means[0] == person[standing > 0].mean()
        assert np.all(np.diff(means) < -20) or np.all(np.diff(means) > 20)
        assert means[-1] == pytest.approx(around.mean(), abs=3)


def test_the_colour_of_the_light_is_taken_over_by_the_person(standing):
    grey, sunset = dotted(120, 10), dotted(120, 10)
    sunset[..., 0] += 90
    sunset[..., 2] -= 90
    red, green, blue = matched(grey, standing, sunset, 0.5)[standing > 0].mean(axis=0)
    assert red > green + 30
    assert green > blue + 30


def test_contrast_is_taken_over_within_bounds(standing):
    spreads = [matched(dotted(120, 20), standing, dotted(120, by), 1)[standing > 0].std() for by in (2, 20, 60)]
    assert spreads == [pytest.approx(0.6 * 20, abs=1), pytest.approx(20, abs=1), pytest.approx(1.5 * 20, abs=1)]


def test_only_what_the_matte_holds_says_how_bright_the_person_is(standing):
    person = dotted(200, 20)
    person[standing == 0] = 0
    found = matched(person, standing, dotted(40, 20), 1)
    assert found[standing > 0].mean() == pytest.approx(40, abs=3)
    assert np.array_equal(matched(person, standing * 0, dotted(40, 20), 1), person)


def step():
    """Return a picture of two greys whose edge lies in the middle of a block of JPEG."""
    picture = np.full((64, 64, 3), 70, np.uint8)
    picture[:, 12:] = 190
    return picture


def change_of(found):
    """Tell noise, which is everywhere, from JPEG, which stays in the block of the edge, and blur, which is near it."""
    if np.array_equal(found, step()):
        return "nothing"
    if found[:, 40:].std(axis=(0, 1)).max() > 0:
        return "noise"
    return "blur" if np.array_equal(found[:, :9], step()[:, :9]) else "blocks"


def test_grain_is_noise_or_blocks_of_jpeg_or_blur_or_nothing():
    found = [random_grain(step(), np.random.default_rng(seed)) for seed in range(80)]
    assert all(one.shape == (64, 64, 3) and one.dtype == np.uint8 for one in found)
    kinds = [change_of(one) for one in found]
    assert {kind: kinds.count(kind) >= 4 for kind in ("nothing", "noise", "blocks", "blur")} == {
        "nothing": True, "noise": True, "blocks": True, "blur": True
    }  # fmt: skip


def test_grain_is_mild():
    errors = []
    for seed in range(60):
        picture = random_background([], 128, np.random.default_rng(seed)).astype(float)
        found = random_grain(picture.astype(np.uint8), np.random.default_rng(seed)).astype(float)
        errors.append(np.sqrt(np.square(found - picture).mean()))
        assert np.abs(found.mean(axis=(0, 1)) - picture.mean(axis=(0, 1))).max() < 5
    assert min(errors) == 0
    assert 0 < np.median(errors) < 3
    assert max(errors) < 14


def test_grain_and_tone_are_decided_by_the_seed_alone():
    picture = random_background([], 64, np.random.default_rng(0))
    for change in (random_grain, random_tone):
        first, again = ([change(picture, np.random.default_rng(seed)) for seed in range(12)] for _ in range(2))
        assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
        assert len({one.tobytes() for one in first}) > 5


def test_grain_of_samples_is_in_the_picture_and_not_in_the_matte(tmp_path):
    for part, mode, colour in (("image", "RGB", (120, 110, 100)), ("alpha", "L", 255)):
        (tmp_path / part).mkdir()
        Image.new(mode, (80, 80), colour).save(tmp_path / part / "p.png")
    samples = Composites(find_portraits(tmp_path), (), Scene.plain(64, (70, 90), composites=0.0), seed=1)
    spreads = []
    for number in range(40):
        sample = samples[number]
        assert sample["matte"].eq(1).all()
        assert sample["trimap"].eq(1).all()
        spreads.append(255 * float(sample["image"].std(dim=(1, 2)).max()))
    assert min(spreads) == 0
    assert 4 <= sum(spread > 0.5 for spread in spreads) <= 24
    assert max(spreads) < 7
