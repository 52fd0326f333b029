"""Work that overlaps: threads that stay a bounded number of items ahead of who takes the results, in their order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def spread(
    function: Callable[[T], R], items: Iterable[T], workers: int = 1, ahead: int = 2
) -> Generator[R, None, None]:
    """Yield `function(item)` in the items' order, computed in threads; at most `workers + ahead` are under way or done.

    The items themselves are taken in the caller's thread; with one worker the calls come one after the other. What
    ends early, ends its source, too: so do all functions here.

    Example:
        >>> list(spread(str.upper, ["a", "b", "c"], workers=2))
        ['A', 'B', 'C']
    """
    pending: deque[Future[R]] = deque()
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for item in items:
                    pending.append(pool.submit(function, item))
                    if len(pending) > workers + ahead:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for one in pending:
                    one.cancel()
    finally:
        _close(items)


def prefetched(items: Iterable[T], ahead: int = 2) -> Generator[T, None, None]:
    """Yield the items, which a thread of its own takes before they are wanted.

    Example:
        >>> list(prefetched(range(3)))
        [0, 1, 2]
    """
    source, end = iter(items), object()

    def following(_: None) -> Any:
        return next(source, end)

    try:
        with closing(spread(following, itertools.repeat(None), ahead=ahead)) as taken:
            yield from itertools.takewhile(lambda item: item is not end, taken)
    finally:
        _close(source)


def grouped(items: Iterable[T], key: Callable[[T], Hashable], most: int, held: int) -> Generator[list[T], None, None]:
    """Yield groups of up to `most` items of the same key; while others wait, in all `held` at most, they may overtake.

    Example:
        >>> list(grouped("abab", str.upper, most=2, held=4))
        [['a', 'a'], ['b', 'b']]
    """
    waiting: dict[Hashable, list[T]] = {}
    try:
        for item in items:
            group = waiting.setdefault(key(item), [])
            group.append(item)
            if len(group) >= most:
                yield waiting.pop(key(item))
            elif sum(map(len, waiting.values())) > held:
                yield waiting.pop(next(iter(waiting)))
        yield from waiting.values()
    finally:
        _close(items)


def _close(items: Iterable[Any]) -> None:
    if isinstance(items, Generator):
        items.close()
