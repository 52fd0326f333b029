"""What came of loading a file, judged by nothing that the loading says of itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import secateur
from secateur.artifact.inspection import as_data, inspect
from secateur.artifact.reading import read
from secateur.errors import ArtifactError
from tests.artifact.good_files import further_names, taken_apart
from tests.artifact.mutations import MARKER, Mutated

SECONDS = 5.0  # of one core, to inspect, read and load a file; measured so, other work on the machine does not count
FREE_BYTES, TIMES_THE_FILE = 32 << 20, 8  # how much memory a file may take
FINE = ("refused", "the good model", "as signed")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Verdict:
    """What came of a file: one of `FINE`, or `wrong`, `crashed`, `slow`, `greedy`; and what it took."""

    outcome: str
    why: str
    seconds: float
    peak: int  # bytes of memory beyond what the process had; 0 where the system does not tell


class TooSlowError(BaseException):
    """Raised in the middle of whatever takes too long; no `except Exception` swallows it."""


def judge(one: Mutated, folder: Path) -> Verdict:
    """Inspect, read and load a mutated file, put into a folder for that time."""
    place = folder / "mutated.safetensors"
    if one.data is None:
        place.mkdir()
    else:
        place.write_bytes(one.data)
    before, start = _memory(anew=True), time.process_time()
    try:
        with _time_limit():
            outcome, why = _outcome(one, place)
        seconds, peak = time.process_time() - start, _memory() - before
    finally:
        if one.data is None:
            place.rmdir()
        else:
            place.unlink()
    if outcome in FINE and seconds > SECONDS:
        outcome = "slow"
    elif outcome in FINE and peak > FREE_BYTES + TIMES_THE_FILE * len(one.data or b""):
        outcome = "greedy"
    return Verdict(outcome, why, seconds, peak)


def _outcome(one: Mutated, place: Path) -> tuple[str, str]:
    model = None
    try:
        with suppress(ArtifactError):  # the header alone: the checksum is not checked
            as_data(inspect(place))
        try:
            read(place)
        finally:
            model = secateur.load(place, one.good.into)
    except ArtifactError as error:
        outcome, why = ("refused", str(error)) if model is None else ("wrong", f"loaded what cannot be read: {error}")
    except TooSlowError:
        outcome, why = "slow", "stopped"
    except Exception as error:  # noqa: BLE001 - what all this is about
        outcome, why = "crashed", f"{type(error).__name__}: {error}"
    else:
        outcome, why = _what_came_out(one, model)
    if MARKER.exists():
        MARKER.unlink()
        outcome, why = "wrong", "a pickle was opened"
    return outcome, why


def _what_came_out(one: Mutated, model: nn.Module) -> tuple[str, str]:
    good, state = one.good.small, model.state_dict()
    same_class = type(model) is type(good)
    if same_class and _equal(state, good.state_dict()) and _plain_values(model) == _plain_values(good):
        return "the good model", ""
    if not one.signed:
        return "wrong", "another model came out, although nobody signed it"
    if not _equal(state, _stored(one.data or b"")):
        return "wrong", "the model holds other numbers than the file"
    if same_class and _types(model) != _types(good):
        return "wrong", f"other attributes: {_types(model).items() ^ _types(good).items()}"
    return "as signed", ""


def _equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].shape == other[name].shape and _bits(one[name], other[name])
        for name in one
    )


def _bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


def _stored(data: bytes) -> dict[str, torch.Tensor]:
    tensors = safetensors.torch.load(data)
    names = further_names(taken_apart(data).document["aliases"], tensors)
    return tensors | {name: tensors[first] for name, first in names.items()}


def _plain_values(model: nn.Module) -> dict[str, Any]:
    return {
        f"{path}.{key}": value
        for path, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, int | float | str | tuple) and key != "training"
    }


def _types(model: nn.Module) -> dict[str, type]:
    return {
        f"{path}.{key}": type(value) for path, module in model.named_modules() for key, value in vars(module).items()
    }


def _memory(anew: bool = False) -> int:
    """Return the peak of this process's memory in bytes, since it was last asked `anew`; 0 where nobody knows."""
    if not CLEAR.exists():
        return 0
    if anew:
        with suppress(OSError):  # where it is forbidden, the peak of all files counts
            CLEAR.write_text("5")
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlowError

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)  # by the clock, for what waits
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
