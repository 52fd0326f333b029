"""Every block of code in the README runs as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.cli.main import run
from tests.matting.data_sets import write_set
from tests.models.published import write_published

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh"}


@pytest.mark.parametrize("text", blocks("python"))
def test_python_blocks_run(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "deployment" in text:
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    exec(compile(text, str(README), "exec"), {})
    assert "equals the masked original" in capsys.readouterr().out


@pytest.mark.parametrize("text", blocks("sh"))
def test_shell_blocks_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "--figure" in text:
        pytest.importorskip("matplotlib")
    if "openvino" in text:
        pytest.importorskip("openvino")
        pytest.importorskip("onnxruntime")
    if "train" in text:
        pytest.importorskip("lightning_fabric")
        pytest.importorskip("pymatting")
        write_published(tmp_path / "modnet.ckpt")
    if "portraits" in text:
        pytest.importorskip("cv2")
        write_set(tmp_path / "portraits", [f"p{number}" for number in range(5)], size=(96, 64))
    monkeypatch.chdir(tmp_path)
    for line in text.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "secateur"
        if "train" in text:  # it forks, which a process that ran other libraries before may not survive
            command = [sys.executable, "-m", "secateur.cli", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
        else:
            assert run(arguments) == 0, line


def test_the_article_walk_is_short() -> None:
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 10
    assert len(blocks("sh")[0].splitlines()) == 3


def test_pictures_and_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#][^)]*)\)", README.read_text(encoding="utf-8"))
    assert targets
    assert all((README.parent / target).exists() for target in targets)
