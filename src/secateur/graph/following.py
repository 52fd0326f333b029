"""Follow factors through a run, from when one first matters.

In most models no number follows the size of what is cut. Until one does, operations are only kept, with the labels that
their tensors have at the time; then they are gone through again, and from there on each is followed as it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from secateur.graph import folding
from secateur.graph.labels import Sheet
from secateur.graph.running import LABELS, LabelRun, Rule


class Follower:
    """What carries which factor, and the factors that something notices.

    Args:
        run: the run.
        at_once: follow from the first operation, and keep none: their tensors have data.
    """

    def __init__(self, run: LabelRun, at_once: bool) -> None:
        self.run = run
        self.following = at_once
        self.noticed: list[folding.Factor] = []  # what must be one
        self._past: list[Callable[[], None]] = []

    def operation(
        self,
        func: Any,
        found: Rule | None,
        out: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sizes: tuple[folding.Size, ...],
    ) -> None:
        """Follow an operation that has run, and that multiplies by numbers which follow `sizes`."""
        if sizes and not self.following:
            self._catch_up()
        if self.following:
            self._follow(self.run, func, found, out, args, kwargs, sizes)
        else:
            now = _Then(self.run, (out, *args, *kwargs.values()))
            self._past.append(partial(self._follow, now, func, found, out, args, kwargs, ()))

    def _follow(
        self,
        run: Any,
        func: Any,
        found: Rule | None,
        out: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sizes: tuple[folding.Size, ...],
    ) -> None:
        factor, noticed = folding.outcome(run, func, found, out, args, kwargs, sizes)
        self.noticed += [each for each in noticed if each is not folding.ONE]
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if factor is not folding.ONE or hasattr(tensor, folding.FACTOR):
                setattr(tensor, folding.FACTOR, factor)

    def emits(self, tensor: torch.Tensor) -> None:
        """A tensor leaves the model, where its factor is noticed."""
        if self.following:
            self._notice(self.run, tensor)
        else:
            self._past.append(partial(self._notice, _Then(self.run, (tensor,)), tensor))

    def _notice(self, run: Any, tensor: torch.Tensor) -> None:
        factor = folding.factor_of(run, tensor)
        if factor is not folding.ONE:
            self.noticed.append(factor.bound(run.sheets(tensor)))

    def _catch_up(self) -> None:
        self.following = True
        for follow in self._past:
            follow()

    def mark(self) -> tuple[bool, int, int]:
        """Remember how far this is."""
        return self.following, len(self.noticed), len(self._past)

    def back_to(self, mark: tuple[bool, int, int]) -> None:
        """Forget what came since."""
        self.following = mark[0]
        del self.noticed[mark[1] :]
        del self._past[mark[2] :]


class _Then:
    """The labels that tensors had when an operation had run."""

    def __init__(self, run: LabelRun, values: tuple[Any, ...]) -> None:
        self.run = run
        self._labels: dict[int, tuple[torch.Tensor, Any]] = {}
        self._keep(values)

    def _keep(self, values: Any) -> None:
        for value in values:
            if isinstance(value, torch.Tensor):
                found = getattr(value, LABELS, None)
                weights = isinstance(found, partial)  # which are labelled when an operation first meets them
                self._labels[id(value)] = value, self.run.sheets(value) if weights else found
            elif isinstance(value, (list, tuple)):
                self._keep(value)

    def sheets(self, tensor: Any) -> list[Sheet]:
        """Return the sheets of a tensor, as `LabelRun.sheets` does."""
        kept = self._labels.get(id(tensor))
        found: Any = None if kept is None else kept[1]
        sheets: Any = found() if callable(found) else found
        return sheets or []
