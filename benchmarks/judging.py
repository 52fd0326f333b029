"""Is a pruned network right? Judged on random numbers in float64, by nothing that the pruner under test says of itself.

What is asked of a pruner is a network of the same numbers with some of them gone; which ones is read off a plan, or off
the numbers themselves. The masked original is then built in up to three ways:

- zeros: everything removed is zero. The plainest one, right where no statistic is taken across channels.
- marks: everything removed is NaN (`benchmarks.marking`), so that statistics leave it out.
- mask: the pruner's own simulation, where neither of the others agrees; then said so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.marking import double_precision
from tests.oracle import (
    SEED,
    DeadOutputError,
    answers,
    distance,
    filled,
    kept_of,
    named_tensors,
    randomized,
    refilled,
    spread_of,
)

TOLERANCE = 1e-9
MOST_ROUNDING = 1e-6
DRAWS = 3  # random networks, until one is alive

Kept = Mapping[str, torch.Tensor]  # which elements of each tensor stay, as booleans of its shape
Reference = tuple[str, Callable[[], nn.Module], Callable[[], AbstractContextManager[None]]]


@dataclass(frozen=True)
class Judgement:
    """Right, wrong or not judged, and what that rests on."""

    verdict: str
    error: float | None = None  # largest difference, in units of the outputs' spread from input to input
    reference: str = ""
    note: str = ""


def judge_plan(
    model: nn.Module,
    small: nn.Module,
    plan: Any,
    example: Any,
    cut: Callable[[nn.Module, Any], nn.Module],
    mask: Callable[[nn.Module, Any], nn.Module] | None = None,
) -> Judgement:
    """Judge a network that was cut by a plan.

    Args:
        model: the original; its structure counts, its numbers are replaced by random ones.
        small: the pruned network; it is given the same random numbers, cut by the same plan.
        plan: what is kept, `plan.keep[tensor][axis]`.
        example: how the model is called.
        cut: the pruner's own way to cut by a plan, scales included.
        mask: the pruner's own simulation.
    """
    return _judged(
        model,
        example,
        kept_of(model, plan),
        lambda full: refilled(small, cut(full, plan)),
        None if mask is None else lambda full: mask(full, plan),
    )


def judge_pruner(model: nn.Module, prune: Callable[[nn.Module], nn.Module], example: Any) -> Judgement:
    """Judge a pruner by what it makes of a network of random numbers: what is left of them tells what was removed.

    `prune` gets a network in float64, which it may change; it removes the same from each.
    """
    try:
        with double_precision():
            full = randomized(model, example)
        kept = kept_by_value(full, prune(copy.deepcopy(full)))
    except Exception as error:  # noqa: BLE001 - foreign code may fail in any way
        return Judgement("not judged", note=f"in float64: {_told(error)}")
    return _judged(model, example, kept, lambda full: prune(copy.deepcopy(full)).eval(), None)


def kept_by_value(full: nn.Module, pruned: nn.Module) -> Kept:
    """Find what is left of each tensor by its values: random numbers in float64 are all different.

    Raises:
        LookupError: a number in the pruned network is none of the original's.
    """
    original, kept = dict(named_tensors(full)), {}
    for name, left in named_tensors(pruned):
        whole = original[name].detach()
        if left.shape == whole.shape or not left.is_floating_point():
            continue
        values, places = whole.flatten().sort()
        found = torch.searchsorted(values, left.detach().flatten()).clamp(max=len(values) - 1)
        if not torch.equal(values[found], left.detach().flatten()):
            raise LookupError(f"{name} holds numbers that the original does not")
        kept[name] = torch.zeros(whole.numel(), dtype=torch.bool).index_fill_(0, places[found], True).view(whole.shape)
    return kept


def _judged(
    model: nn.Module,
    example: Any,
    kept: Kept,
    narrowed: Callable[[nn.Module], nn.Module],
    mask: Callable[[nn.Module], nn.Module] | None,
) -> Judgement:
    for draw in range(DRAWS):
        try:
            with double_precision():
                full = randomized(model, example, SEED + draw, kept)
        except Exception as error:  # noqa: BLE001 - foreign code may fail in any way
            return Judgement("not judged", note=f"does not run in float64: {_told(error)}")
        try:
            narrow = narrowed(full)
            with double_precision():
                found = answers(narrow, example, SEED)
        except Exception as error:  # noqa: BLE001 - foreign code may fail in any way
            return Judgement("wrong", note=f"does not run with random numbers: {_told(error)}")
        try:
            return _compared(found, example, _references(full, kept, mask))
        except DeadOutputError:
            continue
    return Judgement("not judged", note="no output varies with the input, however the numbers are drawn")


def _references(full: nn.Module, kept: Kept, mask: Callable[[nn.Module], nn.Module] | None) -> Iterator[Reference]:
    yield "zeros", partial(filled, full, kept, 0.0), double_precision
    yield "marks", partial(filled, full, kept, torch.nan), partial(double_precision, marks=True)
    if mask is not None:
        yield "mask", partial(mask, full), double_precision


def _compared(found: list[torch.Tensor], example: Any, references: Iterator[Reference]) -> Judgement:
    """Compare with one reference after another until one agrees; the nearest counts where none does."""
    failed: list[Judgement] = []
    for name, build, context in references:
        try:
            masked = build()
            with context():
                error, rounding = _error(found, masked, example)
        except DeadOutputError:
            raise
        except Exception as trouble:  # noqa: BLE001 - foreign code may fail in any way
            failed.append(Judgement("not judged", None, name, _told(trouble)))
            continue
        if error < TOLERANCE:
            return Judgement("right", error, name)
        if error < rounding:
            return Judgement("right", error, name, f"the network itself makes {rounding / 100:.0e} of rounding")
        failed.append(Judgement("wrong", error, name))
    wrong = [judgement for judgement in failed if judgement.error is not None]
    return min(wrong, key=lambda judgement: judgement.error or 0.0) if wrong else failed[0]


def _error(found: list[torch.Tensor], masked: nn.Module, example: Any) -> tuple[float, float]:
    """Return how far the outputs are from a reference, and how far rounding alone may bring them."""
    expected, other = (answers(masked, example, seed) for seed in (SEED, SEED + 1))
    spreads = [spread_of(*pair) for pair in zip(expected, other, strict=True)]
    alive = any(spreads) or any(bool(tensor.isnan().any()) for tensor in expected)
    if not alive:
        raise DeadOutputError("no output varies with the input")
    error = _largest(found, expected, spreads)
    if not TOLERANCE <= error < MOST_ROUNDING:
        return error, 0.0
    nudged = answers(masked, example, SEED, 1 + 2 * torch.finfo(torch.float64).eps)
    return error, min(100 * _largest(nudged, expected, spreads), MOST_ROUNDING)


def _largest(found: list[torch.Tensor], expected: list[torch.Tensor], spreads: list[float]) -> float:
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
        return float("inf")
    return max(distance(*triple) for triple in zip(found, expected, spreads, strict=True))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
