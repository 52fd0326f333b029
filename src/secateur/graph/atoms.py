"""Atoms: every index along every axis of every parameter and buffer, numbered from 1 in the order of first use."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from secateur.graph.groups import Axis

Place = tuple[str, Axis]  # an axis of a tensor


@dataclass
class Atoms:
    """The numbers given so far; grows while a model is traced."""

    axes: list[Place] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    total: int = 0  # the last number given; 0 means no atom
    _known: dict[Place, int] = field(default_factory=dict)

    def of(self, tensor: str, axis: Axis, size: int) -> np.ndarray:
        """Return the atoms of an axis, numbering them at the first call."""
        at = self._known.get((tensor, axis))
        if at is None:
            at = self._known[tensor, axis] = len(self.axes)
            self.axes.append((tensor, axis))
            self.starts.append(self.total + 1)
            self.total += size
        return np.arange(self.starts[at], self.starts[at] + size, dtype=np.int64)

    def known(self, tensor: str, axis: Axis) -> np.ndarray:
        """Return the atoms of an axis that has been numbered."""
        at = self._known[tensor, axis]
        end = self.starts[at + 1] if at + 1 < len(self.starts) else self.total + 1
        return np.arange(self.starts[at], end, dtype=np.int64)

    def __contains__(self, key: Place) -> bool:
        return key in self._known

    def sizes(self) -> np.ndarray:
        """Return the size of every axis."""
        return np.diff([*self.starts, self.total + 1])

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
        numbers = np.searchsorted(self.starts, np.unique(labels[labels != 0]), side="right") - 1
        return [self.axes[at] for at in np.unique(numbers)]

    def hashes(self) -> np.ndarray:
        """Return a number for every axis that depends on its name alone: (axes, 2) uint64."""
        digests = [blake2b(f"{axis}@{tensor}".encode(), digest_size=16).digest() for tensor, axis in self.axes]
        return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
