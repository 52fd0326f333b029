"""A bundle runs where there is neither PyTorch nor secateur, and computes what the model does; or there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.cli.main import run
from secateur.errors import ArtifactError, ExportError, RuntimeUnfitError, SecateurError
from secateur.models import LeNet, MobileNetV2, MODNet
from secateur.models.pictures import prepared_pictures, read_picture
from secateur.models.registry import entry_of
from secateur.shipping import bundling
from secateur.shipping.bundling import bundle

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
Image = pytest.importorskip("PIL.Image")

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
BARE = {name: value for name, value in os.environ.items() if name not in OURS}
NETWORKS = {"onnxruntime": {"model.onnx"}, "openvino": {"model.xml", "model.bin"}}
STATISTICS = {"mean": [0.4, 0.5, 0.6], "std": [0.25, 0.5, 1.0]}


class Bare:
    """An environment of its own, with a runtime, numpy and Pillow."""

    def __init__(self, runtime: str, python: Path) -> None:
        self.runtime, self.python = runtime, python

    def __call__(self, *arguments: str | Path, within: Path) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, cwd=within, env=BARE, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session", params=list(NETWORKS))
def bare(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(f"bare-{request.param}")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "--python", place, "install", "-q", "-c", CONSTRAINTS]
    done = subprocess.run([*pip, request.param, "numpy", "Pillow"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip cannot install {request.param}: {done.stderr.strip()[-300:]}")
    found = Bare(request.param, place / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    for package in ("torch", "secateur"):
        assert f"No module named '{package}'" in found("-c", f"import {package}", within=place).stderr
    return found


@pytest.fixture
def photograph(tmp_path):
    """A picture on its side, as cameras save it: EXIF tells to turn it upright, to 90 x 120 (width x height)."""
    rng = np.random.default_rng(0)
    values = np.linspace(0, 200, 90 * 120).reshape(90, 120, 1) + rng.integers(0, 55, (90, 120, 3))
    picture = Image.fromarray(values.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "photograph.jpg", exif=exif)
    return tmp_path / "photograph.jpg"


def expected_of(model, example, picture, preprocessing=None):
    entry = entry_of(model)
    mean, std = (entry.mean, entry.std) if entry else (preprocessing["mean"], preprocessing["std"])
    (given,) = prepared_pictures([picture], example.shape, mean, std)
    with torch.inference_mode():
        return model(given, **entry.inference if entry else {})


def ready(model):
    """Return a model whose scores are far enough apart to tell pictures from each other."""
    torch.manual_seed(0)
    model = model().eval()
    for layer in [one for one in model.modules() if isinstance(one, nn.Linear)][-1:]:
        layer.weight.data *= 20
    return model


def test_a_matte_has_the_size_of_the_picture_and_the_values_of_pytorch(bare, tmp_path, photograph):
    model, example = ready(MODNet), torch.zeros(1, 3, 64, 64)
    made = bundle(model, tmp_path / "made", example, bare.runtime, measure=False)
    assert {path.name for path in made.folder.iterdir()} == {
        "run.py", "README.md", "measurements.json", *NETWORKS[bare.runtime],
    }  # fmt: skip
    done = bare("run.py", photograph, within=made.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Saved: matte.png\n", "")
    with Image.open(made.folder / "matte.png") as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "L", (90, 120))
        matte = np.asarray(opened, np.float32)
    *_, output = expected_of(model, example, photograph)
    resized = Image.fromarray(output[0, 0].numpy()).resize((90, 120), Image.Resampling.BILINEAR)
    assert np.abs(matte - 255 * np.asarray(resized)).max() < 0.6
    assert matte.std() > 1


def test_grey_of_16_bits_keeps_its_tones(bare, tmp_path, photograph):
    made = bundle(ready(MODNet), tmp_path / "made", torch.zeros(1, 3, 64, 64), bare.runtime, measure=False)
    with Image.open(photograph) as opened:
        grey = np.asarray(opened.convert("L"))
    for name, values in (("shallow", grey), ("deep", grey.astype(np.uint16) * 257)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        assert bare("run.py", tmp_path / f"{name}.png", tmp_path / f"{name}-matte.png", within=made.folder).stderr == ""
    assert (tmp_path / "deep-matte.png").read_bytes() == (tmp_path / "shallow-matte.png").read_bytes()


@pytest.mark.parametrize(
    ("build", "shape"), [(MobileNetV2, (1, 3, 64, 64)), (LeNet, (1, 1, 28, 28))], ids=["mobilenetv2", "lenet"]
)
def test_scores_are_those_of_pytorch(bare, build, shape, tmp_path, photograph):
    model, example = ready(build), torch.zeros(shape)
    made = bundle(model, tmp_path / "made", example, bare.runtime, measure=False)
    done = bare("run.py", photograph, within=made.folder)
    assert (done.returncode, done.stderr) == (0, "")
    check_scores(done.stdout, expected_of(model, example, photograph))


def check_scores(printed, expected, tolerance=1e-4):
    lines = [line.split() for line in printed.splitlines()]
    shares = torch.softmax(expected[0], dim=0)
    assert len(lines) == 5
    assert max(abs(float(share) - shares[int(index)].item()) for share, index in lines) < tolerance
    least = shares.topk(5).values.min().item()
    assert all(shares[int(index)] > least - tolerance for _, index in lines)
    assert shares.max() > 1.5 / len(shares)


def test_anything_else_is_saved_by_name_from_wherever_run_py_is_called(bare, tmp_path, photograph):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return {"features": self.conv(x), "mean": x.mean((2, 3))}

    model, example = Two().eval(), torch.zeros(2, 3, 24, 40)
    made = bundle(model, tmp_path / "made", example, bare.runtime, preprocessing=STATISTICS, measure=False)
    assert made.inputs == ((1, 3, 24, 40),)
    done = bare("made/run.py", photograph, "found.npz", within=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Saved: found.npz\n", "")
    expected = expected_of(model, example, photograph, STATISTICS)
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == {"features", "mean"}
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)


def test_small_pictures_are_enlarged_as_in_training(bare, tmp_path):
    model, example = ready(LeNet), torch.zeros(1, 1, 28, 28)
    picture = tmp_path / "digit.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 40), np.uint8)).save(picture)
    made = bundle(model, tmp_path / "made", example, bare.runtime, measure=False)
    done = bare("run.py", picture, "scores.txt", within=made.folder)
    check_scores(done.stdout, expected_of(model, example, picture))
    assert (made.folder / "scores.txt").read_text() == done.stdout


def test_int8_and_fp16_run_there_too(bare, tmp_path, photograph):
    model, example = ready(LeNet), torch.zeros(1, 1, 28, 28)
    samples = [[read_picture(photograph, 1, (28, 28))[None]] for _ in range(8)]
    for precision, tolerance in (("fp16", 1e-2), ("int8", 0.3)):
        if precision == "int8" and bare.runtime == "openvino":
            pytest.importorskip("nncf")
        made = bundle(model, tmp_path / precision, example, bare.runtime, precision, samples=samples, measure=False)
        done = bare("run.py", photograph, within=made.folder)
        assert done.returncode == 0, done.stderr
        check_scores(done.stdout, expected_of(model, example, photograph), tolerance)
        assert f"| precision | {precision} |" in (made.folder / "README.md").read_text(encoding="utf-8")


def test_without_a_picture_it_says_how_it_is_used(bare, tmp_path):
    made = bundle(LeNet(), tmp_path / "made", torch.zeros(1, 1, 28, 28), bare.runtime, measure=False)
    done = bare("run.py", within=made.folder)
    assert done.returncode == 1
    assert "Usage: python run.py PICTURE [OUTPUT]" in done.stderr


def lenet(folder, **arguments):
    return bundle(LeNet(), folder, torch.zeros(1, 1, 28, 28), **{"measure": False, **arguments})


@pytest.mark.parametrize("runtime", NETWORKS)
def test_a_bundle_says_what_it_is(runtime, tmp_path):
    made = lenet(tmp_path / "made", runtime=runtime, measure=True, metadata={"secateur.model": "LeNet"})
    assert len((made.folder / "run.py").read_text().splitlines()) <= 30
    told = (made.folder / "README.md").read_text(encoding="utf-8")
    for expected in (
        f"pip install {runtime}=={made.version} numpy Pillow\npython run.py PICTURE [OUTPUT]",
        "| input | `input`, 1 × 1 × 28 × 28 |",
        "| output | `output`, 1 × 10 |",
        "mean 0.1307 and std 0.3081",
        f"{sum((made.folder / name).stat().st_size for name in NETWORKS[runtime]) / 2**20:.2f} MB",
        str(made.machine),
        "ms, the median of",
    ):
        assert expected in told
    found = json.loads((made.folder / "measurements.json").read_text())
    assert found["inputs"] == {"input": [1, 1, 28, 28]}
    assert found["time"]["rounds"] > 10
    assert 0 < found["time"]["low_ms"] <= found["time"]["median_ms"] <= found["time"]["high_ms"]
    assert all(gap["error"] < 1e-4 for gap in found["gaps"])


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "made").mkdir()
    assert lenet(tmp_path / "made").cell is None
    assert "not measured" in (tmp_path / "made" / "README.md").read_text(encoding="utf-8")


def test_what_is_there_stays(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("dear")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place, why in (
        (tmp_path / "full", "not empty"),
        (tmp_path / "full" / "diary.txt", "no folder"),
        (".", "the folder that you are in"),
    ):
        with pytest.raises(ArtifactError, match=f"{why}. Name a folder that is not there yet"):
            lenet(place, force=True)
    with pytest.raises(ArtifactError, match=r"does not exist\. Create it"):
        lenet(tmp_path / "no" / "where")
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "diary.txt", "here"}


class Dice(nn.Module):
    def forward(self, x):
        return x + torch.rand(x.shape)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError("no space"), SecateurError("no luck")])
def test_failing_at_the_last_step_leaves_nothing(raised, existing, tmp_path, monkeypatch):
    def fail(*_):
        raise raised

    place = tmp_path / "made"
    if existing:
        place.mkdir()
    monkeypatch.setattr(bundling, "document", fail)
    with pytest.raises((KeyboardInterrupt, SecateurError)):
        lenet(place)
    assert [path.name for path in tmp_path.rglob("*")] == ["made"] * existing


def test_what_computes_something_else_is_not_written_unless_asked_for(tmp_path):
    example = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ExportError, match="Dice in fp32 gives another output than PyTorch"):
        bundle(Dice(), tmp_path / "made", example, preprocessing=STATISTICS, measure=False)
    assert not list(tmp_path.iterdir())
    made = bundle(Dice(), tmp_path / "made", example, preprocessing=STATISTICS, measure=False, force=True)
    assert made.deployed.worst.error > 0.1
    json.loads((made.folder / "measurements.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("model", "example", "arguments", "expected"),
    [
        (nn.CosineSimilarity(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)), {}, "takes 2 inputs.*around it"),
        (nn.Linear(5, 2), torch.zeros(1, 5), {}, "takes 1x5 in float32, which is no picture"),
        (nn.Identity(), torch.zeros(1, 3, 8, 8, dtype=torch.int64), {}, "in int64, which is no picture"),
        (nn.Identity(), torch.zeros(1, 3, 8, 8), {}, "How Identity wants its pictures is not known.*preprocessing="),
        (nn.Identity(), torch.zeros(1, 3, 8, 8), {"preprocessing": {"mean": [0.5]}}, "is not known"),
        (
            nn.Identity(),
            torch.zeros(1, 1, 8, 8),
            {"preprocessing": STATISTICS},
            "pictures of 1 channels.*Give 1 numbers",
        ),
        (
            nn.Identity(),
            torch.zeros(1, 3, 8, 8),
            {"preprocessing": {"mean": [0, 0, 0], "std": [1, 0, 1]}},
            "those of std above 0",
        ),
        (nn.Identity(), torch.zeros(1, 3, 8, 8), {"runtime": "torch"}, "runs without PyTorch.*Known: onnxruntime"),
        (nn.Identity(), torch.zeros(1, 3, 8, 8), {"runtime": "openvno"}, "Did you mean openvino"),
        (nn.Identity(), torch.zeros(1, 3, 8, 8), {"preprocessing": STATISTICS, "precision": "int8"}, "calibrate on"),
    ],
)
def test_what_run_py_cannot_do_is_refused(model, example, arguments, expected, tmp_path):
    with pytest.raises((ExportError, RuntimeUnfitError), match=expected):
        bundle(model, tmp_path / "made", example, **arguments)
    assert not list(tmp_path.iterdir())


def test_the_command_bundles_a_pruned_file(tmp_path, monkeypatch, capsys):
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    small, plan = secateur.prune(LeNet().eval(), torch.zeros(1, 1, 28, 28), ratio=0.5)
    secateur.save("small.safetensors", small, plan)
    assert run(["bundle", "small.safetensors", "-o", "digits", "--no-measure", "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(tmp_path / "digits")
    assert told["parameters"] == sum(one.numel() for one in small.parameters())
    entries = {one.key: one.value for one in onnx.load(str(tmp_path / "digits" / "model.onnx")).metadata_props}
    assert entries["secateur.preprocessing"] == '{"mean": [0.1307], "std": [0.3081]}'
    assert len(entries["secateur.plans"]) > 60


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["lenet", "-o", "made", "--int8"], 2, "--int8 and --calibrate go together"),
        (["lenet", "-o", "made", "--on", "torch"], 2, "'torch' is not one of 'onnxruntime', 'openvino'"),
        (["lenet", "-o", "no/made"], 1, "does not exist. Create it"),
        (["torch.nn:Identity", "-o", "made", "--input", "1x3x8x8"], 1, "is not known"),
        (
            ["torch.nn:CosineSimilarity", "-o", "made", "--input", "1x3x8x8", "--input", "1x3x8x8"],
            1,
            "takes 2 inputs (1x3x8x8, 1x3x8x8)",
        ),
        (
            [
                *("torch.nn:CosineSimilarity", "-o", "made", "--int8", "--calibrate", "."),
                *("--input", "1x3x8x8", "--input", "1x3x8x8"),
            ],
            2,
            "--calibrate reads pictures for one",
        ),
    ],
)
def test_the_command_says_what_to_do_instead(arguments, code, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["bundle", *arguments, "-q"]) == code
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
