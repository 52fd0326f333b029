"""What only training does: whether a model has to be run in that mode, too.

Most code that reads `training` does so to drop something at random, or to choose the statistics of a norm; its channels
are the same in both modes. The modules whose code reads it are therefore run a second time, each alone, on what entered
it. Only where something else leaves them does the whole model have to run again.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import takewhile
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves

from secateur.graph.recording import Recorder
from secateur.graph.staging import LEFT, modules_of

# Functions that may be told the mode: what they do to channels is the same in both.
HARMLESS = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "train",
})  # fmt: skip
BETWEEN = frozenset({"KW_NAMES", "PRECALL", "LOAD_CONST", "PUSH_NULL"})  # instructions between argument and call


@dataclass(frozen=True)
class Visit:
    """A call of a module: what went in, with its labels as they were then, and what came out."""

    module: nn.Module
    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    entered: list[tuple[torch.Tensor, dict[str, Any]]]
    left: list[Any]
    recorded: list[int]  # how much of each kind


class Watch:
    """The calls of modules that ask for the mode, while a model runs on labels in evaluation.

    Attributes:
        asked: some module may do different things in training.
        settled: those that do were run in training, too, and nothing else left them.
    """

    def __init__(self, run: Recorder) -> None:
        self.run = run
        kinds = {type(module) for _, module in run.modules}
        asking = {kind for kind in kinds if asks_for_training(kind)}
        self.modules = [module for _, module in run.modules if type(module) in asking]
        self.asked = bool(self.modules)
        self.settled = not self.asked
        self._visits: list[Visit] = []
        self._inside = False
        self._the_same: set[Any] = set()  # the likes of modules that did the same in training

    def __enter__(self) -> None:
        """Watch the modules, which have been staged."""
        for module in self.modules:
            vars(module)["forward"] = partial(self._visit, module, module.forward)

    def _visit(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._inside:
            return forward(*args, **kwargs)
        entered = [(tensor, dict(vars(tensor))) for tensor in _tensors((args, kwargs))]
        before, self._inside = self.run.tally(), True
        try:
            output = forward(*args, **kwargs)
        finally:
            self._inside = False
        recorded = self._since(before)
        self._visits.append(Visit(module, forward, args, kwargs, entered, self._seen(output), recorded))
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
        """Run in training what was watched, unless the whole model has to be run anyway."""
        if kind or self.settled or self.run.idle() or self.run.single_values:
            return
        mark, self._inside, self.run.counting = self.run.mark(), True, False
        try:
            self.settled = all(self._same_in_training(visit) for visit in self._visits)
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
        (type(each), *(value for value in vars(each).values() if type(value) in LEFT))
        for _, each in modules_of(module)
    )


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


# -- code ------------------------------------------------------------------------------------------------------------


def asks_for_training(kind: type) -> bool:
    """Tell whether a class' own code, other than torch's, may do different things in training."""
    return any(
        "training" in value.__code__.co_names and not _only_passes_on(value)
        for own in kind.__mro__
        if not own.__module__.startswith(("torch.", "builtins"))
        for value in vars(own).values()
        if isinstance(value, FunctionType)
    )


@lru_cache(maxsize=256)
def _only_passes_on(function: FunctionType, further: bool = True) -> bool:
    """Tell whether `training` is only read as an argument of torch's dropouts, or of functions that pass it on so."""
    steps = [step for step in dis.get_instructions(function) if step.opname != "CACHE"]
    reads = [at for at, step in enumerate(steps) if _mentions(step) and step.opname not in ("KW_NAMES", "LOAD_CONST")]
    for at in reads:
        taker = _taker(steps, at) if steps[at].opname in ("LOAD_ATTR", "LOAD_FAST") else ""
        called = function.__globals__.get(taker) if further else None
        passes = isinstance(called, FunctionType) and _only_passes_on(called, further=False)
        if taker not in HARMLESS and not passes:
            return False
    return True


def _mentions(step: dis.Instruction) -> bool:
    return "training" in (step.argval if isinstance(step.argval, tuple) else (step.argval,))


def _taker(steps: Sequence[dis.Instruction], at: int) -> str:
    """Return the name of the function that has for an argument what is loaded at a step; "" if it is not seen."""
    call = next(i for i in range(at + 1, len(steps)) if steps[i].opname not in BETWEEN)
    if not steps[call].opname.startswith("CALL"):
        return ""
    depth, start = 1, call + 1  # back to where the stack was before the function was laid on it
    while depth > 0 and start > 0:
        start -= 1
        depth -= dis.stack_effect(steps[start].opcode, steps[start].arg, jump=False)
    first, *others = (step for step in steps[start:at] if step.opname != "PUSH_NULL")
    attributes = takewhile(lambda step: step.opname in ("LOAD_ATTR", "LOAD_METHOD"), others)
    return str([first, *attributes][-1].argval)
