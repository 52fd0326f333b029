"""Models judged on portraits and clips: scores, intervals, the published pre-processing, and what cannot be judged."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pytest
from PIL import Image

from secateur.errors import DataError
from secateur.matting.evaluating import compare, evaluate, worst
from secateur.matting.layouts import find_clips, find_portraits
from tests.matting.data_sets import write_set


def exact(picture):
    return picture[:, :, 0].astype(np.float32) / 255


def fainter(picture):
    return exact(picture) * 0.9


@pytest.fixture
def portraits(tmp_path):
    return find_portraits(write_set(tmp_path / "set", ["ann", "bob", "cid"]))


def test_a_model_that_is_right_has_no_error(portraits):
    found = evaluate(exact, portraits)
    assert [one.name for one in found.judged] == ["ann", "bob", "cid"]
    assert {name: score.whole for name, score in found.means.items() if name != "dtSSD"} == dict.fromkeys(
        ["MSE", "MAD", "SAD", "Grad", "Conn"], 0.0
    )
    assert math.isnan(found.means["dtSSD"].whole)


def test_means_are_over_the_portraits_and_the_worst_come_first(portraits):
    offs = count()

    def ever_worse(picture):
        return np.clip(exact(picture) - next(offs) / 10, 0, 1)

    told = []
    found = evaluate(ever_worse, portraits, ["MAD"], told.append)
    values = found.values("MAD")[:, 0]
    assert found.means["MAD"].whole == pytest.approx(values.mean())
    assert values[0] == 0 < values[1] < values[2]
    assert worst([evaluate(exact, portraits, ["MAD"]), found], most=2) == [2, 1]
    assert told == ["ann", "bob", "cid"]


def test_a_model_differs_from_the_first_by_an_interval(portraits):
    first, other = (evaluate(lambda picture, by=by: exact(picture) * by, portraits, ["MAD"]) for by in (0.9, 0.8))
    whole, boundary = compare(first, other)
    assert whole.ratio.value == pytest.approx(2, rel=1e-3)
    assert boundary.ratio.value == pytest.approx(2, rel=1e-3)
    assert 1 not in whole.ratio
    assert 0 not in whole.difference
    same, _ = compare(first, first)
    assert (same.ratio.low, same.ratio.value, same.ratio.high) == (1, 1, 1)
    assert (same.difference.low, same.difference.high) == (0, 0)


def test_the_flicker_of_a_clip_is_told_and_frames_are_in_the_order_of_numbers(tmp_path):
    write_set(tmp_path / "clips" / "walk", ["1", "2", "10"], at=(0.6, 0.5))
    (clip,) = find_clips(tmp_path / "clips")
    assert [frame.name for frame in clip.frames] == ["walk/1", "walk/2", "walk/10"]
    levels = iter([1.0, 1.0, 0.0])
    found = evaluate(lambda picture: exact(picture) * next(levels), [clip])
    (walk,) = found.judged
    truth = exact(np.asarray(Image.open(clip.frames[0].image)))
    # Between the first two frames nothing changes, and between the last two everything goes.
    assert walk.scores["dtSSD"].whole == pytest.approx(100 * np.sqrt(np.square(truth).mean()) / 2, rel=1e-4)
    assert walk.scores["MAD"].whole == pytest.approx(truth.mean() / 3, rel=1e-4)
    assert walk.shown.name == "walk/10"


def test_frames_of_several_sizes_are_no_clip(tmp_path):
    folder = write_set(tmp_path / "clips" / "walk", ["1", "2"])
    Image.new("RGB", (20, 20)).save(folder / "image" / "3.png")
    Image.new("L", (20, 20)).save(folder / "alpha" / "3.png")
    with pytest.raises(DataError, match=r"3\.png is of another size than the frames before it"):
        evaluate(exact, find_clips(tmp_path / "clips"))


def test_a_matte_of_another_size_is_named_with_its_picture(portraits):
    Image.new("L", (30, 20)).save(portraits[1].alpha)
    with pytest.raises(DataError, match=r"image/bob\.png is 64x48 and .*alpha/bob\.png is 30x20"):
        evaluate(exact, portraits)


def test_a_truncated_picture_is_named(portraits):
    portraits[2].image.write_bytes(portraits[2].image.read_bytes()[:900])
    with pytest.raises(DataError, match=r"image/cid\.png cannot be read as a picture"):
        evaluate(exact, portraits)


def test_a_foreground_alone_has_no_picture_to_judge(tmp_path):
    folder = write_set(tmp_path / "set", ["ann"])
    (folder / "image").rename(folder / "fg")
    with pytest.raises(DataError, match=r"fg/ann\.png is a foreground without a picture"):
        evaluate(exact, find_portraits(folder))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda picture: exact(picture) * np.float32("nan"), "no numbers"),
        (lambda picture: exact(picture)[1:], "47x64, not of the picture's size"),
    ],
)
def test_what_a_model_gives_must_be_a_matte(portraits, model, expected):
    with pytest.raises(DataError, match=rf"image/ann\.png.*{expected}"):
        evaluate(model, portraits)
