"""Memory on a CPU: what one step of training frees is kept for the next."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from secateur.errors import TrainingError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of parameters in glibc's malloc.h
_NEVER, _LARGEST = -1, 2**31 - 1
_USUAL_MMAP = 32 << 20  # bytes; where glibc's own adaptation ends in a process that frees large blocks
_USUAL_TRIM = 2 * _USUAL_MMAP


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let large blocks that are freed be taken again, not handed back to the system and asked for anew.

    A step of training frees all of its activations, and the next one asks for as many: as glibc does it, the system
    clears millions of pages at each step, which with large batches can take longer than the arithmetic
    (benchmarks/train_step.py). It costs memory: up to a half more. After it what is free is handed back. Without glibc
    nothing changes.
    """
    glibc = _glibc()
    if glibc is None:
        yield
        return
    glibc.mallopt(_MMAP_THRESHOLD, _LARGEST)
    glibc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        glibc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        glibc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        glibc.malloc_trim(0)


@contextmanager
def lack_of_memory_told(batch: int) -> Iterator[None]:
    """Raise a TrainingError that names a smaller batch where memory does not suffice for this one."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)):
            raise
        raise TrainingError(
            f"A batch of {batch} does not fit into memory. Take a smaller one: --batch {max(1, batch // 2)}."
        ) from error


def _glibc() -> Any:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
