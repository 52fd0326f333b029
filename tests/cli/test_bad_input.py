"""Whatever is typed wrong: one line that says what, why and what to do; an exit code; nothing written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import secateur as library
from secateur.cli.main import COMMANDS
from secateur.models import LeNet

OUT = ["-o", "small.safetensors"]
PRUNE = ["prune", "lenet", *OUT]
HALF = ["--ratio", "0.5"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
OWN = ["prune", "my_nets:small", *OUT, *HALF]


@pytest.fixture
def refused(secateur):
    def check(code, *arguments):
        before = secateur.files()
        result = secateur(*arguments)
        assert result.code == code, result
        assert result.out == ""
        lines = [line for line in result.err.splitlines() if line.startswith("secateur: ")]
        assert len(lines) == 1, result.err
        assert "Traceback" not in result.err
        assert secateur.files() == before
        return lines[0]

    return check


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("1x3", "RuntimeError"),
        ("1x5x32x32", "to have 3 channels, but got 5 channels"),
        ("1x3x2x2", "RuntimeError"),
    ],
)
def test_an_example_that_does_not_fit_shows_the_models_own_error(refused, shape, expected):
    assert expected in refused(1, *OWN, "--input", shape)


@pytest.mark.parametrize("shape", ["abc", "1x0x3", "-1x3", "1,3,32,32", "", "1x3x"])
def test_a_shape_that_is_none_is_bad_usage(refused, shape):
    assert "such as 1x3x512x512" in refused(2, *OWN, "--input", shape)


def test_an_input_that_fits_no_memory_is_refused(refused):
    assert "does not fit into memory" in refused(2, *OWN, "--input", "1x3x9999999x9999999")


def test_without_an_input_shape_the_remedy_is_named(refused):
    assert "--input" in refused(2, *OWN)


def test_a_model_that_fails_by_itself_is_told_as_such(refused):
    line = refused(1, "prune", "my_nets:Failing", *OUT, *HALF, "--input", "1x3x8x8")
    assert "ValueError: the cat sat on the keyboard" in line
    assert "itself" in line


@pytest.mark.parametrize(
    ("model", "code", "expected"),
    [
        ("modnt", 2, "modnet"),
        ("mobilenet", 2, "mobilenetv2"),
        ("my_nets:smal", 1, "small"),
        ("my_netz:small", 1, "no module"),
        ("my_nets:number", 1, "nn.Module"),
        ("my_nets:broken", 1, "no such luck"),
        ("os:system", 1, "nn.Module"),
        ("builtins:eval", 1, "nn.Module"),
        ("subprocess:Popen", 1, "nn.Module"),
        ("my_nets:small()", 1, "package.module:callable"),
        ("missing.safetensors", 1, "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["analyze", "prune"])
def test_a_model_that_is_none_is_refused(refused, command, model, code, expected):
    rest = [*OUT, *HALF] if command == "prune" else []
    assert expected in refused(code, command, model, "--input", "1x3x8x8", *rest)


@pytest.mark.parametrize("ratio", ["0", "1", "1.2", "-0.5", "abc", "nan", "inf", ""])
def test_a_ratio_that_is_none_is_refused(refused, ratio):
    assert "above 0 and below 1" in refused(2, *PRUNE, "--ratio", ratio)


@pytest.mark.parametrize("option", ["--macs", "--params"])
@pytest.mark.parametrize("cost", ["abc", "-5", "0.5y", "1x2", ""])
def test_a_budget_that_is_none_is_refused(refused, option, cost):
    assert "such as 0.25x" in refused(2, *PRUNE, option, cost)


@pytest.mark.parametrize("cost", ["0x", "0", "1x", "1.5x", "0.5"])
def test_a_budget_that_makes_no_sense_is_refused(refused, cost):
    refused(1, *PRUNE, "--macs", cost)


@pytest.mark.parametrize("other", [["--macs", "0.5x"], ["--params", "10k"], ["--config", "c.yaml"]])
def test_a_ratio_stands_alone(refused, other):
    assert "stands alone" in refused(2, *PRUNE, *HALF, *other)


def test_no_budget_is_refused(refused):
    assert "no budget" in refused(2, *PRUNE)


@pytest.mark.parametrize("budget", [["--macs", "0.001x"], ["--params", "10"]])
def test_a_budget_below_the_smallest_reachable_says_what_that_is(refused, budget):
    assert "smallest" in refused(1, *PRUNE, *budget)


def test_a_misspelt_criterion_is_refused(refused):
    assert "Did you mean l1" in refused(2, *PRUNE, *HALF, "--criterion", "l11")


def test_a_misspelt_model_offers_the_nearest_of_those_that_come_trained_as_well(refused):
    assert "Did you mean modnet-small" in refused(2, "analyze", "modnet-smal")


def test_a_misspelt_layer_is_refused(refused):
    assert "conv1" in refused(1, *PRUNE, *HALF, "--ignore", "convv1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- sparsity: 0.8\n  op_types: [Conv2d", "broken"),
        ("sparsity: 0.8", "list"),
        ("- sparsty: 0.8\n  op_types: [Conv2d]", "sparsity"),
        ("- sparsity: 1.8\n  op_types: [Conv2d]", "1.8"),
        ("- sparsity: 0.8\n  op_names: [convv1]", "conv1"),
        ("!!python/object/apply:os.system ['touch trap']", "broken"),
        ("", "list"),
    ],
)
def test_a_broken_configuration_is_refused(secateur, refused, text, expected):
    (secateur.folder / "c.yaml").write_text(text)
    assert expected in refused(1, *PRUNE, "--config", "c.yaml")


def test_a_missing_configuration_is_refused(refused):
    assert "cannot be read" in refused(1, *PRUNE, "--config", "missing.yaml")


def test_a_checkpoint_of_another_architecture_is_refused(secateur, refused):
    torch.save(nn.Linear(3, 3).state_dict(), "other.pth")
    assert "another architecture" in refused(1, *PRUNE, *HALF, "--weights", "other.pth")
    assert secateur("prune", "lenet", *OUT, *HALF).code == 0
    assert "another architecture" in refused(1, "verify", "small.safetensors", "--against", "other.pth")


def test_a_checkpoint_with_code_in_it_is_not_executed(secateur, refused):
    torch.save({"weight": Bomb()}, "bomb.pth")
    Path("bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pth", "bomb.pkl"):
        refused(1, *PRUNE, *HALF, "--weights", name)
        refused(1, "analyze", name)
        refused(1, "verify", name)
    assert not Path("trap").exists()


def test_a_damaged_file_is_refused(secateur, refused):
    assert secateur(*PRUNE, *HALF).code == 0
    data = Path("small.safetensors").read_bytes()
    for name, content in {
        "short": data[:-100],
        "flipped": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
        "empty": b"",
        "text": b"hello",
        "header": data[:20],
    }.items():
        Path(f"{name}.safetensors").write_bytes(content)
        refused(1, "verify", f"{name}.safetensors")
        refused(1, "analyze", f"{name}.safetensors")


def test_a_plan_for_another_model_is_refused(secateur, refused):
    assert secateur("prune", "my_nets:small", *OUT, *HALF, "--input", "1x3x8x8").code == 0
    line = refused(1, "verify", "small.safetensors", "--model", "my_nets:TwoInputs")
    assert "was not made from this TwoInputs" in line
    with pytest.raises(library.ArtifactError, match="was not made from this LeNet"):
        library.load("small.safetensors", into=LeNet())


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "missing/small.safetensors"],
        ["-o", "."],
        ["-o", "/proc/small.safetensors"],
        [*OUT, "--figure", "missing/widths.svg"],
        [*OUT, "--figure", "widths.bmp"],
    ],
)
def test_a_path_that_cannot_be_written_is_refused_before_the_work(refused, monkeypatch, options):
    monkeypatch.setattr("secateur.cli.prune.find_subject", lambda *_: pytest.fail("too late"))
    refused(1, "prune", "lenet", *HALF, *options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["prun"],
        ["prune"],
        ["prune", "lenet", *HALF],
        [*PRUNE, *HALF, "--ratoi", "1"],
        [*PRUNE, *HALF, "--min-channels", "0"],
        [*PRUNE, *HALF, "--seed", "x"],
        [*PRUNE, *HALF, "--ranking", "globl"],
        [*PRUNE, *HALF, "--model", "my_nets:small"],
        ["verify"],
        ["analyze", "lenet", "extra"],
    ],
)
def test_bad_usage_is_two(refused, arguments):
    assert "--help" in refused(2, *arguments)


def test_a_misspelt_command_offers_the_nearest(refused):
    assert "prune" in refused(2, "prnue")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(secateur, command):
    result = secateur(command, "--help")
    assert result.code == 0
    assert "Usage: secateur" in result.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--version"], 0), ([], 2), (["analyze", "modnt"], 2), (["verify", "missing.safetensors"], 1)],
)
def test_the_process_leaves_with_the_code(tmp_path, arguments, code):
    result = subprocess.run(
        [sys.executable, "-m", "secateur.cli", *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("trap"),)


@pytest.mark.parametrize("name", ["small.pth", "small.onnx"])
def test_a_name_of_another_kind_of_file_is_refused(refused, name):
    assert ".safetensors" in refused(2, "prune", "lenet", "-o", name, *HALF)
