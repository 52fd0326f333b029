import numpy as np
import pytest

from secateur.errors import PlanError
from secateur.planning.budgets import counted, read_cap, read_ratio, shown
from tests.planning.graphs import chain, parts, residual


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0.25x", 2500.0),
        (".5X", 5000.0),
        ("1.3k", 1300.0),
        (7000, 7000.0),
        ("7e3", 7000.0),
        ("0.002M", 2000.0),
        ("5000", 5000.0),
    ],
)
def test_amounts_are_read(text, limit):
    assert read_cap(text, 10_000.0, "macs") == pytest.approx(limit)


@pytest.mark.parametrize(
    "text", ["abc", "", "-5k", "0x", "x", "nan", "inf", "1.2.3M", "5 apples", True, None, [3], -1, 0, float("nan")]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(PlanError, match=r"is no amount. Give"):
        read_cap(text, 10_000.0, "macs")


def test_a_bare_share_gets_a_hint():
    with pytest.raises(PlanError, match=r'write macs="0\.24x"'):
        read_cap(0.24, 10_000.0, "macs")


@pytest.mark.parametrize("text", ["1x", "1.2x"])
def test_a_share_of_everything_is_refused(text):
    with pytest.raises(PlanError, match="removes nothing"):
        read_cap(text, 10_000.0, "macs")


@pytest.mark.parametrize("ratio", [0, 1, 1.2, -0.5, "abc", "0.5", None, True, float("nan")])
def test_what_is_no_ratio_is_refused(ratio):
    with pytest.raises(PlanError, match="Give a number between 0 and 1"):
        read_ratio(ratio)


@pytest.mark.parametrize("graph", [chain(16, 24, 8), residual(), parts(8, 16, fixed=3)])
@pytest.mark.parametrize("what", ["params", "macs"])
def test_fast_costs_equal_the_graphs_own(graph, what):
    cost = counted(graph.costs, what)
    full = np.array([group.size for group in graph.groups])
    for kept in (full, full // 2, np.ones_like(full)):
        assert cost(kept) == getattr(graph.costs, what)(kept)


def test_counts_are_shown_exactly_and_roundly():
    assert shown(41_540_000) == "41540000 (41.54M)"
    assert shown(12.5) == "13"
