"""Counts and bars as people read them."""

from __future__ import annotations

import pytest

from secateur.reporting.numbers import bar, short_count


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (84, "84"),
        (999, "999"),
        (1000, "1.000 k"),
        (44_426, "44.43 k"),
        (362_900, "362.9 k"),
        (999_960, "1.000 M"),
        (6_158_123, "6.158 M"),
        (18.117e9, "18.12 G"),
    ],
)
def test_counts_have_four_digits(value: float, text: str) -> None:
    assert short_count(value) == text


def test_a_bar_is_as_long_as_its_share_and_always_as_wide() -> None:
    assert bar(0, 4) == "    "
    assert bar(0.0001, 4) == "▏   "
    assert bar(0.5, 4) == "██  "
    assert bar(1, 4) == bar(1.5, 4) == "████"
