"""Samples with two people, whose matte holds both; and samples that hang on their seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from secateur.matting.compositing import Composites, Scene
from secateur.matting.layouts import find_portraits

cv2 = pytest.importorskip("cv2")

ALONE = {"composites": 1.0, "nobody": 0.0, "near": 0.0, "far": 0.0, "hidden": 0.0, "dressed": 0.0, "haired": 0.0}


@pytest.fixture
def data(tmp_path):
    """Foregrounds of a red and of a green person, discs that touch no side of their pictures; and a blue background."""
    for part in ("people/fg", "people/alpha", "backgrounds"):
        (tmp_path / part).mkdir(parents=True)
    down, across = np.mgrid[:80, :80]
    alpha = (np.clip((26 - np.hypot(down - 40, across - 40)) / 3 + 0.5, 0, 1) * 255).astype(np.uint8)
    for name, colour in (("red", (210, 30, 30)), ("green", (30, 210, 30))):
        Image.new("RGB", (80, 80), colour).save(tmp_path / "people" / "fg" / f"{name}.png")
        Image.fromarray(alpha).save(tmp_path / "people" / "alpha" / f"{name}.png")
    Image.new("RGB", (90, 90), (30, 30, 210)).save(tmp_path / "backgrounds" / "blue.png")
    return tmp_path


def samples_of(data, seed=1, **scene):
    settings = {"size": 96, "short": (40, 60), "grey": 0.0, **ALONE, **scene}
    pictures = [data / "backgrounds" / "blue.png"]
    return Composites(find_portraits(data / "people"), pictures, Scene(**settings), seed)


def areas(sample):
    """Return the separate areas of the matte, as masks, specks left out."""
    count, labels = cv2.connectedComponents((sample["matte"][0].numpy() > 0.9).astype(np.uint8))
    return [labels == one for one in range(1, count) if (labels == one).sum() > 30]


def test_a_second_person_is_in_the_matte_and_in_the_picture(data):
    alone, both = ([samples_of(data, company=share)[number] for number in range(40)] for share in (0.0, 1.0))
    assert {len(areas(sample)) for sample in alone} == {1}
    assert sum(len(areas(sample)) == 2 for sample in both) > 8
    assert {len(areas(sample)) for sample in both} == {1, 2}
    covered = [np.mean([float(sample["matte"].mean()) for sample in some]) for some in (alone, both)]
    assert 1.4 * covered[0] < covered[1] <= 2.1 * covered[0]


def test_each_of_two_people_has_the_colours_of_one(data):
    pairs = []
    for number in range(40):
        sample = samples_of(data, company=1.0)[number]
        means = [sample["image"].numpy()[:, area].mean(axis=1) for area in areas(sample)]
        pairs += [tuple(sorted(float(red - green) for red, green, _ in means))] if len(means) == 2 else []
    assert sum(low < -0.1 and high > 0.1 for low, high in pairs) >= 3  # a green and a red one
    assert sum(low > 0.1 or high < -0.1 for low, high in pairs) >= 3  # the same person twice


def test_company_is_kept_in_its_share(data):
    samples = samples_of(data, company=0.5)
    pairs = sum(len(areas(samples[number])) == 2 for number in range(60))
    whole = sum(len(areas(samples_of(data, company=1.0)[number])) == 2 for number in range(60))
    assert 0.2 * whole < pairs < 0.8 * whole


def test_the_same_seed_gives_the_same_samples_and_another_gives_others(data):
    varied = {"company": 0.5, "near": 0.2, "far": 0.4, "hidden": 0.3, "dressed": 0.4, "haired": 0.3, "nobody": 0.1}
    first, again, other = (samples_of(data, seed, grey=0.2, **varied) for seed in (5, 5, 6))
    for number in range(16):
        for name, value in first[number].items():
            assert torch.equal(value, again[number][name])
        assert not torch.equal(first[number]["image"], other[number]["image"])
