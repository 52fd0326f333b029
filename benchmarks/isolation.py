"""Runs a command in a process of its own, within limits of time and memory, whatever it does.

The command writes what it finds to a file, a line of JSON for each step, so that what it found before it was ended is
not lost. CPU seconds and memory are watched where the system tells them (Linux); elsewhere the clock alone counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GLANCE = 0.1  # seconds
PATIENCE = 6  # how many times its CPU seconds a command may take by the clock, on a busy machine
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Limits:
    """What a command may take."""

    seconds: float  # of CPU, for each step
    gigabytes: float  # resident


@dataclass(frozen=True)
class Ending:
    """How a command ended, and the steps it wrote."""

    how: str  # "done", "timeout", "out of memory", "crashed" or "stopped"
    steps: list[dict[str, Any]]
    last_words: str  # the end of what it wrote to stderr


def run_within(command: Sequence[str], limits: Limits, stop: threading.Event | None = None) -> Ending:
    """Run a command; the name of the file for its steps is added to its arguments. `stop` ends it early."""
    with tempfile.TemporaryDirectory() as folder:
        steps, errors = Path(folder, "steps"), Path(folder, "errors")
        steps.touch()
        with errors.open("w") as stderr:
            child = subprocess.Popen(
                [*command, str(steps)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **dict.fromkeys(THREADS, "1")},
                start_new_session=True,  # an interruption is this process's to pass on
            )
            try:
                how = _watched(child, steps, limits, stop)
            finally:
                child.kill()
                child.wait()
        return Ending(how, _read(steps), errors.read_text(errors="replace")[-2000:].strip())


def _watched(child: subprocess.Popen[bytes], steps: Path, limits: Limits, stop: threading.Event | None) -> str:
    written, start, used = 0, time.monotonic(), 0.0
    while child.poll() is None:
        time.sleep(GLANCE)
        seconds, gigabytes = _usage(child.pid)
        if steps.stat().st_size > written:
            written, start, used = steps.stat().st_size, time.monotonic(), seconds
        if stop is not None and stop.is_set():
            return "stopped"
        if gigabytes > limits.gigabytes:
            return "out of memory"
        if seconds - used > limits.seconds or time.monotonic() - start > PATIENCE * limits.seconds:
            return "timeout"
    return "done" if child.returncode == 0 else "crashed"


def _usage(process: int) -> tuple[float, float]:
    """Return the CPU seconds and resident gigabytes of a process; zeros where the system does not tell."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    ticks, pages = int(stat[11]) + int(stat[12]), int(stat[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _read(steps: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in steps.read_text().splitlines() if line.endswith("}")]
