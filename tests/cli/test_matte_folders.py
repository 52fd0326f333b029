"""`matte` on folders: a thousand pictures and a broken one, what is there already, and pictures of 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
cv2 = pytest.importorskip("cv2")

RED = ["--model", "my_nets:Redness"]


def strips(folder, count, suffix=".jpg"):
    """Write pictures of 32x512, which the network sees as they are; the brighter in red the higher their number."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (512, 32), (number % 200, 40, 40)).save(f"{folder}/{number:04}{suffix}")


def level(path):
    with Image.open(path) as image:
        return np.asarray(image).mean()


def test_a_truncated_jpeg_among_a_thousand_costs_its_own_result_alone(secateur):
    strips("in", 1000)
    broken = Path("in/0500.jpg")
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    found = secateur("matte", "in", "out", "--only-mask", "--json", *RED)
    assert found.code == 1
    assert "Traceback" not in found.err
    first, last = found.err.splitlines()[-2:]
    assert "in/0500.jpg cannot be read as a picture" in first
    assert last == "secateur: 1 of 1000 pictures failed, see above; the rest is done."
    assert [one["input"] for one in found.json if "error" in one] == ["in/0500.jpg"]
    done = {path.name for path in Path("out").iterdir()}
    assert done == {f"{number:04}.png" for number in range(1000)} - {"0500.png"}
    for number in range(0, 1000, 37):
        assert level(f"out/{number:04}.png") == pytest.approx(number % 200, abs=3)
    broken.write_bytes(whole)
    again = secateur("matte", "in", "out", "--only-mask", "--json", "--resume", *RED)
    assert again.code == 0, again.err
    assert [one["input"] for one in again.json] == ["in/0500.jpg"]
    assert level("out/0500.png") == pytest.approx(100, abs=3)


def test_a_pattern_and_what_is_there_choose_together(secateur):
    strips("in/first", 3)
    strips("in/second", 3)
    strips("in/second/deep", 2, ".png")

    def run(*options):
        found = secateur("matte", "in", "out", "--only-mask", "--json", *options, *RED)
        assert found.code == 0, found.err
        return [one["input"] for one in found.json]

    assert run("--glob", "first/*.jpg") == [f"in/first/000{number}.jpg" for number in range(3)]
    Path("out/first/0001.png").unlink()
    assert run("--glob", "first/*", "--resume") == ["in/first/0001.jpg"]
    assert run("--glob", "*.jpg", "--resume") == [f"in/second/000{number}.jpg" for number in range(3)]
    assert run("--glob", "*1.*", "--resume") == ["in/second/deep/0001.png"]
    assert run("--resume") == ["in/second/deep/0000.png"]
    assert run("--resume") == []
    assert len(run("--glob", "*.jpg")) == 6


def test_a_picture_that_is_done_is_left_as_it_is(secateur):
    strips(".", 1, ".png")
    Path("out.png").write_bytes(b"done")
    found = secateur("matte", "0000.png", "out.png", "--resume", "--json", *RED)
    assert (found.code, found.json, Path("out.png").read_bytes()) == (0, [], b"done")
    assert secateur("matte", "0000.png", "out.png", *RED).code == 0
    assert Path("out.png").read_bytes() != b"done"


@pytest.mark.parametrize("channels", [3, 4])
def test_a_png_of_16_bits_is_cut_out_with_its_colours_and_its_transparency(secateur, channels):
    ramp = np.linspace(0, 65535, 40 * 60).reshape(40, 60)
    deep = np.dstack([ramp, ramp[::-1], np.full_like(ramp, 40000), ramp[:, ::-1]][:channels]).astype(np.uint16)
    cv2.imwrite("deep.png", deep[..., [2, 1, 0, 3][:channels]])
    assert Path("deep.png").read_bytes()[24] == 16
    assert secateur("matte", "deep.png", "out.png", *RED).code == 0
    with Image.open("out.png") as image:
        pixels = np.asarray(image).astype(float)
    shallow = np.rint(deep / 257)
    seen = pixels[..., 3] > 0
    assert np.abs(pixels[seen][:, :3] - shallow[seen][:, :3]).max() <= 1
    shown = shallow[..., 3] / 255 if channels == 4 else 1
    red_over_grey = shallow[..., 0] * shown + 128 * (1 - shown)
    assert np.abs(pixels[..., 3] - red_over_grey * shown).max() <= 8
