"""Atoms: every index along every axis of every parameter and buffer, numbered from 1 in the order of first use."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from secateur.graph.groups import Axis
from secateur.graph.labels import are_consecutive, consecutive, distinct

Place = tuple[str, Axis]  # an axis of a tensor


@dataclass
class Atoms:
    """The numbers given so far; grows while a model is traced."""

    axes: list[Place] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    total: int = 0  # the last number given; 0 means no atom
    _known: dict[Place, int] = field(default_factory=dict)
    _numbers: list[np.ndarray] = field(default_factory=list)  # the atoms of every axis
    _from: dict[int, int] = field(default_factory=dict)  # the axis by its first atom

    def of(self, tensor: str, axis: Axis, size: int) -> np.ndarray:
        """Return the atoms of an axis, numbering them at the first call."""
        at = self._known.get((tensor, axis))
        if at is not None:
            return self._numbers[at]
        first = self.total + 1
        numbers = consecutive(first, size)
        self._known[tensor, axis] = self._from[first] = len(self.axes)
        self._numbers.append(numbers)
        self.axes.append((tensor, axis))
        self.starts.append(first)
        self.total += size
        return numbers

    def known(self, tensor: str, axis: Axis) -> np.ndarray:
        """Return the atoms of an axis that has been numbered."""
        return self._numbers[self._known[tensor, axis]]

    def number(self, tensor: str, axis: Axis) -> int | None:
        """Return the number of an axis; None if it has no atoms."""
        return self._known.get((tensor, axis))

    def whole(self, labels: np.ndarray) -> int | None:
        """Return the number of the axis whose atoms these are, all of them and in order; None where that is not seen.

        A view of an axis' own array is known at once; a copy is not.
        """
        if not labels.size or not are_consecutive(labels):
            return None
        at = self._from.get(labels.item(0))
        return at if at is not None and len(self._numbers[at]) == labels.size else None

    def __contains__(self, key: Place) -> bool:
        return key in self._known

    def sizes(self) -> np.ndarray:
        """Return the size of every axis."""
        return np.array([len(numbers) for numbers in self._numbers], np.int64)

    def axis_of(self) -> np.ndarray:
        """Return the number of the axis of every atom, with atom 0 as -1."""
        return np.concatenate([[-1], np.repeat(np.arange(len(self.axes)), self.sizes())]).astype(np.int64)

    def index_of(self) -> np.ndarray:
        """Return the index of every atom along its axis, with atom 0 as -1."""
        starts = np.repeat(np.asarray(self.starts, np.int64), self.sizes())
        return np.concatenate([[-1], np.arange(1, self.total + 1) - starts])

    def find(self, atom: int) -> tuple[str, Axis, int]:
        """Return the tensor, axis and index of one atom."""
        at = bisect_right(self.starts, atom) - 1
        return (*self.axes[at], atom - self.starts[at])

    def places(self, labels: np.ndarray) -> list[Place]:
        """Return the axes that some labels belong to."""
        numbers = np.searchsorted(self.starts, distinct(labels[labels != 0]), side="right") - 1
        return [self.axes[at] for at in distinct(numbers)]

    def hashes(self) -> np.ndarray:
        """Return a number for every axis that depends on its name alone: (axes, 2) uint64."""
        digests = [blake2b(f"{axis}@{tensor}".encode(), digest_size=16).digest() for tensor, axis in self.axes]
        return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
