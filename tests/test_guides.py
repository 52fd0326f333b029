"""Every block of code in the guides runs as it stands, the Python ones one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = {  # what each prints, among other things, and the pictures it makes
    "grafting.md": ("equals the masked original", ("rewired.png", "simulated.png")),
    "matting.md": ("12 portraits", ()),
    "training.md": ("wrap the pruned model afterwards", ()),
    "without-labels.md": ("% of the MACs; on other pictures ", ()),
    "when-pruning-pays.md": ("batch 1024, simulated: ", ()),
}


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / guide).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_runs(
    guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    pytest.importorskip("pymatting")
    if "openvino" in (DOCS / guide).read_text(encoding="utf-8"):
        pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    for text in blocks(guide, "python"):
        exec(compile(text, guide, "exec"), names)
    printed, pictures = GUIDES[guide]
    assert printed in capsys.readouterr().out
    for picture in pictures:
        assert (tmp_path / picture).stat().st_size > 10_000
    for line in [line for text in blocks(guide, "sh") for line in text.splitlines()]:
        program, *arguments = shlex.split(line)
        assert program == "secateur"
        # A process each, as for who types them: training forks, which processes that ran other libraries before do not
        # all survive.
        done = subprocess.run(
            [sys.executable, "-m", "secateur.cli", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("guide", GUIDES)
def test_what_a_guide_shows_is_there(guide: str) -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (DOCS / guide).read_text(encoding="utf-8")):
        assert (DOCS / picture).is_file()
