"""`matte` at soft edges: the person's own colours with --foreground, the picture's edges with --refine."""

from __future__ import annotations

import numpy as np
import pytest

from tests.matting.making import BLUE, RED

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("cv2")

SHARE = """
from torch import nn


class Share(nn.Module):
    def forward(self, x):
        return ((255 * (x[:, :1] + 1) / 2 - 10) / 240).clamp(0, 1)
"""


def matte_of(softness, height=96, width=128):
    """Return the matte of a disc whose edge is so many pixels wide."""
    rows, columns = np.mgrid[:height, :width]
    distance = 0.3 * height - np.hypot(rows - height / 2, columns - width / 2)
    return (distance / softness + 0.5).clip(0, 1)


@pytest.fixture
def matte(secateur):
    """Run `secateur matte` on a red disc on blue, with a network that gives the share of red."""
    (secateur.folder / "my_nets.py").write_text(SHARE)

    def run(truth, *options, model="my_nets:Share"):
        share = truth[..., None]
        pixels = np.asarray(RED) * share + np.asarray(BLUE) * (1 - share)
        Image.fromarray(np.rint(pixels).astype(np.uint8)).save("a.png")
        found = secateur("matte", "a.png", "out.png", "--model", model, "-q", *options)
        assert found.code == 0, found.err
        with Image.open("out.png") as image:
            return np.asarray(image).astype(float)

    return run


@pytest.fixture
def small(secateur):
    """The file of a network that sees every picture as 64x64."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    (secateur.folder / "my_nets.py").write_text(SHARE)
    assert secateur("export", "my_nets:Share", "-o", "small.onnx", "--input", "1x3x64x64").code == 0
    return "small.onnx"


def bleed(colours, where):
    """Return how far colours are from the person's own."""
    return np.abs(colours[where][:, :3] - RED).mean()


def test_the_old_background_does_not_bleed_into_a_cut_out(matte):
    pytest.importorskip("pymatting")
    truth = matte_of(14)
    plain, clean = matte(truth), matte(truth, "--foreground")
    assert np.abs(plain[..., 3] - 255 * truth).max() < 6
    assert np.array_equal(plain[..., 3], clean[..., 3])
    half = (truth > 0.2) & (truth < 0.8)
    assert bleed(plain, half) > 60
    assert bleed(clean, half) < 0.25 * bleed(plain, half)
    assert np.array_equal(clean[plain[..., 3] == 255], plain[plain[..., 3] == 255])


def test_the_old_background_does_not_bleed_into_a_new_one(matte):
    pytest.importorskip("pymatting")
    truth = matte_of(14)
    wanted = np.asarray(RED) * truth[..., None] + np.asarray((0, 255, 0)) * (1 - truth[..., None])
    half = (truth > 0.2) & (truth < 0.8)
    plain, clean = (matte(truth, "--background", "lime", *more) for more in ([], ["--foreground"]))
    errors = [np.abs(one - wanted)[half].mean() for one in (plain, clean)]
    assert errors[0] > 20
    assert errors[1] < 0.35 * errors[0]


@pytest.mark.parametrize("kind", ["--only-mask", "--trimap"])
def test_what_shows_no_colours_has_none_to_clean(secateur, kind):
    Image.new("RGB", (60, 40)).save("a.png")
    found = secateur("matte", "a.png", "out.png", kind, "--foreground", "--model", "my_nets:Redness")
    assert found.code == 2
    assert "show no colours" in " ".join(found.err.split())
    assert secateur.files() == {"a.png"}


@pytest.mark.parametrize("choice", ["guided", "closed-form"])
def test_a_small_matte_is_refined_to_the_edges_of_the_picture(matte, small, choice):
    if choice == "closed-form":
        pytest.importorskip("pymatting")
    truth = matte_of(2, 288, 384)
    plain, refined = (matte(truth, "--only-mask", *more, model=small) / 255 for more in ([], ["--refine", choice]))
    assert np.abs(refined - truth).mean() < 0.5 * np.abs(plain - truth).mean()


def test_a_cut_out_that_is_refined_and_cleaned_has_the_edge_and_the_colours(matte, small):
    pytest.importorskip("pymatting")
    truth = matte_of(6, 288, 384)
    plain, found = (matte(truth, *more, model=small) for more in ([], ["--refine", "guided", "--foreground"]))
    errors = [np.abs(one[..., 3] / 255 - truth).mean() for one in (plain, found)]
    assert errors[1] < 0.5 * errors[0]
    half = (truth > 0.2) & (truth < 0.8)
    assert bleed(found, half) < 0.5 * bleed(plain, half)
