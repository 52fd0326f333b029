"""How long calls take, side by side: alternating rounds, so that what disturbs one disturbs the other too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn

from secateur.measurement.statistics import Spread
from secateur.runtimes.forms import evaluating


def compare_times(
    runs: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    warm_up: int = 3,
    seconds: float = math.inf,
) -> dict[str, Spread]:
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
    return {name: Spread.of(values) for name, values in taken.items()}


def compare_module_times(
    models: Mapping[str, nn.Module],
    inputs: tuple[torch.Tensor, ...],
    rounds: int = 15,
    warm_up: int = 3,
    seconds: float = math.inf,
) -> dict[str, Spread]:
    """Time modules side by side on the same inputs, as they are used: evaluation mode, no gradients.

    Their modes are put back afterwards.
    """
    runs = {name: partial(model, *inputs) for name, model in models.items()}
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model))
        stack.enter_context(torch.inference_mode())
        return compare_times(runs, rounds, warm_up, seconds)


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3
