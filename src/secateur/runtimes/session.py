"""What every runtime offers: a network is opened once, then run on arrays as often as wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from secateur.errors import RuntimeUnfitError, nearest

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Arrays = Sequence[np.ndarray]
PROFILED = 10  # runs that a profile is the median of


@dataclass(frozen=True)
class Options:
    """How a network is opened.

    Attributes:
        precision: of weights and arithmetic: "fp32", "fp16", "bf16" or "int8".
        device: "cpu", "cuda" or "gpu", as the runtime knows it.
        threads: of the processor, for one call; 0: as many as the runtime takes by itself.
    """

    precision: Precision = "fp32"
    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise RuntimeUnfitError(
                f"precision={self.precision!r} is not known.{nearest(self.precision, get_args(Precision))}"
            )
        if self.threads < 0:
            raise RuntimeUnfitError(f"threads={self.threads} makes no sense. Give a whole number; 0 leaves it open.")


class NodeTime(NamedTuple):
    """What an operation of a network takes: its name as a path of modules, its kind as the runtime calls it."""

    path: str  # such as "/model/layer1/0/conv1/Conv"
    kind: str
    milliseconds: float


def median_times(runs: Sequence[Sequence[NodeTime]]) -> list[NodeTime]:
    """Return the operations of several runs, each with its median time; one that runs twice has both times summed."""
    taken: dict[tuple[str, str], list[float]] = {}
    for number, run in enumerate(runs):
        for path, kind, milliseconds in run:
            taken.setdefault((path, kind), [0.0] * len(runs))[number] += milliseconds
    return [NodeTime(path, kind, float(np.median(times))) for (path, kind), times in taken.items()]


class Session(ABC):
    """A network that is open in a runtime.

    Attributes:
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    @abstractmethod
    def bound(self, arrays: Arrays) -> Callable[[], Any]:
        """Return a call that runs the network on these inputs and waits for the result, for timing.

        The inputs are where the runtime wants them before the call, and the outputs may stay where they are.
        """

    @abstractmethod
    def read(self, result: Any) -> tuple[np.ndarray, ...]:
        """Return what a bound call gave, as arrays."""

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network on one array for each input, and return one for each output."""
        if len(arrays) != len(self.inputs):
            raise RuntimeUnfitError(f"The network takes {', '.join(self.inputs)}, and {len(arrays)} arrays were given.")
        return self.read(self.bound(arrays)())
