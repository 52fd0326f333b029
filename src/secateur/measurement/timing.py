"""How long calls take, side by side: alternating rounds, so that what disturbs one disturbs the other too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: the median, with the 10th and the 90th percentile."""

    median: float
    low: float
    high: float
    rounds: int


def compare_times(
    runs: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    warm_up: int = 3,
    seconds: float = math.inf,
) -> dict[str, Timing]:
    """Time several calls in turns (A, B, A, B, ...), after `warm_up` turns that do not count.

    The order is reversed every other round, so that no call always runs in the other's cache. After `seconds` no new
    round begins, once three are done.

    Example:
        >>> compare_times({"sum": lambda: sum(range(1000))}, rounds=3)["sum"].rounds
        3
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    taken: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for round_number in range(-warm_up, rounds):
        names = list(runs)[:: 1 if round_number % 2 else -1]
        for name in names:
            milliseconds = _milliseconds(runs[name])
            if round_number >= 0:
                taken[name].append(milliseconds)
        if round_number >= 2 and time.perf_counter() - start > seconds:
            break
    return {name: _timing(values) for name, values in taken.items()}


def compare_module_times(
    models: Mapping[str, nn.Module],
    inputs: tuple[torch.Tensor, ...],
    rounds: int = 15,
    warm_up: int = 3,
    seconds: float = math.inf,
) -> dict[str, Timing]:
    """Time modules side by side on the same inputs, as they are used: evaluation mode, no gradients.

    Their modes are put back afterwards.
    """
    runs = {name: partial(model, *inputs) for name, model in models.items()}
    with _evaluating(models.values()), torch.inference_mode():
        return compare_times(runs, rounds, warm_up, seconds)


@contextmanager
def _evaluating(models: Iterable[nn.Module]) -> Iterator[None]:
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def _timing(values: list[float]) -> Timing:
    low, median, high = np.percentile(values, [10, 50, 90])
    return Timing(float(median), float(low), float(high), len(values))
