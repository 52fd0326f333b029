"""Watch what a model's weights read: one run on real data, with labels that say which index is which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from secateur.graph.atoms import Atoms
from secateur.graph.calls import Call
from secateur.graph.groups import Axis
from secateur.graph.labels import Sheet, along, varying
from secateur.graph.registry import Rule
from secateur.graph.rules.contraction import addmm, linear, matmul
from secateur.graph.rules.convolution import convolution, transposed_convolution
from secateur.graph.rules.normalization import channel_norm
from secateur.graph.running import LABELS, WEIGHT, LabelRun, running
from secateur.graph.staging import staged

NAME = "_secateur_read_as"  # attribute of a stand-in: the tensor's first name
WRITER = "_secateur_written_by"  # attribute of a result: the site whose weight wrote it

Site = tuple[str, Axis]  # a weight, and the axis along which it sums


@dataclass(frozen=True)
class Reading:
    """What a weight is given to read in one call of it."""

    site: Site
    inputs: torch.Tensor
    dim: int  # of the inputs, that the weight sums over
    blocks: int = 1  # groups of a convolution, one after the other along `dim`
    order: np.ndarray | None = None  # index along the weight's axis of each input; None: as they are
    bias: str | None = None  # a vector that is added to the result
    even: bool = True  # whether a constant input adds the same to every position of the result


@dataclass(frozen=True)
class Intercept:
    """The vector that a constant part of what a weight reads can go into."""

    tensor: str
    sign: int  # -1: the running mean of a norm, which is taken away


@dataclass(frozen=True)
class Use:
    """How a model uses a weight."""

    intercept: Intercept | None  # None: no such vector, or not the same one at every call
    blocks: int  # groups of a convolution
    calls: int


class Enough(BaseException):
    """Raised by a visitor that need not see the rest of the model."""


See = Callable[[Reading], None]


class Observer(LabelRun):
    """A run on real data that reports what every weight reads."""

    def __init__(self, see: See) -> None:
        super().__init__()
        self.see = see
        self.atoms = Atoms()
        self.intercepts: dict[Site, list[Intercept | None]] = {}  # one for each call of the weight
        self.blocks: dict[Site, int] = {}
        self.sizes: dict[str, int] = {}
        self.read_otherwise: set[Site] = set()  # whose results something else than a norm takes as they are

    def stand_in(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return an alias of a tensor that knows its name, and the indices along its axes."""
        alias = tensor.detach()
        if not isinstance(tensor, nn.Parameter):
            alias = alias.clone()  # the code may write into it
        else:
            alias = nn.Parameter(alias, requires_grad=tensor.requires_grad)
            setattr(alias, WEIGHT, True)
        if name:
            setattr(alias, NAME, name)
            self.sizes[name] = tensor.numel()
            setattr(alias, LABELS, lambda: self._fresh(name, tuple(tensor.shape)))
        return alias

    def _fresh(self, name: str, shape: Sequence[int]) -> list[Sheet]:
        return [along(self.atoms.of(name, axis, size), len(shape), axis) for axis, size in enumerate(shape) if size > 1]

    @override
    def grouped_inputs(self, weight: torch.Tensor, groups: int) -> np.ndarray | None:
        name = getattr(weight, NAME, None)
        return None if name is None else self.atoms.of(name, "grouped", groups * weight.shape[1])

    # -- events: nothing is recorded ---------------------------------------------------------------------------------

    @override
    def unify(self, one: Sheet, other: Sheet) -> None: ...

    @override
    def fix(self, sheet: Sheet, why: str) -> None: ...

    @override
    def rows(self, matrix: np.ndarray, why: str) -> None: ...

    # -- operations --------------------------------------------------------------------------------------------------

    @override
    def operate(self, func: Any, found: Rule | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        reader = READERS.get(found)
        reading = None if reader is None else reader(self, *args, **kwargs)
        if reading is not None:
            self.see(reading)  # who may change the weight before it is used
        out = super().operate(func, found, args, kwargs)
        if found is channel_norm:
            self._normed(*args)
        else:
            self.read_otherwise.update(site for one in args if (site := getattr(one, WRITER, None)) is not None)
        if reading is not None:
            intercept = None if reading.bias is None else Intercept(reading.bias, 1)
            self.intercepts.setdefault(reading.site, []).append(intercept)
            self.blocks[reading.site] = reading.blocks
            if intercept is None and reading.even:
                setattr(out, WRITER, reading.site)
        return out

    def _normed(self, x: torch.Tensor, weight: Any, bias: Any, mean: Any = None, *rest: Any) -> None:
        """A norm by running statistics follows a weight: constants can go into its mean."""
        site, name = getattr(x, WRITER, None), getattr(mean, NAME, None)
        training = len(rest) > 1 and bool(rest[1])
        if site is not None and name is not None and not training:
            self.intercepts[site][-1] = Intercept(name, -1)

    def intercept(self, site: Site) -> Intercept | None:
        """Return the vector that constants of a weight's inputs can go into, if it is the same at every call."""
        found = set(self.intercepts[site])
        one = found.pop()
        others = (each for other, given in self.intercepts.items() if other != site for each in given)
        if one is not None and any(each is not None and each.tensor == one.tensor for each in others):
            return None
        return None if found or (one is not None and one.sign < 0 and site in self.read_otherwise) else one

    def axis_read(self, weight: Any, dim: int) -> tuple[Site, np.ndarray | None] | None:
        """Return the axis of a parameter that lies along one dimension of a weight, and in which order."""
        if not hasattr(weight, WEIGHT):
            return None
        found = [sheet for sheet in self.sheets(weight) if sheet.shape[dim] > 1]
        if len(found) != 1 or varying(found[0]) != (dim % weight.ndim,):
            return None
        labels = found[0].ravel()
        places = self.atoms.places(labels)
        if len(places) != 1 or not (labels != 0).all():
            return None
        whole = self.atoms.known(*places[0])
        order = labels - whole[0]
        if len(whole) != len(labels) or len(np.unique(order)) != len(order):
            return None
        return places[0], None if (np.diff(order) == 1).all() else order


# -- what each operation reads -----------------------------------------------------------------------------------------


def _named(tensor: Any) -> str | None:
    return getattr(tensor, NAME, None) if isinstance(tensor, torch.Tensor) and tensor.ndim == 1 else None


def _added(run: Observer, site: Site, weight: torch.Tensor, bias: Any) -> str | None:
    """Return the name of a bias, if it belongs to a whole matrix and not to a part of it."""
    return _named(bias) if weight.ndim == 2 and weight.numel() == run.sizes[site[0]] else None


def _linear(run: Observer, x: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> Reading | None:
    found = run.axis_read(weight, weight.ndim - 1)
    if found is None:
        return None
    return Reading(found[0], x, x.ndim - 1, order=found[1], bias=_added(run, found[0], weight, bias))


def _matmul(run: Observer, a: torch.Tensor, b: torch.Tensor, bias: Any = None) -> Reading | None:
    found = run.axis_read(b, max(b.ndim - 2, 0))
    if found is not None:
        return Reading(found[0], a, a.ndim - 1, order=found[1], bias=_added(run, found[0], b, bias))
    found = run.axis_read(a, a.ndim - 1)
    return None if found is None else Reading(found[0], b, max(b.ndim - 2, 0), order=found[1])


def _addmm(run: Observer, bias: Any, a: torch.Tensor, b: torch.Tensor, **scales: Any) -> Reading | None:
    reading = _matmul(run, a, b, None if scales else bias)
    plain = reading is not None and reading.inputs is a
    return reading if reading is None or plain else replace(reading, bias=None)


def _convolution(
    _: Observer,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,  # noqa: ARG001
    groups: int = 1,
) -> Reading | None:
    name = getattr(weight, NAME, None)
    if name is None or (groups > 1 and weight.shape[1] == 1):
        return None
    channel = x.ndim - weight.ndim + 1
    if all(size == 1 for size in weight.shape[2:]) and not isinstance(padding, str) and not any(np.ravel(padding)):
        steps = np.broadcast_to(stride, weight.ndim - 2)  # what it steps over, it does not read
        x = x[(..., *(slice(None, None, int(step)) for step in steps))]
    return Reading((name, "grouped" if groups > 1 else 1), x, channel, int(groups), bias=_named(bias))


def _transposed(
    _: Observer,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,  # noqa: ARG001
    output_padding: Any = 0,  # noqa: ARG001
    groups: int = 1,
    dilation: Any = 1,  # noqa: ARG001
) -> Reading | None:
    name = getattr(weight, NAME, None)
    if name is None or groups > 1:
        return None
    even = all(step == 1 for step in np.ravel(stride))  # or else a constant adds another sum to each position
    return Reading((name, 0), x, x.ndim - weight.ndim + 1, bias=_named(bias) if even else None, even=even)


READERS: dict[Rule | None, Callable[..., Reading | None]] = {
    linear: _linear,
    matmul: _matmul,
    addmm: _addmm,
    convolution: _convolution,
    transposed_convolution: _transposed,
}


@contextmanager
def observed(model: nn.Module, see: See) -> Iterator[Observer]:
    """Run the body with a model, in evaluation, whose every reading `see` is told of."""
    run = Observer(see)
    with staged(model, run.stand_in, run), running(run):
        yield run


def run_observed(model: nn.Module, call: Call, see: See) -> dict[Site, Use]:
    """Run a call in evaluation, and return how its weights are used, in the order of their first reading.

    A vector that the constants of several weights would go into is left alone.
    """
    with observed(model, see) as run, suppress(Enough):
        model(*call.args, **call.kwargs)
    return {site: Use(run.intercept(site), run.blocks[site], len(found)) for site, found in run.intercepts.items()}
