"""`eval` judges models on portraits side by side; `data check` says beforehand what is wrong with them."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from secateur.matting.splitting import split_portraits
from tests.matting.data_sets import disc, write_set

MATTERS = """
from torch import nn


class Red(nn.Module):
    factor = 1.0

    def forward(self, x):
        return (x[:, :1] / 2 + 0.5) * self.factor


class Faint(Red):
    factor = 0.8


class Labels(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))
"""
INPUT = ["--input", "1x3x64x64", "--threads", "1"]


def width(path):
    with Image.open(path) as opened:
        return opened.width


@pytest.fixture
def judged(secateur, monkeypatch):
    """A folder with a set of portraits and models that matte them, more or less."""
    monkeypatch.delitem(sys.modules, "matters", raising=False)
    (secateur.folder / "matters.py").write_text(MATTERS)
    write_set(secateur.folder / "set", [f"p{number:02}" for number in range(12)])
    return secateur


def test_two_models_side_by_side_in_a_table_and_a_picture(judged):
    found = judged("eval", "matters:Faint", "matters:Red", "--data", "set", *INPUT, "--figure", "worst.png")
    assert found.code == 0, found.err
    for words in ("matters:Faint", "whole", "boundary", "MAD to the first", "95 %", "The worst, by MAD", "p00"):
        assert words in found.out
    assert "sigma 1.4" in found.out.replace("\n", " ")
    assert "24/24" in found.err
    assert width("worst.png") > 500


def test_figures_for_machines(judged):
    models = ["matters:Faint", "matters:Red"]
    found = judged("eval", *models, "--data", "set", *INPUT, "--json", "-q", "--limit", "4", "--metric", "mad,grad")
    assert found.code == 0, found.err
    assert found.err == ""
    assert set(found.json["convention"]) == {"MAD", "Grad", "boundary"}
    (one,) = found.json["data"]
    first, other = one["models"]
    assert [picture["name"] for picture in first["pictures"]] == ["p00", "p03", "p06", "p09"]
    assert first["mean"]["MAD"]["whole"] > 5 * other["mean"]["MAD"]["whole"]
    ratio = other["to_first"]["whole"]["ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"] < 1
    assert ratio["value"] == pytest.approx(other["mean"]["MAD"]["whole"] / first["mean"]["MAD"]["whole"])
    assert len(one["worst"]) == 4


def test_an_exported_file_runs_in_its_own_runtime_beside_a_model(judged):
    assert judged("export", "matters:Red", "-o", "red.onnx", "--input", "1x3x64x64").code == 0
    found = judged("eval", "matters:Red", "red.onnx", "--data", "set", *INPUT, "--json", "--limit", "2")
    assert found.code == 0, found.err
    one, other = found.json["data"][0]["models"]
    assert other["mean"]["MAD"]["whole"] == pytest.approx(one["mean"]["MAD"]["whole"], rel=1e-3)


def test_a_folder_of_clips_tells_of_flicker(judged):
    for name in ("run", "walk"):
        write_set(judged.folder / "clips" / name, ["1", "2", "3"])
    found = judged("eval", "matters:Faint", "--data", "clips", "--data", "set", *INPUT)
    assert found.code == 0, found.err
    assert "dtSSD" in found.out
    assert "walk" in found.out
    clips, pictures = judged("eval", "matters:Faint", "--data", "clips", "--data", "set", *INPUT, "--json").json["data"]
    assert [one["name"] for one in clips["models"][0]["pictures"]] == ["run", "walk"]
    assert clips["models"][0]["mean"]["dtSSD"]["whole"] > 0
    assert pictures["models"][0]["mean"]["dtSSD"]["whole"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--metric", "MDA"], 2, "There is no metric 'MDA'"),
        (["--data", "nowhere"], 1, "nowhere is no folder"),
        (["--data", "set/image"], 1, "set/image holds no portraits"),
        (["--precision", "int8"], 2, "--precision int8 and --calibrate go together"),
        (["--figure", "worst.gif"], 1, "must end in .svg or .png"),
    ],
)
def test_what_makes_no_sense_is_refused(judged, arguments, code, expected):
    data = [] if "--data" in arguments else ["--data", "set"]
    found = judged("eval", "matters:Red", *data, *arguments, *INPUT, "-q")
    assert (found.code, found.out) == (code, "")
    assert expected in found.err
    assert found.err.count("\n") == 1


def test_a_model_for_something_else_and_a_broken_picture_are_told_and_nothing_is_written(judged):
    options = ["--data", "set", *INPUT, "-q", "--figure", "worst.png"]
    found = judged("eval", "matters:Labels", *options)
    assert (found.code, found.out) == (1, "")
    assert "Give a network for mattes" in found.err
    (judged.folder / "set" / "image" / "p05.png").write_bytes(b"no picture")
    found = judged("eval", "matters:Red", *options)
    assert (found.code, found.out) == (1, "")
    assert "p05.png cannot be read as a picture" in found.err
    assert "worst.png" not in judged.files()


def test_a_good_set_is_said_to_be_good(judged):
    found = judged("data", "check", "set", "--figure", "sheet.png")
    assert found.code == 0, found.err
    assert "12 portraits in image/, alpha/" in found.out
    assert "64x48 (12)" in found.out
    assert "Nothing is wrong" in found.out
    assert width("sheet.png") > 500


def test_a_set_that_cannot_be_used_fails_with_all_that_is_wrong(judged):
    (judged.folder / "set" / "alpha" / "p03.png").unlink()
    (judged.folder / "set" / "image" / "p05.png").write_bytes(b"no picture")
    Image.fromarray(255 - disc()[1]).save(judged.folder / "set" / "alpha" / "p07.png")
    found = judged("data", "check", "set", "-q")
    assert found.code == 1
    assert found.err == "secateur: 2 files in set cannot be used. Mend them, or take them out.\n"
    assert found.out.count("cannot be used: ") == 2
    assert "looks wrong: set/alpha/p07.png may be inverted" in found.out
    found = judged("data", "check", "set", "-q", "--json", "--figure", "sheet.png")
    assert found.code == 1
    assert [one["unusable"] for one in found.json["findings"]] == [True, True, False]
    assert "sheet.png" in judged.files()


def test_data_without_a_command_shows_what_there_is(secateur):
    found = secateur("data")
    assert found.code == 2
    assert "check" in found.err


def test_only_those_whom_training_held_out(judged):
    options = ["--data", "set", *INPUT, "--json", "-q", "--metric", "mad"]
    whole = judged("eval", "matters:Red", *options).json
    found = judged("eval", "matters:Red", *options, "--held-out", "0.4").json
    names = [one["name"] for one in found["data"][0]["models"][0]["pictures"]]
    portraits = [one["name"] for one in whole["data"][0]["models"][0]["pictures"]]
    split = split_portraits([judged.folder / "set"], [], 0.4, "(.*)")
    assert sorted(names) == sorted(one.name for one in split.held_out)
    assert 0 < len(names) < len(portraits) == 12


def test_nobody_was_held_out(judged):
    found = judged("eval", "matters:Red", "--data", "set", *INPUT, "--held-out", "0.0001")
    assert found.code == 1
    assert "Of 12 none is in the share of 0.0001" in found.err
