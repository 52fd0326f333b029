"""What people are put in front of: pictures, sharp or out of focus, and what is made without any."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from secateur.errors import DataError
from secateur.matting.backgrounds import random_background

pytest.importorskip("cv2")


def kind_of(background):
    """Tell a wall of one colour from a smooth gradient and from clutter with its edges and grain."""
    steps = max(np.abs(np.diff(background.astype(int), axis=axis)).max() for axis in (0, 1))
    return "plain" if steps == 0 else "gradient" if steps <= 8 else "clutter"


@pytest.mark.parametrize("size", [32, 96])
def test_without_pictures_walls_gradients_and_clutter_are_made_all_different(size):
    found = [random_background([], size, np.random.default_rng(seed)) for seed in range(90)]
    assert all(one.shape == (size, size, 3) and one.dtype == np.uint8 for one in found)
    kinds = [kind_of(one) for one in found]
    assert {kind: kinds.count(kind) > 12 for kind in set(kinds)} == {"plain": True, "gradient": True, "clutter": True}
    assert len({one.tobytes() for one in found}) == 90
    brightness = [one.mean() for one in found]
    assert min(brightness) < 70
    assert max(brightness) > 200


def test_the_same_seed_is_the_same_background():
    for seed in range(12):
        first, again = (random_background([], 64, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(first, again)


@pytest.fixture
def boards(tmp_path):
    """Two pictures of squares, one red and one green with nothing of the other colour."""
    squares = (np.indices((160, 240)) // 8).sum(axis=0) % 2 * np.uint8(255)
    for number, name in enumerate(("red.png", "green.jpg")):
        pixels = np.zeros((160, 240, 3), np.uint8)
        pixels[..., number] = squares
        Image.fromarray(pixels).save(tmp_path / name, quality=100, subsampling=0)
    return [tmp_path / "red.png", tmp_path / "green.jpg"]


def test_most_backgrounds_are_crops_of_pictures_sharp_and_out_of_focus(boards):
    found = [random_background(boards, 96, np.random.default_rng(seed)) for seed in range(100)]
    sums = np.array([one.mean(axis=(0, 1)) for one in found])
    of_picture = [(sums[:, colour] > 60) & (np.delete(sums, colour, axis=1) < 12).all(axis=1) for colour in (0, 1)]
    assert all(taken.sum() > 25 for taken in of_picture)
    assert 65 < sum(taken.sum() for taken in of_picture) < 95
    sharpness = np.array([np.abs(np.diff(one.astype(int), axis=0)).max() for one in found])[of_picture[0]]
    assert sharpness.max() > 120
    assert sharpness.min() < 60
    assert len({one.tobytes() for one in found}) == 100


def test_a_picture_smaller_than_the_background_covers_it(tmp_path):
    Image.new("RGB", (9, 5), (200, 10, 10)).save(tmp_path / "small.png")
    found = [random_background([tmp_path / "small.png"], 64, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.shape == (64, 64, 3) for one in found)
    assert sum((one == (200, 10, 10)).all() for one in found) > 10


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read"):
        [random_background([tmp_path / "broken.jpg"], 64, np.random.default_rng(seed)) for seed in range(20)]
