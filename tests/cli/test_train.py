"""`train` makes a network of portraits, beside a teacher if there is one, and goes on where it was stopped."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time

import pytest
import torch

import secateur
from secateur.models import MobileNetV2, MODNet
from tests.matting.data_sets import write_set

SETTINGS = ["--size", "64", "--batch", "2", "--epochs", "1", "--precision", "fp32", "--workers", "0"]


@pytest.fixture
def data(secateur, monkeypatch):
    """A folder with a set of portraits."""
    pytest.importorskip("lightning_fabric")
    monkeypatch.setenv("SECATEUR_CACHE", str(secateur.folder / "cache"))
    write_set(secateur.folder / "set", [f"p{number}" for number in range(8)])
    return secateur


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_pruned_network_is_trained_beside_its_teacher_and_stays_what_its_plan_says(data):
    assert data("train", "modnet", "--data", "set", "--out", "full", *SETTINGS).code == 0
    pruned = data("prune", "full/model.safetensors", "-o", "cut.safetensors", "--ratio", "0.5", "--input", "1x3x64x64")
    assert pruned.code == 0
    found = data(
        "train", "cut.safetensors", "--teacher", "full/model.safetensors", "--data", "set", "--out", "small", *SETTINGS
    )
    assert found.code == 0, found.err
    assert "small/model.safetensors: mad " in found.out
    steps = rows(data.folder / "small" / "steps.csv")
    assert {"semantic", "detail", "matte", "taught_semantic", "taught_detail", "taught_matte", "features"} <= set(
        steps[0]
    )
    small = secateur.load(data.folder / "small" / "model.safetensors", into=MODNet())
    cut = secateur.load(data.folder / "cut.safetensors", into=MODNet())
    assert {name: one.shape for name, one in small.state_dict().items()} == {
        name: one.shape for name, one in cut.state_dict().items()
    }
    assert [path.name for path in (data.folder / "small" / "mattes").iterdir()] == [f"{len(steps):06}.png"]
    assert data("verify", "small/model.safetensors").code == 0


def test_only_the_semantic_branch_is_trained(data):
    assert data("train", "modnet", "--data", "set", "--out", "full", *SETTINGS).code == 0
    line = ["train", "full/model.safetensors", "--data", "set", "--only-semantic", *SETTINGS]
    found = data(*line, "--out", "found")
    assert found.code == 0, found.err
    before, after = (
        secateur.load(data.folder / name / "model.safetensors", into=MODNet()).state_dict()
        for name in ("full", "found")
    )
    changed = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    assert changed == {"backbone", "lr_branch"}
    assert "semantic_mad" in rows(data.folder / "found" / "validation.csv")[0]
    assert set(rows(data.folder / "found" / "steps.csv")[0]) == {"step", "rate", "total", "semantic"}


def test_the_semantic_loss_may_be_cross_entropy(data):
    for words, out in (([], "squared"), (["--cross-entropy"], "entropy")):
        assert data("train", "modnet", "--data", "set", "--out", out, *words, *SETTINGS).code == 0
    squared, entropy = (rows(data.folder / out / "steps.csv")[0] for out in ("squared", "entropy"))
    assert squared["detail"] == entropy["detail"]
    assert squared["semantic"] != entropy["semantic"]


def test_it_is_trained_as_it_will_be_in_int8(data):
    branches = ["--keep-float", "lr_branch", "--keep-float", "hr_branch", "--keep-float", "f_branch"]
    for words, out in (([], "float"), (["--int8"], "int8"), (["--int8", *branches], "kept")):
        found = data("train", "modnet", "--data", "set", "--out", out, *words, *SETTINGS)
        assert found.code == 0, found.err
    plain, rounded, kept = (rows(data.folder / out / "steps.csv")[0] for out in ("float", "int8", "kept"))
    for name in ("semantic", "detail", "matte"):
        assert float(rounded[name]) == pytest.approx(float(plain[name]), rel=0.2)
        assert rounded[name] != plain[name]
    assert kept["total"] != rounded["total"]
    assert data("verify", "int8/model.safetensors").code == 0


def test_a_saved_file_keeps_what_another_backbone_does_not_bring(data):
    torch.manual_seed(3)
    torch.save(MobileNetV2().state_dict(), data.folder / "backbone.pth")
    assert data("train", "modnet", "--data", "set", "--out", "mine", *SETTINGS).code == 0
    line = ["train", "mine/model.safetensors", "--data", "set", "--backbone", "backbone.pth", "--out", "found"]
    found = data(*line, *SETTINGS, "--rate", "1e-12")
    assert found.code == 0, found.err
    mine, made = (secateur.load(data.folder / name / "model.safetensors", into=MODNet()) for name in ("mine", "found"))
    assert torch.allclose(made.f_branch.conv_f[1].layers[0].weight, mine.f_branch.conv_f[1].layers[0].weight)
    last = torch.load(data.folder / "backbone.pth", weights_only=True)["features.18.0.weight"]
    assert torch.allclose(made.backbone.model.features[18][0].weight, last)
    assert not torch.allclose(mine.backbone.model.features[18][0].weight, last)


def test_a_folder_that_nobody_named_is_not_written_over(data):
    line = ["train", "modnet", "--data", "set", *SETTINGS]
    assert data(*line).code == 0
    assert (data.folder / "trained" / "model.safetensors").exists()
    found = data(*line)
    assert found.code == 2
    assert "trained is there already" in " ".join(found.err.split())
    assert data(*line, "--resume").code == 0


def test_two_processes_train_as_one_would(data):
    line = [sys.executable, "-m", "secateur.cli", "train", "modnet", "--data", "set", *SETTINGS, "--batch", "4"]
    for processes in ("1", "2"):  # not in this process, whose command line another one would take up
        words = ["--processes", processes, "--out", processes]
        found = subprocess.run([*line, *words], capture_output=True, text=True, check=False, cwd=data.folder)
        assert found.returncode == 0, found.stderr
        assert "Grad strides" not in found.stderr
    one, two = (rows(data.folder / processes / "steps.csv") for processes in ("1", "2"))
    assert len(one) == len(two) > 1
    for first, second in zip(one, two, strict=True):
        assert float(second["total"]) == pytest.approx(float(first["total"]), rel=1e-3)
    full = [secateur.load(data.folder / name / "model.safetensors", into=MODNet()) for name in ("1", "2")]
    means = [model.backbone.model.features[0][1].running_mean for model in full]
    torch.testing.assert_close(*means, rtol=1e-2, atol=1e-3)


def test_estimating_colours_first_changes_no_digit(data, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    line = [sys.executable, "-m", "secateur.cli", "train", "modnet", "--data", "set", *SETTINGS, "--out"]
    for out in ("estimated", "kept"):  # what estimates is imported in the first run alone
        subprocess.run([*line, out], check=True, cwd=data.folder, capture_output=True)
    estimated, kept = (data.folder / out / "steps.csv" for out in ("estimated", "kept"))
    assert estimated.read_bytes() == kept.read_bytes()


@pytest.mark.slow
def test_pruning_in_steps_goes_on_where_it_was_killed(data):
    line = [sys.executable, "-m", "secateur.cli", "train", "modnet", "--data", "set", *SETTINGS, "--macs", "0.5x"]
    line += ["--steps", "2", "--resume", "--save-every", "1", "--out"]
    subprocess.run([*line, "whole"], check=True, cwd=data.folder, capture_output=True)
    for place in ("killed/step-1", "killed"):  # in the middle of each step
        run = subprocess.Popen([*line, "killed"], cwd=data.folder, stderr=subprocess.DEVNULL)
        steps = data.folder / place / "steps.csv"
        while run.poll() is None and not (steps.exists() and len(steps.read_text().splitlines()) > 2):
            time.sleep(0.01)
        run.kill()
        assert run.wait() == -signal.SIGKILL
    subprocess.run([*line, "killed"], check=True, cwd=data.folder, capture_output=True)
    for name in ("step-1/steps.csv", "steps.csv", "model.safetensors"):
        assert (data.folder / "whole" / name).read_bytes() == (data.folder / "killed" / name).read_bytes()


def test_it_goes_on_with_the_same_settings_alone(data):
    line = ["train", "modnet", "--data", "set", "--out", "full", *SETTINGS]
    assert data(*line).code == 0
    again = data(*line, "--resume")
    assert again.code == 0, again.err
    found = data(*line, "--resume", "--rate", "0.1")
    assert found.code == 1
    assert "Resume with the same settings" in found.err


def test_it_does_not_go_on_with_other_data(data):
    assert data("train", "modnet", "--data", "set", "--out", "run", *SETTINGS).code == 0
    found = data("train", "modnet", "--data", "set", "--out", "run", *SETTINGS, "--resume", "--held-out", "0.5")
    assert found.code == 1
    assert "was trained with steps=" in found.err
    assert ", not 2 files, " in found.err
    assert "held_out=0.15, not 0.5" in found.err


def test_it_prunes_in_steps_and_trains_after_each_beside_the_network_as_it_was(data):
    line = ["train", "modnet", "--data", "set", "--out", "small", "--macs", "0.5x", "--steps", "2", *SETTINGS]
    found = data(*line)
    assert found.code == 0, found.err
    assert len(rows(data.folder / "small" / "step-1" / "steps.csv")) == len(rows(data.folder / "small" / "steps.csv"))
    assert "taught_matte" in rows(data.folder / "small" / "steps.csv")[0]
    assert data("verify", "small/model.safetensors").code == 0
    before = (data.folder / "small" / "steps.csv").read_bytes()
    assert data(*line, "--resume").code == 0
    assert (data.folder / "small" / "steps.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data", "nowhere", "--epochs", "1"], "nowhere is no folder"),
        (["--data", "set"], "--epochs or --minutes"),
        (["--data", "set", "--epochs", "1", "--steps", "3"], "Say how far with --macs"),
        (["--data", "set", "--epochs", "1", "--size", "100"], "multiple of 32"),
        (["--data", "set", "--epochs", "1", "--only-semantic", "--macs", "0.5x"], "prunes nothing"),
        (["--data", "set", "--epochs", "1", "--only-semantic", "--int8"], "--int8 is of a whole network"),
        (["--data", "set", "--epochs", "1", "--keep-float", "backbone"], "Add --int8"),
        (["--data", "set", "--epochs", "1", "--int8", "--keep-float", "backbon"], "no layer 'backbon' to keep"),
        (["--data", "set", "--epochs", "1", "--backbone", "missing.pth"], "missing.pth"),
        (["--data", "set", "--epochs", "1", "--person", "("], "'(' is no regular expression"),
        (["--data", "set", "--epochs", "1", "--size", "64", "--short", "90", "40"], "the least comes first"),
        (["--data", "set", "--epochs", "1", "--teacher-weights", "full.ckpt"], "Name it with --teacher"),
        (["--data", "set", "--minutes", "1", "--processes", "2"], "another number of steps. Give --epochs"),
        (["--data", "set", "--epochs", "1", "--teacher", "lenet"], "LeNet does not run on a picture"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_line(data, words, told):
    found = data("train", "modnet", "--out", "out", *words)
    assert found.code in (1, 2)
    assert told in found.err
    assert "Traceback" not in found.err
