"""Follow factors through a run, from when one first matters.

In most models no number follows the size of what is cut. Until one does, operations are only kept, with the labels of
their results at the time; then they are gone through again, and from there on each is followed as it runs.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch

from secateur.graph import folding
from secateur.graph.labels import Sheet
from secateur.graph.running import LABELS, LabelRun


class _Past(NamedTuple):
    """An operation that has run, or a tensor that has left the model, and labels as they were then."""

    happened: folding.Ran | torch.Tensor
    labels: list[Any]  # of the operation's results, or of the tensor


class Follower:
    """What carries which factor, and the factors that something notices.

    Args:
        at_once: follow from the first operation, and keep none: their tensors have data.
    """

    def __init__(self, at_once: bool) -> None:
        self.following = at_once
        self.noticed: list[folding.Factor] = []  # what must be one
        self._past: list[_Past] = []

    def follow(self, run: LabelRun, ran: folding.Ran) -> None:
        """Follow an operation of a run."""
        if ran.sizes and not self.following:
            self._catch_up(run)
        if self.following:
            self._follow(run, ran)
            return
        for value in ran.args:
            if isinstance(getattr(value, LABELS, None), partial):  # a weight is labelled when first met
                run.sheets(value)
        self._past.append(_Past(ran, [getattr(one, LABELS, None) for one in ran.results]))

    def _follow(self, run: Any, ran: folding.Ran) -> None:
        factor, noticed = folding.outcome(run, ran)
        self.noticed += [each for each in noticed if each is not folding.ONE]
        for tensor in ran.results:
            if factor is not folding.ONE or hasattr(tensor, folding.FACTOR):
                setattr(tensor, folding.FACTOR, factor)

    def emits(self, run: LabelRun, tensor: torch.Tensor) -> None:
        """A tensor leaves the model, where its factor is noticed."""
        if self.following:
            self._notice(run, tensor)
        else:
            self._past.append(_Past(tensor, [getattr(tensor, LABELS, None)]))

    def _notice(self, run: Any, tensor: torch.Tensor) -> None:
        factor = folding.factor_of(run, tensor)
        if factor is not folding.ONE:
            self.noticed.append(factor.bound(run.sheets(tensor)))

    def _catch_up(self, run: LabelRun) -> None:
        self.following, then = True, _Then(run)
        for happened, labels in self._past:
            if isinstance(happened, torch.Tensor):
                then.labels[id(happened)] = labels[0]
                self._notice(then, happened)
            else:
                then.labels.update(zip(map(id, happened.results), labels, strict=True))
                self._follow(then, happened)

    def mark(self) -> tuple[bool, int, int]:
        """Remember how far this is."""
        return self.following, len(self.noticed), len(self._past)

    def back_to(self, mark: tuple[bool, int, int]) -> None:
        """Forget what came since."""
        self.following = mark[0]
        del self.noticed[mark[1] :]
        del self._past[mark[2] :]


class _Then:
    """The labels that tensors had when an operation had run, while one operation after another is gone through."""

    def __init__(self, run: LabelRun) -> None:
        self.run = run
        self.labels: dict[int, Any] = {}  # of results, by identity: the operations that are kept keep these

    def sheets(self, tensor: Any) -> list[Sheet]:
        """Return the sheets of a tensor, as `LabelRun.sheets` does."""
        found: Any = self.labels.get(id(tensor))
        if found is None:
            return self.run.sheets(tensor) if id(tensor) not in self.labels else []
        sheets: Any = found() if callable(found) else found
        return sheets
