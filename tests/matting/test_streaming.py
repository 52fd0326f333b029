"""Overlapping keeps the order, stays bounded, hands errors on, and closes what it reads from."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from secateur.matting.streaming import grouped, prefetched, spread


class Source:
    """Numbers that tell how many were taken and whether anybody closed them."""

    def __init__(self, count=1000):
        self.taken, self.closed, self._count = 0, False, count

    def __call__(self):
        try:
            for number in range(self._count):
                self.taken += 1
                yield number
        finally:
            self.closed = True


def test_results_come_in_order_whatever_takes_longer():
    def slow_if_even(number):
        time.sleep(0.01 * (number % 2 == 0))
        return number

    assert list(spread(slow_if_even, range(10), workers=4)) == list(range(10))


@pytest.mark.parametrize(
    "overlapping", [lambda items: spread(str, items, 2, ahead=3), lambda items: prefetched(items, 5)]
)
def test_only_a_bounded_number_is_taken_before_it_is_wanted(overlapping):
    source = Source()
    results = overlapping(source())
    for _ in range(3):
        next(results)
    time.sleep(0.05)
    assert source.taken <= 3 + 6
    results.close()
    assert source.closed


@pytest.mark.parametrize("stage", ["source", "function"])
def test_an_error_comes_out_where_it_belongs(stage):
    def source():
        for number in range(10):
            if stage == "source" and number == 5:
                raise ValueError("five")
            yield number

    def function(number):
        if stage == "function" and number == 5:
            raise ValueError("five")
        return number

    results = spread(function, prefetched(source()))
    found = []
    with pytest.raises(ValueError, match="five"):
        found.extend(results)
    assert found == list(range(5))[: len(found)]


def test_stages_in_a_row_are_closed_together_and_leave_no_thread():
    before, source = threading.active_count(), Source()
    with closing(spread(str, grouped(prefetched(source()), lambda number: number % 2, 2, 4), workers=3)) as results:
        next(results)
    assert source.closed
    assert threading.active_count() == before


def test_groups_are_of_one_key_full_where_they_can_be_and_wait_boundedly():
    items = ["a1", "b1", "a2", "c1", "b2", "d1", "e1", "f1", "a3"]
    groups = list(grouped(items, lambda item: item[0], most=2, held=3))
    assert sorted(item for group in groups for item in group) == sorted(items)
    assert ["a1", "a2"] in groups
    assert ["b1", "b2"] in groups
    assert all(len({item[0] for item in group}) == 1 for group in groups)
