"""`matte` takes pictures, folders, videos and streams, and says in a line what it cannot do."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import secateur as library
from tests.matting.making import disc, make_video, times_of

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("cv2")

RED = ["--model", "my_nets:Redness"]
SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def matte(secateur):
    """Run `secateur matte` with the network whose matte is red, in a folder with a picture."""
    Image.fromarray(disc(60, 80)).save(secateur.folder / "a.jpg", quality=95, subsampling=0)

    def run(*arguments):
        return secateur("matte", *arguments, *([] if "--model" in arguments else RED))

    return run


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_picture_becomes_a_cut_out_at_its_size(matte):
    found = matte("a.jpg", "out.png", "--json")
    assert found.code == 0, found.err
    (told,) = found.json
    assert (told["input"], told["output"], told["height"], told["width"]) == ("a.jpg", "out.png", 60, 80)
    pixels = pixels_of("out.png")
    assert pixels.shape == (60, 80, 4)
    assert pixels[30, 40, 3] > 240
    assert pixels[0, 0].tolist()[3] < 15


@pytest.mark.parametrize(
    ("options", "name", "shape"),
    [
        (["--only-mask"], "out.png", (60, 80)),
        (["--only-mask"], "out.jpg", (60, 80)),
        (["--trimap"], "out.png", (60, 80)),
        (["--background", "#00b140"], "out.jpg", (60, 80, 3)),
        (["--background", "blur"], "out.png", (60, 80, 3)),
        (["--background", "back.png", "--refine", "guided"], "out.webp", (60, 80, 3)),
        ([], "out.webp", (60, 80, 4)),
        ([], "out.tif", (60, 80, 4)),
        (["--on", "onnxruntime"], "out.png", (60, 80, 4)),
        (["--precision", "bf16", "--threads", "1", "--batch", "2"], "out.png", (60, 80, 4)),
    ],
)
def test_outputs(matte, options, name, shape):
    if "onnxruntime" in options:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    Image.new("RGB", (30, 30), "white").save("back.png")
    found = matte("a.jpg", name, *options, "-q")
    assert found.code == 0, found.err
    assert pixels_of(name).shape == shape
    assert found.out == ""


def test_a_background_of_a_colour_is_that_colour(matte):
    assert matte("a.jpg", "out.png", "--background", "lime").code == 0
    assert np.abs(pixels_of("out.png")[0, 0].astype(int) - (0, 255, 0)).max() <= 20


def test_a_folder_is_mirrored_and_resumed(matte, secateur):
    for name in ("in/a.jpg", "in/x/b.png", "in/x/b.jpg", "in/x/c.gif"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disc(40, 50)).save(name)
    found = matte("in", "out")
    assert found.code == 0, found.err
    results = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png"))
    assert results == ["a.png", "x/b.jpg.png", "x/b.png.png", "x/c.png"]
    assert "b.jpg.png keeps the suffix" in " ".join(found.err.split())
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    Path("out/x/c.png").unlink()
    found = matte("in", "out", "--resume", "--json")
    assert [Path(one["output"]).name for one in found.json] == ["c.png"]
    assert all(path.stat().st_mtime_ns == then for path, then in before.items() if path.name != "c.png")
    assert matte("in", "out", "--resume", "--json").json == []
    assert matte("in", "jpegs", "--glob", "*.jpg").code == 0
    assert len(list(Path("jpegs").rglob("*.png"))) == 2


def test_videos_in_a_folder_are_named_and_left_out(matte):
    Path("in").mkdir()
    Image.fromarray(disc(40, 50)).save("in/a.jpg")
    Path("in/b.mp4").write_bytes(b"film")
    found = matte("in", "out")
    assert found.code == 0
    assert "give each by itself: b.mp4." in " ".join(found.err.split())
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


def test_a_broken_picture_among_many_is_listed_at_the_end(matte):
    Path("in").mkdir()
    for number in range(10):
        Image.fromarray(disc(40, 50)).save(f"in/{number}.jpg")
    Path("in/4.jpg").write_bytes(Path("in/4.jpg").read_bytes()[:300])
    found = matte("in", "out", "--json")
    assert found.code == 1
    assert len(list(Path("out").iterdir())) == 9
    assert [Path(one["input"]).name for one in found.json if "error" in one] == ["4.jpg"]
    assert "4.jpg cannot be read as a picture" in found.err
    assert found.err.splitlines()[-1] == "secateur: 1 of 10 pictures failed, see above; the rest is done."
    assert "Traceback" not in found.err


def test_an_animation_says_that_only_the_first_picture_is_taken(matte):
    first, second = Image.fromarray(disc(40, 50)), Image.fromarray(disc(40, 50, 0.1))
    first.save("a.gif", save_all=True, append_images=[second])
    found = matte("a.gif", "out.png")
    assert found.code == 0
    assert "holds 2 pictures: the first is taken" in found.err
    assert matte("a.gif", "out.webm").code == 0
    assert len(times_of(Path("out.webm"))) == 2


@pytest.mark.parametrize("name", ["out.webm", "out.mkv", "out.mov", "frames"])
def test_a_video_becomes_a_transparent_one_or_pictures(matte, name):
    make_video(Path("in.mp4"), sound="aac")
    found = matte("in.mp4", name, "--json")
    assert found.code == 0, found.err
    assert found.json[0]["frames"] == 10
    if name == "frames":
        assert len(list(Path(name).iterdir())) == 10
    else:
        # A sound that begins before zero shifts all in Matroska, which has no negative times.
        found, wanted = (np.asarray(times_of(Path(one))) for one in (name, "in.mp4"))
        np.testing.assert_allclose(found - found[0], wanted - wanted[0], atol=2e-3)


def test_a_video_with_a_broken_tail_warns(matte, caplog):
    make_video(Path("in.mkv"), tuple(range(0, 4000, 40)), size=(240, 320))
    Path("in.mkv").write_bytes(Path("in.mkv").read_bytes()[:-9000])
    found = matte("in.mkv", "out.mp4", "--only-mask", "--json")
    assert found.code == 0
    assert "damage" in found.json[0]
    assert "What was decoded is kept" in caplog.text


def test_streams(tmp_path):
    (tmp_path / "nets.py").write_text("from tests.matting.making import Redness\n")
    whole = io.BytesIO()
    Image.fromarray(disc(60, 80)).save(whole, "PNG")
    environment = {**os.environ, "PYTHONPATH": f"{SRC}:{SRC.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "secateur.cli", "matte", "-", "-", "--model", "nets:Redness"]
    found = subprocess.run(
        command, input=whole.getvalue(), cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert np.asarray(Image.open(io.BytesIO(found.stdout))).shape == (60, 80, 4)
    found = subprocess.run(command, input=b"none", cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert found.returncode == 1
    assert found.stdout == b""
    assert b"The input cannot be read as a picture" in found.stderr
    assert b"Traceback" not in found.stderr


@pytest.fixture
def full_disk():
    """Let no file grow beyond a kilobyte, as if there were no more room."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["out.png", "out.webm", "out.mp4"])
def test_a_full_disk_leaves_no_half_file(matte, secateur, request, name):
    source = "a.jpg" if name == "out.png" else "in.mkv"
    Image.effect_noise((300, 300), 90).convert("RGB").save("a.jpg")
    make_video(Path("in.mkv"), sound="aac")
    before = secateur.files()
    request.getfixturevalue("full_disk")
    found = matte(source, name, "--background", "white")
    assert found.code == 1
    assert f"{name} cannot be written" in found.err
    assert secateur.files() == before


def test_an_interrupted_folder_keeps_what_is_done_and_says_how_to_go_on(matte, secateur):
    (secateur.folder / "my_nets.py").write_text(
        "import torch\nfrom tests.matting.making import Redness\n\n"
        "class Interrupted(Redness):\n    calls = 0\n\n    def forward(self, x):\n        self.calls += 1\n"
        "        if self.calls == 6:\n            raise KeyboardInterrupt\n        return super().forward(x)\n"
    )
    Path("in").mkdir()
    for number in range(8):
        Image.fromarray(disc(40, 50)).save(f"in/{number}.jpg")
    found = matte("in", "out", "--model", "my_nets:Interrupted")
    assert found.code == 130
    assert "--resume goes on with the rest" in found.err
    done = len(list(Path("out").iterdir()))
    assert 0 < done < 8
    assert all(path.suffix == ".png" and not path.name.startswith(".") for path in Path("out").iterdir())
    assert matte("in", "out", "--resume", "--json").code == 0
    assert len(list(Path("out").iterdir())) == 8


def test_an_exported_file_is_a_model(matte, secateur):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert secateur("export", "my_nets:Redness", "-o", "red.onnx", "--input", "1x3x64x64").code == 0
    assert matte("a.jpg", "out.png", "--model", "red.onnx", "--precision", "int8").code == 0
    assert pixels_of("out.png")[30, 40, 3] > 240


def test_a_networks_own_pre_processing_goes_with_it_everywhere(matte, secateur):
    """A network that wants other numbers than the published ones, saved and exported, gives the same mattes."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    own = {"mean": [0.0, 0.2, 0.4], "std": [1.0, 0.9, 0.8]}
    network = torch.nn.Conv2d(3, 1, 1)
    torch.nn.init.constant_(network.weight, 0.3)
    torch.nn.init.zeros_(network.bias)
    module = secateur.folder / "own_nets.py"
    module.write_text("import torch\n\n\ndef net():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1)).eval()\n")
    model, example = torch.nn.Sequential(network).eval(), torch.zeros(1, 3, 64, 64)
    library.save("own.safetensors", *library.prune(model, example, ratio=0.5), preprocessing=own)
    given = ["--model", "own_nets:net", "--input", "1x3x64x64"]
    for name in ("own.onnx", "own.xml"):
        done = secateur("export", "own.safetensors", "-o", name, *given, "--dynamic", "batch,height,width")
        assert done.code == 0, done.err
    pixels = disc(60, 80) / 255
    expected = ((pixels - own["mean"]) / own["std"]).sum(axis=2)[30, 40] * 0.3
    for name in ("own.onnx", "own.xml"):
        assert matte("a.jpg", "out.png", "--only-mask", "--model", name).code == 0
        assert abs(pixels_of("out.png")[30, 40] / 255 - expected) < 0.03, name


def test_random_weights_are_told(matte, caplog):
    assert matte("a.jpg", "out.png", "--model", "modnet", "--weights", "random").code == 0
    assert "weights of modnet are random" in caplog.text


def test_without_a_model_the_one_that_comes_trained_is_taken(secateur):
    astronaut = pytest.importorskip("skimage.data").astronaut()
    Image.fromarray(astronaut).save("astronaut.png")
    found = secateur("matte", "astronaut.png", "mask.png", "--only-mask")
    assert found.code == 0
    mask = pixels_of("mask.png")
    assert mask[100:200, 180:260].mean() > 0.9 * 255
    assert mask[:60, 120:150].mean() < 0.05 * 255


def test_int8_is_that_of_the_trained_network(secateur):
    pytest.importorskip("openvino")
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save("astronaut.png")
    for name, more in (("fine", []), ("coarse", ["--int8"])):
        assert secateur("matte", "astronaut.png", f"{name}.png", "--only-mask", *more).code == 0
    fine, coarse = (pixels_of(f"{name}.png") / 255 for name in ("fine", "coarse"))
    assert 0 < abs(fine - coarse).mean() < 0.01


def test_int8_is_computed_by_openvino_where_both_runtimes_are_there(secateur):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save("astronaut.png")
    masks = {}
    for name, more in (("unsaid", []), ("openvino", ["--on", "openvino"]), ("onnxruntime", ["--on", "onnxruntime"])):
        assert secateur("matte", "astronaut.png", f"{name}.png", "--only-mask", "--int8", *more).code == 0
        masks[name] = pixels_of(f"{name}.png")
    assert (masks["unsaid"] == masks["openvino"]).all()
    assert (masks["unsaid"] != masks["onnxruntime"]).any()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["nowhere.jpg", "out.png"], 1, "is not there"),
        (["empty", "out"], 1, "holds no picture"),
        (["empty", "out", "--glob", "*.xyz"], 1, "nothing like"),
        (["empty", "-"], 2, "Name it instead of -"),
        (["a.jpg", "out.jpg"], 2, "would hold no transparency"),
        (["a.jpg", "out.xyz"], 2, "no picture that can be written"),
        (["a.jpg", "a.jpg", "--only-mask"], 2, "written over"),
        (["a.jpg", "-", "--json"], 2, "standard output"),
        (["a.jpg", "missing/out.png"], 1, "does not exist"),
        (["a.jpg", "a.jpg/"], 1, "cannot be written"),
        (["a.jpg", "out.png", "--background", "nocolour"], 2, "no background"),
        (["a.jpg", "out.png", "--background", "empty"], 1, "cannot be read"),
        (["a.jpg", "out.png", "--only-mask", "--background", "blur"], 2, "show no colours"),
        (["a.jpg", "out.png", "--batch", "0"], 2, "batch"),
        (["a.jpg", "out.png", "--on", "onxruntime"], 1, "Did you mean"),
        (["a.jpg", "out.png", "--precision", "int8"], 2, "calibrated"),
        (["a.jpg", "out.png", "--refine", "magic"], 2, "guided"),
        (["a.jpg", "out.png", "--model", "modnt"], 2, "modnet"),
        (["a.jpg", "out.png", "--model", "lenet"], 1, "LeNet"),
        (["a.jpg", "out.png", "--model", "nowhere.onnx"], 1, "not there"),
        (["broken.mp4", "out.webm"], 1, "cannot be read as a video"),
        (["broken.png", "out.png"], 1, "cannot be read as a picture"),
        (["broken.mp4", "-"], 2, "standard output"),
    ],
)
def test_what_makes_no_sense_is_refused(matte, secateur, arguments, code, expected):
    Path("empty").mkdir()
    Path("broken.mp4").write_bytes(b"no video")
    Path("broken.png").write_bytes(b"no picture")
    before = secateur.files()
    found = matte(*arguments)
    assert found.code == code, found.err
    assert expected in " ".join(found.err.split())
    assert found.err.strip().splitlines()[-1].startswith("secateur: ")
    assert "Traceback" not in found.err
    assert found.out == ""
    assert secateur.files() - before <= {"out"}
