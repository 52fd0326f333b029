"""`matte` takes animated pictures as videos, and says where INT8 of a built-in network is had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.matting.making import disc, times_of

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("cv2")

MATTE = ("--model", "my_nets:Redness")
MOVING = [".gif", ".png", ".webp"]


@pytest.fixture
def moving(secateur, request):
    """Return the name of a picture of three frames, of 100, 300 and 50 ms."""
    name = f"moving{request.param}"
    first, *others = [Image.fromarray(disc(40, 50, radius)) for radius in (0.1, 0.2, 0.4)]
    first.save(name, save_all=True, append_images=others, duration=[100, 300, 50])
    return name


@pytest.mark.parametrize("moving", MOVING, indirect=True)
@pytest.mark.parametrize(
    ("options", "target"), [([], "out.webm"), (["--background", "white"], "out.mp4"), (["--only-mask"], "out.mkv")]
)
def test_an_animated_picture_becomes_a_video_at_its_times(secateur, moving, options, target):
    found = secateur("matte", moving, target, *options, *MATTE, "--json")
    assert found.code == 0, found.err
    (told,) = found.json
    assert (told["input"], told["output"], told["frames"]) == (moving, target, 3)
    assert (told["height"], told["width"]) == (40, 50)
    np.testing.assert_allclose(times_of(Path(target)), [0, 0.1, 0.4], atol=1e-3)


@pytest.mark.parametrize("moving", MOVING, indirect=True)
@pytest.mark.parametrize(("target", "written"), [("out.png", "out.png"), ("out/", "out/moving.png")])
def test_of_an_animated_picture_the_first_frame_becomes_a_picture(secateur, moving, target, written):
    found = secateur("matte", moving, target, *MATTE)
    assert found.code == 0, found.err
    assert "holds 3 pictures: the first is taken" in found.err
    with Image.open(written) as image:
        assert not getattr(image, "is_animated", False)
        assert image.size == (50, 40)


@pytest.mark.parametrize("moving", [".webp"], indirect=True)
def test_a_video_of_an_animated_picture_is_resumed_and_a_bad_name_refused(secateur, moving):
    Path("out.webm").write_bytes(b"there")
    assert secateur("matte", moving, "out.webm", *MATTE, "--resume").code == 0
    assert Path("out.webm").read_bytes() == b"there"
    found = secateur("matte", moving, "new.mp4", *MATTE)
    assert found.code == 1
    assert "new.mp4 would hold no transparency" in " ".join(found.err.split())


@pytest.mark.parametrize("moving", [".png"], indirect=True)
def test_a_broken_animation_warns(secateur, moving, caplog):
    whole = Path(moving).read_bytes()
    Path(moving).write_bytes(whole[: int(len(whole) * 0.7)])
    found = secateur("matte", moving, "out.webm", *MATTE, "--json")
    assert found.code == 0, found.err
    assert 0 < found.json[0]["frames"] < 3
    assert "breaks off" in found.json[0]["damage"]
    assert "moving.png is damaged" in caplog.text


@pytest.mark.parametrize("suffix", MOVING[1:])
def test_a_still_picture_becomes_no_video(secateur, suffix):
    Image.fromarray(disc(40, 50)).save(f"still{suffix}")
    found = secateur("matte", f"still{suffix}", "out.webm", *MATTE)
    assert found.code == 2
    assert "out.webm is no picture that can be written" in " ".join(found.err.split())
    assert not Path("out.webm").exists()


def test_a_gif_of_one_frame_becomes_a_video_of_one(secateur):
    Image.fromarray(disc(40, 50)).save("still.gif")
    found = secateur("matte", "still.gif", "out.webm", *MATTE)
    assert found.code == 0, found.err
    assert times_of(Path("out.webm")) == [0]


@pytest.mark.parametrize("runtime", ["torch", "torch-channels-last"])
@pytest.mark.parametrize("asked", [["--int8"], ["--precision", "int8"]])
def test_int8_of_a_runtime_without_a_file_says_which_have_one(secateur, runtime, asked):
    Image.fromarray(disc(40, 50)).save("a.jpg")
    found = secateur("matte", "a.jpg", "out.png", *asked, "--on", runtime)
    assert found.code == 1
    told = " ".join(found.err.split())
    assert f"modnet-small in INT8 comes as files for onnxruntime and openvino, and {runtime} opens none" in told
    assert "Say --on onnxruntime or --on openvino, or leave --int8 out." in told
    assert "calibrate" not in told
    assert not Path("out.png").exists()


@pytest.mark.parametrize("more", [[], ["--on", "openvino"]])
def test_int8_of_a_network_without_files_says_how_to_write_one(secateur, more):
    Image.fromarray(disc(40, 50)).save("a.jpg")
    found = secateur("matte", "a.jpg", "out.png", "--model", "modnet", "--int8", *more)
    assert found.code == 1
    told = " ".join(found.err.split())
    assert "modnet comes without a file in INT8." in told
    assert "secateur export modnet -o modnet.onnx --int8 --calibrate DIR, and give it as --model modnet.onnx." in told
    assert "Or take --model modnet-small" in told
    assert not Path("out.png").exists()


def test_a_misspelt_runtime_is_that_in_int8_too(secateur):
    Image.fromarray(disc(40, 50)).save("a.jpg")
    found = secateur("matte", "a.jpg", "out.png", "--int8", "--on", "openvin")
    assert found.code == 1
    assert "Did you mean openvino?" in found.err
