"""Sheets: which atom each element of a tensor belongs to (docs/design.md, section 4).

A sheet is an int64 array with one dimension per dimension of its tensor, of size 1 wherever the label does not
change. 0 means no atom. Sheets are small: a picture's activation carries one of shape (1, C, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

Sheet = np.ndarray
Shape = Sequence[int]

_COUNTS: dict[int, np.ndarray] = {}  # 1, 2, 3, ... by the identity of the array, longer and longer ones


def consecutive(first: int, size: int) -> np.ndarray:
    """Return `size` numbers from `first` (1 or more) on: a view of an array that all share, not to be written to."""
    longest = next(reversed(_COUNTS.values()), None)
    if longest is None or len(longest) < first + size - 1:
        longest = np.arange(1, max(2**16, 2 * (first + size)), dtype=np.int64)
        longest.flags.writeable = False
        _COUNTS[id(longest)] = longest
    return longest[first - 1 : first - 1 + size]


def are_consecutive(labels: np.ndarray) -> bool:
    """Tell whether labels are a view of `consecutive` numbers, in their order; a copy is not seen to be one."""
    return id(labels.base) in _COUNTS and labels.flags.c_contiguous


def along(atoms: np.ndarray, ndim: int, dim: int) -> Sheet:
    """Lay a vector of atoms along one dimension of a tensor."""
    shape = [1] * ndim
    shape[dim] = len(atoms)
    return atoms.reshape(shape)


def varying(sheet: Sheet) -> tuple[int, ...]:
    """Return the dimensions along which the label changes."""
    return _larger_than_one(sheet.shape)


@lru_cache(maxsize=1024)
def _larger_than_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dim for dim, size in enumerate(shape) if size > 1)


def digest(labels: np.ndarray) -> bytes:
    """Return the same for labels that are the same."""
    return blake2b(repr(labels.shape).encode() + labels.tobytes(), digest_size=16).digest()


def distinct(labels: np.ndarray) -> np.ndarray:
    """Return each label once, in order: `np.unique`, which takes several times as long for as few as these are."""
    found = np.sort(labels, axis=None)
    new = found[1:] != found[:-1]
    return found if new.all() else found[np.concatenate(([True], new))]


def complete(sheet: Sheet) -> bool:
    """Tell whether every element belongs to an atom."""
    return id(sheet.base) in _COUNTS or bool(np.count_nonzero(sheet) == sheet.size)


def rows_along(sheet: Sheet, dims: Sequence[int]) -> np.ndarray:
    """Return (positions along `dims`, labels there)."""
    front = np.moveaxis(sheet, dims, range(len(dims)))
    return front.reshape(int(np.prod(front.shape[: len(dims)])), -1)


def aligned(sheet: Sheet, ndim: int) -> Sheet:
    """Add leading dimensions, as broadcasting does."""
    return sheet.reshape((1,) * (ndim - sheet.ndim) + sheet.shape)


def compressed(sheet: Sheet) -> Sheet | None:
    """Shrink dimensions without change to size 1; None if no label is left."""
    for dim, size in enumerate(sheet.shape):
        if size > 1:
            first = sheet[(slice(None),) * dim + (slice(0, 1),)]
            if sheet.strides[dim] == 0 or (sheet == first).all():
                sheet = first
    return sheet if np.count_nonzero(sheet) else None


def merged(one: Sheet, other: Sheet) -> Sheet:
    """Join two unified sheets: labels that met are tied, so either will do; where one met none it is dropped."""
    if complete(one) and complete(other):
        if one.shape == other.shape or _covers(other.shape, one.shape):
            return one
        if _covers(one.shape, other.shape):
            return other
    return np.where((one != 0) & (other != 0), one, 0)


def _covers(large: Shape, small: Shape) -> bool:
    return all(a >= b for a, b in zip(large, small, strict=True))


def reshaped(sheet: Sheet, old: Shape, new: Shape) -> Sheet | None:
    """Apply `view(new)` to the sheet of a tensor of shape `old`, block by block, so that nothing large is made."""
    parts: list[int] = []
    for old_dims, new_dims in blocks(old, new):
        parts += _block_shape(sheet, new, old_dims, new_dims)
    wide = np.broadcast_to(sheet, _widened(sheet, old, new))
    return compressed(wide.reshape(parts))


def _block_shape(sheet: Sheet, new: Shape, old_dims: range, new_dims: range) -> list[int]:
    constant = all(sheet.shape[dim] == 1 for dim in old_dims)
    return [1 if constant else new[dim] for dim in new_dims]


def _widened(sheet: Sheet, old: Shape, new: Shape) -> list[int]:
    """Return the shape with every block that carries labels expanded to its full size."""
    wide = list(sheet.shape)
    for old_dims, _ in blocks(old, new):
        if any(sheet.shape[dim] > 1 for dim in old_dims):
            for dim in old_dims:
                wide[dim] = old[dim]
    return wide


def blocks(old: Shape, new: Shape) -> Iterator[tuple[range, range]]:
    """Pair the smallest runs of dimensions of `old` and `new` with the same number of elements."""
    i = j = 0
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
            elif j < len(new):
                right, j = right * new[j], j + 1
            else:
                left, i = left * old[i], i + 1
        yield range(first_i, i), range(first_j, j)
