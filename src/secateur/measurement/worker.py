"""A process that opens networks and times them, one turn whenever it is told to."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from secateur.errors import SecateurError, better_sizes
from secateur.measurement import memory
from secateur.runtimes.network import Network
from secateur.runtimes.registry import open_network, runtime_of
from secateur.runtimes.session import NodeTime, Options
from secateur.runtimes.shapes import Sizes

SHORTEST = 0.010  # seconds of a turn; quicker networks run several times in one
_STEADY, _MOST_WARMING, _LONGEST_WARMING = 0.05, 20, 10.0  # share, turns, seconds


@dataclass(frozen=True)
class Job:
    """A row of a table: how networks are opened, and how much memory the process may take."""

    runtime: str
    options: Options
    sizes: Sizes
    memory: int | None


@dataclass
class _Open:
    run: Callable[[], Any]
    repeats: int


def work(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Answer what is asked until nothing more is: pickles, of the process that started this one alone.

    The first is the job. Then ("open", name, network as bytes) opens and warms up, also again: milliseconds of opening
    and of the first call. ("turn", name): milliseconds of a call. ("peak",): bytes.
    ("profile", network as bytes): what its operations take. An answer is ("fine", value) or
    ("failed", kind, why), where out of memory is a kind of its own.
    """
    networks: dict[str, Network] = {}
    opened: dict[str, _Open] = {}
    (job,) = pickle.load(asked)  # noqa: S301
    memory.limit(job.memory)
    answer: Any = ("fine", None)
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            what, *given = pickle.load(asked)  # noqa: S301
        except EOFError:
            return
        try:
            answer = ("fine", _answer(what, given, job, networks, opened))
        except MemoryError:
            answer = ("failed", "OOM", "out of memory")
        except Exception as error:  # noqa: BLE001 - whatever it is, the table goes on
            kind = "OOM" if memory.is_exhausted(error) else "failed"
            why = str(error) if isinstance(error, SecateurError) else f"{type(error).__name__}: {error}"
            why, is_ours = " ".join(why.split()), isinstance(error, SecateurError) and error.__cause__ is None
            hint = better_sizes(shape for one in networks.values() for shape in job.sizes.of(one.shapes))
            answer = ("failed", kind, why if is_ours or kind != "failed" or not hint else f"{why.rstrip('. ')}.{hint}")


def _answer(what: str, given: list[Any], job: Job, networks: dict[str, Network], opened: dict[str, _Open]) -> Any:
    if what == "peak":
        return memory.peak()
    if what == "profile":
        return _profile(pickle.loads(given[0]), job)  # noqa: S301 - made by the process that started this one
    name = given[0]
    if what == "turn":
        return _turn(opened[name].run, opened[name].repeats)
    opened.pop(name, None)  # before the next one takes its memory
    if name not in networks:
        networks[name] = pickle.loads(given[1])  # noqa: S301 - made by the process that started this one
    run, details = _run_of(networks[name], job)
    opened[name] = _Open(run, _warmed(run))
    return details


def _run_of(network: Network, job: Job) -> tuple[Callable[[], Any], dict[str, float]]:
    inputs = [one.numpy() for one in network.inputs(job.sizes)]
    start = time.perf_counter()
    session = open_network(network, job.runtime, job.options, tuple(one.shape for one in inputs))
    ready = time.perf_counter()
    run = session.bound(inputs)
    run()
    return run, {"load_ms": (ready - start) * 1e3, "first_ms": (time.perf_counter() - ready) * 1e3}


def _profile(network: Network, job: Job) -> list[NodeTime]:
    ask = runtime_of(job.runtime).profile
    assert ask is not None
    return ask(network, job.options, [one.numpy() for one in network.inputs(job.sizes)])


def _warmed(run: Callable[[], Any]) -> int:
    """Run until the times are steady, and return how often a turn is to run."""
    taken: list[float] = []
    start, repeats = time.perf_counter(), 1
    while len(taken) < _MOST_WARMING and time.perf_counter() - start < _LONGEST_WARMING:
        taken.append(_turn(run, repeats))
        repeats = max(repeats, int(np.ceil(SHORTEST * 1e3 / max(taken[-1], 1e-6))))
        last = taken[-3:]
        if len(last) == 3 and max(last) - min(last) < _STEADY * min(last):
            break
    return repeats


def _turn(run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) * 1e3 / repeats


def main() -> None:
    """Work on what comes from standard input; what runtimes print goes nowhere, and cannot spoil the answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this one ends it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    work(sys.stdin.buffer, answers)
