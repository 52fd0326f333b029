"""An interrupted command leaves with 130, says so in one line, and leaves no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
# Large enough that the proof is still running when the signal comes.
COMMAND = ["prune", "modnet", "-o", "small.safetensors", "--figure", "widths.svg", "--macs", "0.5x"]


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_prune_leaves_no_file(tmp_path, sent):
    process = subprocess.Popen(
        [sys.executable, "-m", "secateur.cli", *COMMAND],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "building modnet" in process.stderr.readline()
    time.sleep(0.3)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "secateur: interrupted; nothing was written."
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_an_interruption_while_writing_leaves_the_old_file(secateur, monkeypatch):
    place = secateur.folder / "small.safetensors"
    place.write_bytes(b"old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.artifact.atomic._flush", interrupted)
    result = secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5")
    assert result.code == 130
    assert secateur.files() == {"small.safetensors"}
    assert place.read_bytes() == b"old"
