"""What a file gives in another process is what was saved, bit for bit: three precisions, many makers' models."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import secateur
from tests.artifact.reloading import NEED_DATA, OTHERS, ZOO, build, example, outputs

ROOT = Path(__file__).parents[2]
PRECISIONS = ("float32", "float16", "bfloat16")
WITHOUT_DATA = "bfloat16"  # `into` is built on the meta device where it can be


@pytest.mark.parametrize("maker", ["zoo", "torchvision", "timm"])
def test_a_file_gives_the_same_outputs_in_another_process(maker, tmp_path):
    if maker != "zoo":
        pytest.importorskip(maker, reason=f"{maker} is not installed")
    names = [name for name in (*ZOO, *OTHERS) if name.startswith(maker)]
    expected = {file: found for name in names for file, found in saved(name, tmp_path).items()}
    assert len(expected) == 3 * len(names)
    load_elsewhere(tmp_path, names)
    for file, found in expected.items():
        again = safetensors.torch.load_file(tmp_path / f"{file}.outputs")
        assert {key: bits(one) for key, one in again.items()} == {key: bits(one) for key, one in found.items()}, file


def saved(name: str, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Prune a network by half, save it in three precisions, and return what it puts out in each."""
    torch.manual_seed(0)
    full = build(name)
    plan = secateur.plan(secateur.trace(full, example(name, torch.float32)), full, ratio=0.5)
    small = secateur.cut(full, plan)
    found = {}
    for precision in PRECISIONS:
        dtype = getattr(torch, precision)
        model = copy.deepcopy(small).to(dtype)
        secateur.save(folder / f"{file_of(name, precision)}.safetensors", model, plan)
        found[file_of(name, precision)] = outputs(model, example(name, dtype))
    return found


def load_elsewhere(folder: Path, names: Sequence[str]) -> None:
    """Load all files in a new process, which writes what the models put out."""
    jobs = [job(name, precision) for name in names for precision in PRECISIONS]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-W", "ignore", "-m", "tests.artifact.reloading", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def job(name: str, precision: str) -> dict[str, Any]:
    """Say what the other process is to load, and how."""
    file = f"{file_of(name, precision)}.safetensors"
    without_data = precision == WITHOUT_DATA and name not in NEED_DATA
    return {"name": name, "file": file, "dtype": precision, "without_data": without_data}


def file_of(name: str, precision: str) -> str:
    return f"{name.replace('/', '-')}-{precision}"


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    """Return all there is of a tensor; NaN is equal to itself so."""
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes()
