"""Run a model with sheets of labels beside its tensors.

`LabelRun` holds the sheets and sends every ATen operation to its rule (`graph/rules`). What a rule finds (channels that
go together, channels that must stay, tables, statistics) becomes an event, a method that a kind of run defines: the
tracer records it, the structure proof asserts it, the simulated inference silences by it.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from secateur.graph.groups import Reason, TensorInfo
from secateur.graph.labels import Sheet, rows_along
from secateur.graph.provenance import Expression, Extent, TracedFloat, TracedInt, expression_of, is_literal
from secateur.graph.registry import FUNCTIONS, SHORTCUTS, Rule, rule_for

LABELS = "_secateur_sheets"  # attribute of a tensor: its sheets
WEIGHT = "_secateur_weight"  # attribute of a parameter's stand-in, and of views of it
VIEW = "_secateur_view"  # attribute of a tensor that may share its storage with another

MEET_DATA = "these channels meet values without channels to cut, such as the model's input"


class LabelRun:
    """Sheets beside tensors; subclasses say what happens at each event."""

    def __init__(self) -> None:
        self.pending: tuple[Any, ...] = ()
        self.operation: Any = None
        self.place: tuple[str, str] | None = None  # where the code is, when none of the model's is running

    # -- sheets ------------------------------------------------------------------------------------------------------

    def sheets(self, tensor: Any) -> list[Sheet]:
        """Return the sheets of a tensor; empty for what has no labels."""
        found: Any = getattr(tensor, LABELS, None)
        if type(found) is list:
            return found
        if found is None:
            return []
        setattr(tensor, LABELS, found := found())
        return found

    def grouped_inputs(self, weight: torch.Tensor, groups: int) -> np.ndarray | None:
        """Return the labels of a grouped convolution's inputs, (groups * rows,), if the weight has its own."""
        return None

    def full_cells(self, weight: torch.Tensor, groups: int) -> tuple[int, int]:
        """Return how many outputs and inputs each group of a convolution has in the full-size model."""
        return weight.shape[0] // groups, weight.shape[1]

    def give(self, tensor: torch.Tensor, sheets: Sequence[Sheet | None]) -> None:
        """Set the sheets of an operation's result; one element alone is never cut, so its label says nothing."""
        kept = [sheet for sheet in sheets if sheet is not None and sheet.size > 1]
        if kept or hasattr(tensor, LABELS):
            setattr(tensor, LABELS, kept)

    # -- events ------------------------------------------------------------------------------------------------------

    def unify(self, one: Sheet, other: Sheet) -> None:
        """Labels at the same place go together (the sheets broadcast); a label that meets none is fixed."""
        raise NotImplementedError

    def spread(self, narrow: Sheet, wide: Sheet) -> None:
        """Labels meet others that change along further dimensions, too."""
        self.unify(narrow, wide)

    def fix(self, sheet: Sheet, why: str) -> None:
        """These labels must stay."""
        raise NotImplementedError

    def rows(self, matrix: np.ndarray, why: str) -> None:
        """Every row of labels (r, c) must keep the same number of labels, and at least one."""
        raise NotImplementedError

    def statistics(self, sheet: Sheet) -> None:
        """A statistic is taken across these labels."""

    def reads(self, sheet: Sheet) -> None:
        """A contraction sums over these labels: this is where the channels are read."""

    def weighs(self, sheet: Sheet, consumed: bool) -> None:
        """These are labels of a layer's weight; `consumed`: where it sums over what comes in."""

    def pin(self, sheet: Sheet, dims: Sequence[int], why: str) -> None:
        """No position along `dims` may lose all of its labels."""
        self.rows_stay(rows_along(sheet, dims), why)

    def rows_stay(self, matrix: np.ndarray, why: str) -> None:
        """Every row of labels (r, c) must keep at least one."""

    def apart(self, labels: np.ndarray) -> None:
        """These labels go another way than others of their layer, so they cannot take each other's places."""

    def decided(self, one: TracedInt, name: str, other: int, result: int) -> None:
        """The code went a way that depends on `one NAME other` being `result`."""

    def as_number(self, number: TracedInt | TracedFloat) -> None:
        """A size was used in arithmetic, where its value matters and not only its meaning."""

    def scaled(self, size: Expression, power: float) -> None:
        """The running operation multiplies by a number proportional to `size ** power`."""

    def emits(self, tensor: torch.Tensor) -> None:
        """A tensor leaves the model."""

    def takes_mode(self) -> None:
        """One of torch's functions is given the mode."""

    def hands_out(self, sheet: Sheet) -> None:
        """These labels leave the model, and may be cut all the same."""

    def attends(self, sheet: Sheet) -> None:
        """Labels along two dimensions, such as heads and the channels of each, went into a product of activations."""

    def splits_heads(self, sheet: Sheet) -> bool:
        """Tell whether whole heads are cut where this dimension is split, and not channels of each head."""
        return False

    def use(self, expression: Expression, extent: Extent) -> None:
        """An integer must be equal to the size of an extent, also after the cut."""

    def macs(self, op: str, weight: torch.Tensor | None, factor: int, extents: Sequence[Extent]) -> None:
        """A contraction costs `factor` times the sizes of `extents` in multiply-accumulates."""

    # -- operations --------------------------------------------------------------------------------------------------

    def operate(self, func: Any, found: Rule | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation, then its rule."""
        out = self.compute(func, args, kwargs)
        if found is not None:
            given = {key: value for key, value in kwargs.items() if key != "out"} if kwargs else {}
            found(self, out, *args, **given)
        else:
            self.unknown(func, out, args, kwargs)
        return out

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the operation's result; for tensors without data the shape alone, where that is cheaper."""
        shortcut = SHORTCUTS.get(func)
        if shortcut is not None:
            out = shortcut(*args, **kwargs)
            if out is not None:
                return out
        return func(*args, **kwargs)

    def unknown(self, func: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An operation without a rule: what enters it must stay, what leaves it has no labels."""
        leaves, _ = tree_flatten((args, kwargs))
        name = str(func).removeprefix("aten.").partition(".")[0]
        for tensor in leaves:
            for sheet in self.sheets(tensor):
                self.fix(sheet, f"there is no rule for the operation {name}")
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor):
                self.give(tensor, [])

    def tied(self, sheet: Sheet, dims: Sequence[int]) -> Sheet:
        """Unify all labels along some dimensions, and return the sheet without these."""
        first = sheet[tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(sheet.ndim))]
        self.unify(sheet, first)
        return first if sheet.all() else np.where((sheet != 0).all(axis=tuple(dims), keepdims=True), first, 0)

    # -- integers ----------------------------------------------------------------------------------------------------

    def provenance(self, value: int, size: int | None = None) -> Expression | None:
        """Return where an argument came from: an expression; None if torch itself computed it.

        `size` is the size of the dimension that a negative bound counts from.
        """
        literal: Expression | None = None
        for candidate in _integers(self.pending):
            if int(candidate) == value or (size is not None and int(candidate) + size == value):
                expression = expression_of(candidate)
                if not is_literal(expression):
                    return expression
                literal = value
        return literal

    def argument(self, name: str) -> Any:
        """Return a keyword argument of the call that is running, as the code gave it."""
        return self.pending[1].get(name) if len(self.pending) > 1 else None

    def traced_arguments(self) -> list[TracedInt | TracedFloat]:
        """Return the traced numbers among the arguments of the call that is running."""
        found: list[TracedInt | TracedFloat] = []
        for part in self.pending:
            _gather_traced(part, found)
        return found

    def sizes_provenance(self, sizes: Sequence[int], after: int = 0) -> list[Expression | None]:
        """Return where each of several sizes came from: the arguments that stand side by side with these values.

        A size that was given as -1 is computed by torch. The first `after` integers of the call are something else.
        """
        given = list(_integers(self.pending))[after:]
        for start in range(len(given) - len(sizes) + 1):
            run = given[start : start + len(sizes)]
            if all(int(a) in (b, -1) for a, b in zip(run, sizes, strict=True)):
                return [None if int(value) == -1 else expression_of(value) for value in run]
        return [self.provenance(size) for size in sizes]

    def traced_size(self, tensor: torch.Tensor, size: torch.Size) -> torch.Size:
        """Return a shape whose labelled dimensions are traced integers."""
        sheets = self.sheets(tensor)
        if not sheets:
            return size
        return torch.Size([self._traced(sheets, dim, value) for dim, value in enumerate(size)])

    def _traced(self, sheets: Sequence[Sheet], dim: int, value: int) -> int:
        for sheet in sheets:
            if sheet.shape[dim] > 1:
                return TracedInt(value, extent_of(sheet, dim), self)
        return value

    def compared(self, one: TracedInt, other: int) -> None:
        """Two integers were found equal while the model ran: they must be equal after the cut, too."""
        left, right = expression_of(one), expression_of(other)
        if isinstance(left, Extent):
            self.use(right, left)
        elif isinstance(right, Extent):
            self.use(left, right)
        else:
            self.found_equal(one, other)

    def found_equal(self, one: TracedInt, other: int) -> None:
        """Two integers, neither of them the size of a tensor, were found equal."""

    def where(self, why: str) -> Reason:
        """Return a reason with the operation that is running and the user's line that called it."""
        op = str(self.operation).removeprefix("aten.") if self.operation is not None else ""
        source, module = self.place or user_frame()
        return Reason(why, op.partition(".")[0], source, module)


def cells_of(info: TensorInfo) -> tuple[int, int]:
    """Return how many outputs and inputs each group of a convolution with this weight has."""
    return info.shape[0] // info.conv_groups, info.shape[1]


def extent_of(sheet: Sheet, dim: int, columns: bool = False) -> Extent:
    """Return the extent of a labelled dimension; `columns`: of the part of a table that shrinks."""
    size = sheet.shape[dim]
    if sheet.size == size:  # the usual case, and moving axes takes time
        return Extent(sheet.reshape(size, 1), columns, sheet)
    return Extent(np.moveaxis(sheet, dim, 0).reshape(size, -1), columns, sheet)


def _gather_traced(value: Any, found: list[TracedInt | TracedFloat]) -> None:
    """Walk the traced numbers among the arguments of a call, in order."""
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind is TracedInt or kind is TracedFloat:
            found.append(item)
        elif kind in _CONTAINERS:
            _gather_traced(item, found)


_CONTAINERS = frozenset({tuple, list, dict, torch.Size})


def _integers(value: Any) -> Iterator[int]:
    """Walk the integers among the arguments of a call, in order."""
    if isinstance(value, int):
        if not isinstance(value, bool):
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, slice):
        yield from _integers((value.start, value.stop, value.step))
    elif isinstance(value, dict):
        yield from _integers(list(value.values()))


def frame_of_user() -> FrameType | None:
    """Return the innermost frame outside of torch and secateur."""
    frame = sys._getframe(1)
    while frame is not None and _is_foreign(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return frame


@lru_cache(maxsize=1024)
def _is_foreign(module: str) -> bool:
    return _FOREIGN.match(module) is not None


_FOREIGN = re.compile(r"(torch|numpy|secateur\.(graph|surgery|planning|pipeline|cli))(\.|$)")


def user_frame() -> tuple[str, str]:
    """Return "file.py:line" of the innermost frame outside of torch and secateur, and the class of its module."""
    frame = frame_of_user()
    if frame is None:
        return "", ""
    holder = frame.f_locals.get("self")
    module = type(holder).__name__ if isinstance(holder, torch.nn.Module) else ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}", module


class _Functions(TorchFunctionMode):
    """Remembers the arguments of the call that is running, and hands out traced shapes."""

    def __init__(self, run: LabelRun) -> None:
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        ask = _SIZES.get(func)
        if ask is not None:
            return ask(self.run.traced_size(args[0], args[0].shape), *args[1:], **(kwargs or {}))
        replacement = FUNCTIONS.get(func)
        if replacement is not None:
            with self:
                return replacement(*args, **(kwargs or {}))
        self.run.pending = (args, kwargs) if kwargs else (args,)
        if kwargs and "training" in kwargs:
            self.run.takes_mode()
        if func in CONVERTING or func in FILLING:
            for number in _values(func, args, kwargs or {}):
                self.run.as_number(number)
        return func(*args, **kwargs) if kwargs else func(*args)


def _size(shape: torch.Size, dim: int | None = None) -> Any:
    return shape if dim is None else shape[dim]


# What code asks of a tensor's shape; the getter is a new object at each look-up, but equal ones are found.
_SIZES: dict[Any, Callable[..., Any]] = {
    torch.Tensor.shape.__get__: _size,  # type: ignore[attr-defined]
    torch.Tensor.size: _size,
    **dict.fromkeys((torch.numel, torch.Tensor.numel, torch.Tensor.nelement), math.prod),
}
CONVERTING = frozenset({torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.Tensor.new_tensor})
FILLING = frozenset({torch.full, torch.full_like, torch.linspace, torch.Tensor.new_full, torch.Tensor.fill_})


def _values(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[TracedInt]:
    """Walk the traced integers that become elements of a tensor, not its sizes."""
    given = _integers((args, kwargs)) if func in CONVERTING else (*args, *kwargs.values())
    return (number for number in given if isinstance(number, TracedInt))


class _Operations(TorchDispatchMode):
    """Runs each ATen operation and its rule."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # no compiler is at work here, and keeping it out takes time in every operation

    def __init__(self, run: LabelRun) -> None:
        super().__init__()
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = rule_for(func)
        if found is None and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        self.run.operation = func
        return self.run.operate(func, found, args, kwargs)


@contextmanager
def running(run: LabelRun) -> Iterator[None]:
    """Run the body on labels."""
    # The fast path is one operation for a whole layer, in which no rule could look.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    root, math.sqrt = math.sqrt, _square_root
    try:
        with torch.inference_mode(), _Functions(run), _Operations(run):
            yield
    finally:
        math.sqrt = root
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _square_root(number: Any, root: Callable[[Any], float] = math.sqrt) -> float:
    """`math.sqrt`, the usual way to write the scale of attention, but traced."""
    if isinstance(number, TracedInt):
        number = number.proportional()
    return number**0.5 if isinstance(number, TracedFloat) and number >= 0 else root(number)
