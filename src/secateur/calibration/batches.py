"""Pictures to calibrate with: what the user's batches hold, checked, in parts that fit the memory."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from secateur.errors import DataError
from secateur.graph.calls import Call
from secateur.graph.groups import CallShape

MOST_AT_ONCE = 8  # samples in one run of the model: with more, CPUs spend their time on fresh memory
HELD_OUT = 4  # every fourth part is held out
ENOUGH = 128  # samples: more teach hardly more (GRAIL, arXiv 2602.23795)


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples: a call of the model, and the batch as it came, for the user's own loss and metric."""

    call: Call
    batch: Any
    samples: int


@dataclass(frozen=True, eq=False)
class Batches:
    """Inputs of a model, to be looked at as often as need be; they stay in memory."""

    parts: tuple[Part, ...]

    @cached_property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(part.samples for part in self.parts)

    @cached_property
    def to_fit(self) -> tuple[Part, ...]:
        """The parts that decide how."""
        return tuple(part for at, part in enumerate(self.parts) if at % HELD_OUT != HELD_OUT - 1)

    @cached_property
    def held_out(self) -> tuple[Part, ...]:
        """The parts that decide whether; every fourth, since batches may be in order."""
        return self.parts[HELD_OUT - 1 :: HELD_OUT]


def batches_of(given: Any, model: nn.Module, calls: Sequence[CallShape]) -> Batches:
    """Read batches: an iterable of what the model is called with.

    A batch is a tensor, a tuple or list of tensors, or a dict of keyword arguments. Of a tuple, tensors after the
    model's inputs are ignored, as are keywords that its `forward` does not take: labels, mostly. The first dimension of
    the first tensor is that of the samples; large batches are split along it.

    Args:
        given: the batches, of any sizes; read to the end once.
        model: whose inputs they are.
        calls: how the model was traced, by which its inputs are told.

    Raises:
        DataError: there are too few samples (says how many would do), or a batch does not fit the model, or holds NaN
            or infinite values; names the batch.
    """
    if isinstance(given, Batches):
        return given
    if isinstance(given, torch.Tensor) or not isinstance(given, Iterable):
        what = "one tensor" if isinstance(given, torch.Tensor) else type(given).__name__
        raise DataError(
            f"The batches to calibrate with are {what}. Give a list of batches, a data loader or a generator."
        )
    read = [_read(batch, number, model, calls) for number, batch in enumerate(given)]
    samples = sum(part.samples for part in read)
    if samples < HELD_OUT:
        raise DataError(
            f"There are {samples or 'no'} samples to calibrate with, of which a quarter is held out to judge by. "
            f"Give {HELD_OUT} at least; {ENOUGH} would do."
        )
    parts: list[Part] = []
    for least in range(1, HELD_OUT + 1):
        parts = [piece for part in read for piece in _pieces(part, least)]
        if len(parts) >= HELD_OUT:
            break
    return Batches(tuple(parts))


def _read(batch: Any, number: int, model: nn.Module, calls: Sequence[CallShape]) -> Part:
    call = _call(batch, number, model, calls)
    tensors = call.tensors()
    for tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"Batch {number} holds NaN or infinite values. Take it out, or repair what makes it.")
    if not all(tensor.numel() for tensor in tensors):
        raise DataError(f"Batch {number} holds no sample. Take it out.")
    return Part(call, batch, len(tensors[0]) if tensors[0].ndim else 1)


def _call(batch: Any, number: int, model: nn.Module, calls: Sequence[CallShape]) -> Call:
    if isinstance(batch, Mapping):
        call = Call((), {str(key): value for key, value in batch.items() if key in _keywords(model, batch)})
    elif isinstance(batch, (tuple, list)):
        call = Call(tuple(batch[: _inputs(batch, calls)]), {})
    else:
        call = Call((batch,), {})
    tensors = call.tensors()
    wanted = next((one for one in calls if len(one.shapes) == len(tensors)), calls[0] if calls else None)
    if not tensors or (wanted is not None and len(tensors) != len(wanted.shapes)):
        raise DataError(
            f"Batch {number} ({type(batch).__name__}) holds {len(tensors) or 'no'} inputs of the model, which takes "
            f"{len(wanted.shapes) if wanted else 'some'}. Give tensors, tuples, or dicts by its keywords."
        )
    return call if wanted is None else _fitting(call, number, wanted)


def _fitting(call: Call, number: int, wanted: CallShape) -> Call:
    """Check shapes and kinds of numbers against those of the example; floating point numbers take its precision."""
    dtypes = {}
    for tensor, shape, name in zip(call.tensors(), wanted.shapes, wanted.dtypes, strict=True):
        kind = getattr(torch, name)
        if tensor.ndim != len(shape) or tensor.is_floating_point() != kind.is_floating_point:
            raise DataError(
                f"Batch {number} has shape {tuple(tensor.shape)}, {str(tensor.dtype).removeprefix('torch.')}; the "
                f"model was traced with {shape}, {name}. Prepare the batches as the example was."
            )
        dtypes[id(tensor)] = kind
    return call.map(lambda tensor: tensor.detach().to(dtypes[id(tensor)]))


def _inputs(batch: Sequence[Any], calls: Sequence[CallShape]) -> int:
    """Return how many of a batch's entries are the model's."""
    wanted, tensors = max((len(call.shapes) for call in calls), default=1), 0
    for at, value in enumerate(batch):
        tensors += len(Call((value,), {}).tensors())
        if tensors >= wanted:
            rest = itertools.takewhile(lambda one: isinstance(one, (bool, int, float, str)), batch[at + 1 :])
            return at + 1 + len(list(rest))
    return len(batch)


def _keywords(model: nn.Module, batch: Mapping[Any, Any]) -> set[str]:
    taken = inspect.signature(model.forward).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        return set(map(str, batch))
    return set(taken)


def _pieces(part: Part, least: int) -> list[Part]:
    """Split a batch into at least so many pieces, as far as it has samples, none of them too large."""
    count = min(max(-(-part.samples // MOST_AT_ONCE), least), part.samples)
    if count <= 1:
        return [part]
    bounds = [part.samples * at // count for at in range(count + 1)]
    return [
        Part(
            part.call.map(_slicer(part.samples, start, end)), _sliced(part.batch, part.samples, start, end), end - start
        )
        for start, end in itertools.pairwise(bounds)
    ]


def _slicer(samples: int, start: int, end: int) -> Any:
    return lambda tensor: tensor[start:end] if tensor.ndim and len(tensor) == samples else tensor


def _sliced(value: Any, samples: int, start: int, end: int) -> Any:
    if isinstance(value, torch.Tensor):
        return _slicer(samples, start, end)(value)
    if isinstance(value, Mapping):
        return {key: _sliced(item, samples, start, end) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        if len(value) == samples and not any(isinstance(item, torch.Tensor) for item in value):
            return value[start:end]
        items = [_sliced(item, samples, start, end) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
