"""Processes that are killed while they save over an old file, and what they leave behind."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import secateur
from secateur.errors import ArtifactError

NAME = "model.safetensors"
MEASURED = 5  # saves that are let be, to know how long one takes


@dataclass(frozen=True)
class Death:
    """What one killed process left."""

    after: float  # the moment, as a share of the time that saving takes
    file: str  # "old" or "new", bit for bit; "torn": anything else
    left: str  # "nothing"; or a temporary file: "empty", "part" or "whole"; or "more", which nothing explains


def deaths(folder: Path, count: int, seed: int = 0, width: int = 600) -> Iterator[Death]:
    """Kill processes that save over the file in an empty folder, each at a random moment; `kill -9`, no mercy.

    The processes are forked from this one, so that nothing is imported in them. Wider models take longer to save.
    """
    saves, whole = _two_models(folder, width)
    draw, old, known = random.Random(seed), 0, set(folder.iterdir())
    duration = sorted(_seconds_of(saves[0]) for _ in range(MEASURED))[MEASURED // 2]
    for _ in range(count):
        moment = draw.random()
        _fork(saves[1 - old], kill_after=moment * duration)
        found = (folder / NAME).read_bytes()
        file = "old" if found == whole[old] else "new" if found == whole[1 - old] else "torn"
        new = set(folder.iterdir()) - known
        yield Death(moment, file, _left(new, whole[1 - old]))
        known |= new
        old = 1 - old if file == "new" else old


def _two_models(folder: Path, width: int) -> tuple[list[Callable[[], None]], list[bytes]]:
    """Return how to save two models to one place, and the bytes of both; the first of them lies there."""
    place = folder / NAME
    saves, whole = [], []
    for seed in (1, 0):
        torch.manual_seed(seed)
        full = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)).eval()
        small, plan = secateur.prune(full, torch.zeros(1, width), ratio=0.1)
        saves.insert(0, lambda small=small, plan=plan: secateur.save(place, small, plan))
        saves[0]()
        whole.insert(0, place.read_bytes())
    return saves, whole


def _left(new: set[Path], whole: bytes) -> str:
    """Say what temporary file there is; one that is not whole must be refused as a model."""
    if len(new) != 1:
        return "more" if new else "nothing"
    (path,) = new
    data = path.read_bytes()
    if data == whole:
        return "whole"
    with suppress(ArtifactError):
        secateur.load(path, into=nn.Identity())
        return "more"
    return "part" if data else "empty"


def _seconds_of(save: Callable[[], None]) -> float:
    start = time.perf_counter()
    _fork(save)
    return time.perf_counter() - start


def _fork(save: Callable[[], None], kill_after: float | None = None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child uses none of them
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # should it hang, it ends by itself
        try:
            save()
        finally:
            os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
