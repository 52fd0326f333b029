"""The command line, run in this process, in an empty folder with a module of the user's own in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from secateur.cli.main import run

NETS = """
import torch
from torch import nn


def small():
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1))


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        raise ValueError("the cat sat on the keyboard")


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.picture, self.number, self.out = nn.Conv2d(3, 16, 3), nn.Linear(5, 16), nn.Conv2d(16, 2, 1)

    def forward(self, picture, number):
        return self.out(self.picture(picture) + self.number(number)[:, :, None, None])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.dims = 4, 4
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 5)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Redness(nn.Module):
    def forward(self, x):
        return (x[:, :1] + 1) / 2


def broken():
    raise RuntimeError("no such luck")


number = 7
"""


@dataclass(frozen=True)
class Result:
    """What a run of the command line left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs `secateur` in a folder of its own."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder, self._captured = folder, captured

    def __call__(self, *arguments: str) -> Result:
        self._captured.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = self._captured.readouterr()
        return Result(code, out, err)

    def files(self) -> set[str]:
        """Return what lies in the folder besides the module."""
        return {path.name for path in self.folder.iterdir()} - {"my_nets.py", "__pycache__"}


@pytest.fixture
def secateur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    (tmp_path / "my_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return CommandLine(tmp_path, capsys)


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare with what was printed before; SECATEUR_REGENERATE=1 writes it anew."""

    def compare(name: str, text: str) -> None:
        place = Path(__file__).parent / "golden" / name
        text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        if os.environ.get("SECATEUR_REGENERATE"):
            place.write_text(text, encoding="utf-8")
        assert text == place.read_text(encoding="utf-8")

    return compare
