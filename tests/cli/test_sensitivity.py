"""`sensitivity` and the options of `prune` that look at pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def pictures(secateur, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(16):
        image.fromarray(generator.integers(0, 255, (28, 28), np.uint8)).save(folder / f"{number:02}.png")
    return str(folder)


def test_it_measures_draws_and_writes(secateur, pictures, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["sensitivity", "lenet", "--data", pictures, "--shares", "0.25,0.5"]
    result = secateur(*arguments, "--figure", str(tmp_path / "heat.png"), "-o", str(tmp_path / "found.json"))
    assert result.code == 0
    assert "conv1" in result.out
    assert "50%" in result.out
    assert (tmp_path / "heat.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["groups"]) == ["conv1", "conv2", "fc1", "fc2"]
    assert found == secateur(*arguments, "--json").json


def test_pictures_choose_and_compensate(secateur, pictures):
    result = secateur(
        "prune", "lenet", "-o", "small.safetensors", "--macs", "0.5x", "--min-channels", "2", "--calibrate", pictures
    )
    assert result.code == 0
    assert "compensated" in result.out
    assert "before the weights were compensated" in result.out
    assert secateur("verify", "small.safetensors").code == 0
    told = secateur("inspect", "small.safetensors").out
    assert "once cut" in told
    assert max(map(len, told.splitlines())) < 300


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("prune", "lenet", "-o", "s.safetensors", "--quality", "-1%"), 2, "--quality and --metric go together"),
        (
            ("prune", "lenet", "-o", "s.safetensors", "--ratio", "0.5", "--mimic", "9"),
            2,
            "--mimic learns from pictures",
        ),
        (
            ("prune", "lenet", "-o", "s.safetensors", "--ratio", "0.5", "--allocate", "sensitivity"),
            2,
            "measures on pictures",
        ),
        (("prune", "lenet", "-o", "s.safetensors", "--ratio", "0.5", "--calibrate", "nowhere"), 1, "is no folder"),
        (
            ("prune", "lenet", "-o", "s.safetensors", "--quality", "-1%", "--metric", "json:nothing"),
            1,
            "'json' has no 'nothing'",
        ),
        (("prune", "lenet", "-o", "s.safetensors", "--ratio", "0.5", "--criterion", "obs"), 1, "looks at data"),
        (("sensitivity", "lenet", "--data", "nowhere"), 1, "is no folder"),
        (("sensitivity", "lenet", "--data", ".", "--shares", "0.5,2"), 2, "is no list of shares"),
        (("sensitivity", "lenet", "--data", ".", "--figure", "heat.gif"), 1, "must end in .svg or .png"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(secateur, arguments, code, message):
    result = secateur(*arguments)
    assert result.code == code
    assert message in result.err
    assert secateur.files() == set()
