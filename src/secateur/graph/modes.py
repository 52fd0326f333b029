"""What only training does: whether a model has to be run in that mode, too.

Most code that decides something by `training` drops something at random, or chooses the statistics of a norm; its
channels are the same in both modes. The modules that do so are therefore run a second time, each alone, on what entered
them. Only where something else leaves them does the whole model have to run again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves

from secateur.graph.labels import Sheet
from secateur.graph.recording import Recorder
from secateur.graph.running import frame_of_user
from secateur.graph.staging import LEFT


@dataclass
class Open:
    """A call that is running, and how often code in it has asked for the mode so far."""

    module: nn.Module
    asked: int = 0

    def holds(self, module: nn.Module) -> bool:
        """Tell whether a module is the one that is called, or in it."""
        return module is self.module or any(module is one for one in _within(self.module))


class Seen(NamedTuple):
    """What a call returned: the structure (None: a tensor alone), and its leaves with their labels then."""

    structure: TreeSpec | None
    leaves: list[tuple[Any, list[Sheet]]]


class Visit(NamedTuple):
    """A call that asked for the mode: what went in, with its labels as they were then, and what came out."""

    module: nn.Module
    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    entered: list[tuple[torch.Tensor, dict[str, Any]]]
    left: Seen
    recorded: list[int]  # how much of each kind


class Watch:
    """Who asks for the mode, while a model runs on labels in evaluation.

    For that time `training` is a property of all modules. What torch's own code asks does not count, nor does what
    code only hands to one of torch's functions, such as a dropout: these do the same to channels in both modes.

    Attributes:
        asked: something may be done otherwise in training.
        settled: what asked was run in training, too, and nothing else left it.
    """

    def __init__(self, run: Recorder) -> None:
        self.run = run
        self.settled = False
        self._outside = Open(nn.Module())  # where no watched call encloses code that asks
        self._open: list[Open] = []
        self._last: tuple[int, int, Open] | None = None  # frame and line that asked last, and in which call
        self._visits: list[Visit] = []
        self._the_same: set[Any] = set()  # the likes of modules that did the same in training

    @property
    def asked(self) -> bool:
        """Whether something may be done otherwise in training."""
        return bool(self._visits) or self._outside.asked > 0

    def __enter__(self) -> None:
        """Watch the modules, which have been staged."""
        naming = {kind for kind in {type(module) for _, module in self.run.modules} if names_training(kind)}
        for _, module in self.run.modules:
            if type(module) in naming:
                watched = partial(self._visit, module, module.forward)
                watched.__wrapped__ = module.forward  # type: ignore[attr-defined] - for code that looks at signatures
                vars(module)["forward"] = watched
        self.run.watch = self
        nn.Module.training = property(self._mode_of, _set_mode)  # type: ignore[assignment]

    def _mode_of(self, module: nn.Module) -> bool:
        frame = sys._getframe(1)
        if not frame.f_globals.get("__name__", "").startswith("torch."):
            call = self._open[-1] if self._open and self._open[-1].holds(module) else self._outside
            call.asked += 1
            self._last = id(frame), frame.f_lineno, call
        return bool(vars(module)["training"])

    def handed_on(self) -> None:
        """One of torch's functions was given the mode: forget that the same line of code asked for it."""
        frame = frame_of_user()
        if self._last is not None and frame is not None and self._last[:2] == (id(frame), frame.f_lineno):
            self._last[2].asked -= 1
            self._last = None

    def _visit(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        entered = [(tensor, dict(vars(tensor))) for tensor in _tensors(args, kwargs)]
        before, inner = self.run.tally(), len(self._visits)
        call = Open(module)
        self._open.append(call)
        try:
            output = forward(*args, **kwargs)
        finally:
            self._open.pop()
        if call.asked:
            recorded = self._since(before)
            self._visits[inner:] = [Visit(module, forward, args, kwargs, entered, self._seen(output), recorded)]
        return output

    def _since(self, before: Sequence[int]) -> list[int]:
        return [after - number for after, number in zip(self.run.tally(), before, strict=True)]

    def _seen(self, output: Any) -> Seen:
        leaves, structure = ([output], None) if isinstance(output, torch.Tensor) else tree_flatten(output)
        return Seen(structure, [(leaf, self.run.sheets(leaf)) for leaf in leaves])

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Run in training the calls that asked, unless the whole model has to be run anyway."""
        del nn.Module.training
        self.run.watch = None
        self.settled = not self.asked
        if kind or self.settled or self._outside.asked or self.run.idle():
            return
        mark, self.run.counting = self.run.mark(), False
        try:
            with _batches_of_one():
                self.settled = all(map(self._same_in_training, self._visits))
        except Exception:  # noqa: BLE001 - a foreign model's code may fail in any way
            self.settled = False
        if not self.settled:
            self.run.back_to(mark)

    def _same_in_training(self, visit: Visit) -> bool:
        """Tell whether nothing else leaves a module; those of one kind and settings are taken to do alike.

        The proof of structure runs the whole model in training, too, where it has structure to check.
        """
        modules = list(_within(visit.module))
        like = _like(modules), len(visit.args), tuple(visit.kwargs), len(visit.left.leaves)
        if like in self._the_same:
            return True
        before = self.run.tally()
        for tensor, attributes in visit.entered:
            vars(tensor).clear()
            vars(tensor).update(attributes)
        try:
            for module in modules:
                vars(module)["training"] = True
            same = _alike(self._seen(visit.forward(*visit.args, **visit.kwargs)), visit.left)
        finally:
            for module in modules:
                vars(module)["training"] = False
        if same and self._since(before) == [0, *visit.recorded[1:]]:
            self._the_same.add(like)
        return same


_CHECK = "_verify_batch_size"


@contextmanager
def _batches_of_one() -> Iterator[None]:
    """Let norms be trained on one value a channel, which torch refuses: what happens to channels is the same."""
    original: Any = vars(functional)[_CHECK]
    setattr(functional, _CHECK, len)
    try:
        yield
    finally:
        setattr(functional, _CHECK, original)


def _alike(one: Seen, other: Seen) -> bool:
    """Tell whether the code that comes next could see no difference."""
    leaves = zip(one.leaves, other.leaves, strict=False)
    return one.structure == other.structure and all(_described(*a) == _described(*b) for a, b in leaves)


def _described(leaf: Any, sheets: list[Sheet]) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return int(leaf) if isinstance(leaf, int) else leaf  # traced integers would be told of the comparison
    shape = tuple(int(size) for size in leaf.shape)
    return shape, leaf.dtype, [(sheet.shape, sheet.tobytes()) for sheet in sheets]


def _within(module: nn.Module) -> Iterator[nn.Module]:
    """Walk a module and all in it."""
    yield module
    for child in module._modules.values():
        if child is not None:
            yield from _within(child)


def _like(modules: Sequence[nn.Module]) -> tuple[Any, ...]:
    """Return the types of a module and those in it, with their settings: flags, words and factors."""
    return tuple((type(each), *(value for value in vars(each).values() if type(value) in LEFT)) for each in modules)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    leaves = args if len(args) == 1 and not kwargs and type(args[0]) is torch.Tensor else tree_leaves((args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _set_mode(module: nn.Module, mode: bool) -> None:
    vars(module)["training"] = mode


def names_training(kind: type) -> bool:
    """Tell whether a class' own code, other than torch's, has the word."""
    return any(
        "training" in value.__code__.co_names
        for own in kind.__mro__
        if not own.__module__.startswith(("torch.", "builtins"))
        for value in vars(own).values()
        if isinstance(value, FunctionType)
    )
