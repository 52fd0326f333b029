"""What only training does: whether a model has to be run in that mode, too.

Most code that decides something by `training` drops something at random, or chooses the statistics of a norm; its
channels are the same in both modes. The modules that do so are therefore run a second time, each alone, on what entered
them. Only where something else leaves them does the whole model have to run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves

from secateur.graph.recording import Recorder
from secateur.graph.running import Mode
from secateur.graph.staging import LEFT, modules_of


@dataclass(frozen=True)
class Visit:
    """A call of a module: what went in, with its labels as they were then, and what came out."""

    module: nn.Module
    within: tuple[nn.Module, ...]  # whose calls it was part of
    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    entered: list[tuple[torch.Tensor, dict[str, Any]]]
    left: list[Any]
    recorded: list[int]  # how much of each kind


class Watch:
    """The modules that decide something by `training`, while a model runs on labels in evaluation.

    Attributes:
        asking: those modules; where there are none, training does the same.
        settled: they were run in training, too, and nothing else left them.
    """

    def __init__(self, run: Recorder) -> None:
        self.run = run
        self.asking: set[nn.Module] = set()
        self.settled = False
        self._elsewhere = False  # some module's mode was asked for by code outside of it
        self._visits: list[Visit] = []
        self._open: tuple[nn.Module, ...] = ()
        self._the_same: set[Any] = set()  # the likes of modules that did the same in training

    def __enter__(self) -> None:
        """Watch the modules, which have been staged."""
        naming = {kind for kind in {type(module) for _, module in self.run.modules} if names_training(kind)}
        for _, module in self.run.modules:
            if type(module) in naming:
                vars(module)["forward"] = partial(self._visit, module, module.forward)
            if not self.run.on_data and not type(module).forward.__module__.startswith("torch.nn."):
                vars(module)["training"] = Mode(partial(self._asked, module))
            elif type(module) in naming:
                self.asking.add(module)

    def _asked(self, module: nn.Module) -> None:
        self.asking.add(module)
        self._elsewhere |= module not in self._open

    def _visit(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        entered = [(tensor, dict(vars(tensor))) for tensor in _tensors((args, kwargs))]
        before, within = self.run.tally(), self._open
        self._open = (*within, module)
        try:
            output = forward(*args, **kwargs)
        finally:
            self._open = within
        if module in self.asking:
            recorded = self._since(before)
            self._visits.append(Visit(module, within, forward, args, kwargs, entered, self._seen(output), recorded))
        return output

    def _since(self, before: Sequence[int]) -> list[int]:
        return [after - number for after, number in zip(self.run.tally(), before, strict=True)]

    def _seen(self, output: Any) -> list[Any]:
        """Return what the code that comes next could tell: the structure, and shapes and labels of tensors."""
        if isinstance(output, torch.Tensor):
            return [self._described(output)]
        leaves, structure = tree_flatten(output)
        return [structure, *map(self._described, leaves)]

    def _described(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return int(leaf) if isinstance(leaf, int) else leaf
        shape = tuple(int(size) for size in leaf.shape)  # traced integers would be told of the comparison
        return shape, leaf.dtype, [(sheet.shape, sheet.tobytes()) for sheet in self.run.sheets(leaf)]

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Run in training the modules that asked, unless the whole model has to be run anyway."""
        for _, module in self.run.modules:
            vars(module)["training"] = False
        self.settled = not self.asking
        if kind or self.settled or self._elsewhere or self.run.idle() or self.run.single_values:
            return
        mark, self.run.counting = self.run.mark(), False
        visits = [visit for visit in self._visits if self.asking.isdisjoint(visit.within)]
        try:
            self.settled = all(map(self._same_in_training, visits))
        except Exception:  # noqa: BLE001 - a foreign model's code may fail in any way
            self.settled = False
        if not self.settled:
            self.run.back_to(mark)

    def _same_in_training(self, visit: Visit) -> bool:
        """Tell whether nothing else leaves a module; those of one kind and settings are taken to do alike.

        The proof of structure runs the whole model in training, so that one that does not is found there.
        """
        like = _like(visit.module), len(visit.args), tuple(visit.kwargs), *map(len, visit.left)
        if like in self._the_same:
            return True
        before, modules = self.run.tally(), [module for _, module in modules_of(visit.module)]
        for tensor, attributes in visit.entered:
            vars(tensor).clear()
            vars(tensor).update(attributes)
        try:
            for module in modules:
                vars(module)["training"] = True
            same = self._seen(visit.forward(*visit.args, **visit.kwargs)) == visit.left
        finally:
            for module in modules:
                vars(module)["training"] = False
        if same and self._since(before) == [0, *visit.recorded[1:]]:
            self._the_same.add(like)
        return same


def _like(module: nn.Module) -> tuple[Any, ...]:
    """Return the types of a module and those in it, with their settings: flags, words and factors."""
    return tuple(
        (type(each), *(value for value in vars(each).values() if type(value) in LEFT)) for _, each in modules_of(module)
    )


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def names_training(kind: type) -> bool:
    """Tell whether a class' own code, other than torch's, has the word."""
    return any(
        "training" in value.__code__.co_names
        for own in kind.__mro__
        if not own.__module__.startswith(("torch.", "builtins"))
        for value in vars(own).values()
        if isinstance(value, FunctionType)
    )
