"""Training samples: the same by number, true to their mattes, and made of people who are held out by person."""

import numpy as np
import pytest
import torch

from secateur.errors import DataError
from secateur.matting.clothes import other_clothes
from secateur.matting.compositing import Composites, Scene, is_held_out, kept_foreground, of_person
from secateur.matting.framing import random_frame
from secateur.matting.hair import fuller_hair
from secateur.matting.layouts import find_portraits
from secateur.matting.pictures import read_pair
from secateur.matting.splitting import split_portraits

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def data(tmp_path):
    """Three red discs on green, cut off at the bottom, with soft edges; and two blue backgrounds."""
    for name in ("image", "alpha"):
        (tmp_path / "people" / name).mkdir(parents=True)
    (tmp_path / "backgrounds").mkdir()
    down, across = np.mgrid[:120, :90]
    for number in range(3):
        alpha = np.clip((35 + number - np.hypot(down - 100, across - 45)) / 4 + 0.5, 0, 1)
        colours = alpha[..., None] * (220, 20, 20) + (1 - alpha[..., None]) * (20, 220, 20)
        Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "people" / "image" / f"p{number}_a.png")
        Image.fromarray((alpha * 255).astype(np.uint8)).save(tmp_path / "people" / "alpha" / f"p{number}_a.png")
    for number in range(2):
        Image.new("RGB", (100, 80), (20, 20, 200)).save(tmp_path / "backgrounds" / f"b{number}.png")
    return tmp_path


def composites(data, **scene):
    backgrounds = sorted((data / "backgrounds").iterdir())
    settings = {"size": 64, "short": (60, 90), "nobody": 0.0, "near": 0.0, **scene}
    return Composites(find_portraits(data / "people"), backgrounds, Scene(**settings), seed=1, kept=data / "kept")


def test_the_same_number_is_the_same_sample_in_any_process(data):
    samples = composites(data)
    # Not forked: what estimates colours does not run in a fork of a process that ran it.
    loader = torch.utils.data.DataLoader(
        samples, sampler=range(6), batch_size=3, num_workers=2, multiprocessing_context="spawn"
    )
    found = list(loader)
    for number in range(6):
        again = samples[number]
        for name, value in again.items():
            assert torch.equal(found[number // 3][name][number % 3], value)
    assert not torch.equal(samples[0]["image"], samples[1]["image"])


def test_samples_have_the_shapes_and_ranges_that_networks_want(data):
    for number in range(12):
        sample = composites(data)[number]
        assert [tuple(sample[name].shape) for name in ("image", "matte", "trimap")] == [(3, 64, 64), *[(1, 64, 64)] * 2]
        assert all(value.dtype == torch.float32 and value.min() >= 0 and value.max() <= 1 for value in sample.values())
        assert set(sample["trimap"].unique().tolist()) <= {0.0, 0.5, 1.0}
        sure = sample["trimap"] != 0.5
        assert (sample["matte"] - sample["trimap"])[sure].abs().max() <= 0.06


def test_a_composite_shows_the_person_where_its_matte_says_so(data):
    for number in range(12):
        sample = composites(data, composites=1.0, company=0.0, grey=0.0)[number]
        red, green, _ = sample["image"]
        inside = sample["matte"][0] > 0.99
        assert inside.any()
        assert red[inside].mean() > green[inside].mean()


def test_nothing_of_the_old_background_is_left_at_soft_edges(data):
    person = find_portraits(data / "people")[0]
    before, alpha = read_pair(person)
    after, _ = kept_foreground(person, None)
    soft = (alpha > 40) & (alpha < 200)
    assert before[soft][:, 1].mean() > 80
    assert after[soft][:, 1].mean() < 40


def test_everybody_comes_once_before_anybody_comes_again(data):
    samples = composites(data)
    turns = [{samples.person(3 * turn + place).name for place in range(3)} for turn in range(4)]
    assert all(len(turn) == 3 for turn in turns)


def test_who_is_cut_off_at_the_bottom_is_not_seen_to_float(data):
    for number in range(20):
        matte = composites(data, composites=1.0, company=0.0, short=(30, 50))[number]["matte"][0]
        columns = matte.max(dim=0).values > 0.9
        assert (matte[-1][columns] > 0.3).float().mean() > 0.5


def shares(samples):
    return [float(samples[number]["matte"].mean()) for number in range(30)]


def test_people_who_are_farther_away_are_smaller_and_at_all_sides(data):
    near = shares(composites(data, composites=1.0, company=0.0, far=0.0))
    samples = composites(data, composites=1.0, company=0.0, far=1.0)
    assert np.mean(shares(samples)) < 0.6 * np.mean(near)
    middles = [float(torch.arange(64.0) @ samples[number]["matte"][0].sum(dim=0)) for number in range(30)]
    middles = [middle / float(samples[number]["matte"].sum()) for number, middle in enumerate(middles)]
    assert min(middles) < 16
    assert max(middles) > 48


@pytest.mark.parametrize("composed", [0.0, 1.0])
def test_people_near_by_are_larger_and_cut_off_at_the_sides(data, composed):
    usual, near = (
        composites(data, composites=composed, company=0.0, far=0.0, near=share, haired=0.0) for share in (0.0, 1.0)
    )
    assert np.mean(shares(near)) > 1.4 * np.mean(shares(usual))
    sides = [near[number]["matte"][0][:, [0, -1]].amax() for number in range(30)]
    assert np.mean([float(side) > 0.9 for side in sides]) > 0.5
    assert all(float(near[number]["matte"].max()) > 0.9 for number in range(30))


def test_who_is_cut_off_at_both_sides_ends_there_when_farther_away(data):
    for path in (data / "people" / "alpha").iterdir():
        Image.fromarray(np.full((120, 90), 255, np.uint8)).save(path)
    for number in range(10):
        samples = composites(data, composites=1.0, company=0.0, far=1.0, haired=0.0, short=(40, 50))
        matte = samples[number]["matte"][0]
        assert 0 < (matte > 0.9).float().mean() < 0.9
        assert set(matte.max(dim=0).values.gt(0.9).tolist()) == {False, True}


def test_a_frame_is_found_for_any_picture_and_shows_the_person():
    rng = np.random.default_rng(0)
    for _ in range(1500):
        height, width = rng.integers(40, 900, 2)
        alpha = np.zeros((height, width), np.uint8)
        top, left = (0 if rng.random() < 0.5 else side // 4 for side in (height, width))
        bottom, right = (side if rng.random() < 0.5 else 3 * side // 4 for side in (height, width))
        alpha[top:bottom, left:right] = 255
        frame = random_frame(alpha, 64, (50, 85), rng, free=True, farther=float(rng.choice([0.3, 1.0])))
        assert frame.of_person(alpha).max() > 200


def test_a_hidden_face_leaves_the_matte_and_the_background_as_they_are(data):
    changed = 0
    for number in range(8):
        shown, hidden = (composites(data, composites=0.0, hidden=share)[number] for share in (0.0, 1.0))
        assert torch.equal(shown["matte"], hidden["matte"])
        changed += not torch.equal(shown["image"], hidden["image"])
    assert changed == 8


def test_a_grey_sample_has_the_matte_of_the_coloured_one(data):
    for number in range(4):
        coloured, grey = (composites(data, grey=share)[number] for share in (0.0, 1.0))
        assert (coloured["image"][0] - coloured["image"][2]).abs().max() > 0.1
        assert (grey["image"] - grey["image"][:1]).abs().max() == 0
        assert torch.equal(coloured["matte"], grey["matte"])


def test_other_clothes_are_worn_below_the_face_by_the_person_alone(data):
    colours, alpha = read_pair(find_portraits(data / "people")[0])
    pattern = np.full_like(colours, (20, 20, 200))
    top = np.flatnonzero((alpha > 0).any(axis=1))[0]
    kinds = set()
    for seed in range(20):
        worn = other_clothes(colours, alpha, pattern, np.random.default_rng(seed))
        away = (worn != colours).any(axis=2)
        assert away.any()
        assert not away[alpha == 0].any()
        assert not away[: top + 10].any()
        kinds.add(tuple(worn[115, 45] // 64))
    assert len(kinds) > 5


def test_more_hair_grows_around_the_head_and_is_in_the_matte():
    colours, alpha = standing(top=60)
    for behind in (True, False):
        for seed in range(8):
            drawn, matte = fuller_hair(colours, alpha, behind, np.random.default_rng(seed))
            grown = matte.astype(int) - alpha
            assert grown.min() >= 0
            assert grown.max() == 255
            assert np.flatnonzero(grown.any(axis=1)).mean() < 150
            assert (drawn == colours)[alpha == 255].all()
            assert drawn[grown == 255].max() < 120  # of the colour of what is on the head, though the wall is white


def test_who_is_cut_off_at_the_top_has_more_hair_at_the_sides():
    colours, alpha = standing(top=0)
    drawn, matte = fuller_hair(colours, alpha, True, np.random.default_rng(0))
    grown = (matte > alpha).any(axis=0)
    assert grown[:70].any()
    assert grown[130:].any()
    assert (drawn == colours)[alpha == 255].all()


def test_who_has_no_head_to_be_seen_keeps_the_hair():
    colours, alpha = (np.rot90(each) for each in standing(top=40))  # she lies
    drawn, matte = fuller_hair(colours, alpha, True, np.random.default_rng(0))
    assert drawn is colours
    assert matte is alpha


def standing(top):
    """Return a dark head on dark shoulders before a white wall, (240, 200, 3), and the matte."""
    down, across = np.mgrid[:240, :200]
    head = np.hypot((across - 100) / 30, (down - top - 36) / 36) <= 1
    shoulders = (down >= top + 100) & (np.abs(across - 100) < 80) | (down >= top + 60) & (np.abs(across - 100) < 15)
    alpha = np.where(head | shoulders, 255, 0).astype(np.uint8)
    return np.where(alpha[..., None] > 0, (40, 30, 20), 255).astype(np.uint8), alpha


def test_nobody_has_an_empty_matte(data):
    sample = composites(data, nobody=1.0)[0]
    assert sample["matte"].max() == 0 == sample["trimap"].max()


def test_foregrounds_are_estimated_once(data):
    composites(data, composites=1.0)[0]
    kept = list((data / "kept").iterdir())
    before = [path.stat().st_mtime_ns for path in kept]
    composites(data, composites=1.0)[0]
    assert kept
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_the_same_person_is_on_one_side_only(data):
    for name in ("image", "alpha"):
        for path in list((data / "people" / name).iterdir()):
            (path.parent / path.name.replace("_a", "_b")).write_bytes(path.read_bytes())
    split = split_portraits([data / "people"], [data / "backgrounds"], 0.5, r"^(p\d)")
    sides = [{of_person(one.name, r"^(p\d)") for one in part} for part in (split.people, split.held_out)]
    assert not sides[0] & sides[1]
    assert len(split.people) + len(split.held_out) == 6
    assert all(is_held_out(who, 0.5) for who in sides[1])


def test_about_the_share_is_held_out_and_adding_people_moves_nobody():
    names = [f"person {number}" for number in range(2000)]
    assert sum(is_held_out(name, 0.2) for name in names) == pytest.approx(400, abs=60)
    assert all(is_held_out(name, 0.3) for name in names if is_held_out(name, 0.2))


def test_a_share_that_nobody_falls_into_is_told(data, caplog):
    assert split_portraits([data / "people"], [], 1e-9, "(.*)").held_out == []
    assert "Of 3 portraits none is held out" in caplog.text
    caplog.clear()
    split_portraits([data / "people"], [], 0.0, "(.*)")
    assert not caplog.text


def test_bad_data_are_named(data):
    with pytest.raises(DataError, match="multiple of 32"):
        Scene(size=100)
    with pytest.raises(DataError, match="All 3 portraits are held out"):
        split_portraits([data / "people"], [], 0.999999, "(.*)")
    Image.new("L", (10, 10)).save(data / "people" / "alpha" / "p0_a.png")
    first, second, _ = find_portraits(data / "people")
    with pytest.raises(DataError, match=r"p0_a\.png is 90x120 and .*p0_a\.png is 10x10"):
        read_pair(first)
    assert second.image is not None
    second.image.write_bytes(second.image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"p1_a\.png cannot be read"):
        read_pair(second)
