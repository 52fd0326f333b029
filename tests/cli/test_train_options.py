"""`train` is as long, as patient and as careful with norms and sizes as its options say."""

from __future__ import annotations

import csv

import pytest

from secateur.artifact.reading import read
from tests.matting.data_sets import write_set

pytest.importorskip("lightning_fabric")

NETS = """
from torch import nn


def tiny():
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.Sigmoid()
    return nn.Sequential(*layers).eval()
"""
SETTINGS = ["--size", "64", "--batch", "2", "--precision", "fp32", "--workers", "0"]
ALL = ["--held-out", "0"]  # nothing is validated, nor drawn
STILL = ["--rate", "1e-30", "--freeze-norms"]  # the network stays as it is


@pytest.fixture
def train(secateur, monkeypatch):
    """Run `secateur train` on eight portraits, with a small network of the user's own."""
    monkeypatch.setenv("SECATEUR_CACHE", str(secateur.folder / "cache"))
    (secateur.folder / "my_nets.py").write_text(NETS)
    write_set(secateur.folder / "set", [f"p{number}" for number in range(8)])
    assert (
        secateur("prune", "my_nets:tiny", "-o", "cut.safetensors", "--ratio", "0.5", "--input", "1x3x64x64").code == 0
    )

    def run(out, *options):
        line = ["train", "cut.safetensors", "--model", "my_nets:tiny", "--data", "set", "--out", out]
        return secateur(*line, *SETTINGS, *options)

    run.folder = secateur.folder
    return run


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def trained(train, out, *options):
    """Return the rows of a run's steps."""
    found = train(out, *options)
    assert found.code == 0, found.err
    return rows(train.folder / out / "steps.csv")


def test_minutes_say_how_many_steps_there_are_and_a_resumed_run_keeps_to_them(train):
    short, long = (trained(train, f"run-{minutes}", "--minutes", minutes, *ALL) for minutes in ("0.00001", "0.03"))
    assert len(short) == 1 < len(long)
    assert trained(train, "run-0.03", "--minutes", "0.03", "--resume", *ALL) == long


@pytest.mark.parametrize("minutes", ["0", "-1", "soon"])
def test_minutes_that_are_none_are_refused(train, minutes):
    found = train("run", "--minutes", minutes)
    assert found.code == 2
    assert "--minutes" in found.err
    assert not (train.folder / "run").exists()


def test_patience_ends_training_after_so_many_validations_without_a_better_one(train):
    found = train("run", "--epochs", "2", "--validate-every", "2", "--patience", "1", *STILL)
    assert found.code == 0, found.err
    assert "6 batches of 2" in found.err
    assert [row["step"] for row in rows(train.folder / "run" / "steps.csv")] == ["1", "2", "3", "4"]
    errors = [row["mad"] for row in rows(train.folder / "run" / "validation.csv")]
    assert len(errors) == 2
    assert errors[0] == errors[1]


def test_frozen_norms_keep_their_statistics_and_the_rest_is_trained(train):
    before = read("cut.safetensors").tensors
    for out, options in (("free", []), ("frozen", ["--freeze-norms"])):
        trained(train, out, "--epochs", "1", *ALL, *options)
        after = read(f"{out}/model.safetensors").tensors
        same = {name for name in before if before[name].equal(after[name])}
        kept = {name for name in before if "running" in name or "num_batches" in name}
        assert kept
        assert same == (kept if options else set())


def test_the_short_side_says_how_large_people_are(train):
    sides = {"usual": [], "said": ["48", "76.8"], "near": ["150", "160"], "far": ["24", "28"]}
    losses = {}
    for out, side in sides.items():
        run = trained(train, out, "--epochs", "1", *STILL, *ALL, *(["--short", *side] if side else []))
        losses[out] = [row["matte"] for row in run]
    assert losses["usual"] == losses["said"]
    assert losses["near"] != losses["usual"] != losses["far"] != losses["near"]
    found = train("near", "--epochs", "1", *STILL, *ALL, "--short", "24", "28", "--resume")
    assert found.code == 1
    assert "short=[150.0, 160.0], not [24.0, 28.0]" in found.err
