from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import PlanError
from secateur.planning.allocation import ByImportance, SameShare, by_caps, by_ratio, starved
from secateur.planning.budgets import Cap, counted
from secateur.planning.outputs import floors, outputs_of
from secateur.planning.widths import widths_of
from tests.planning.graphs import chain, parts, residual, table


def widths_from(graph, min_channels=8, round_to=None):
    outputs = outputs_of(graph)
    everything = np.ones(len(graph.groups), dtype=bool)
    return widths_of(graph, outputs, everything, ~everything, floors(graph, outputs, min_channels), round_to)


def caps_of(graph, **shares):
    full = np.array([group.size for group in graph.groups])
    costs = {name: counted(graph.costs, name) for name in shares}
    return [Cap(name, share * costs[name](full), costs[name]) for name, share in shares.items()]


def importances_of(graph, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.random(group.size) for group in graph.groups]


def path_of(ranking, widths, graph):
    return SameShare(widths) if ranking == "group" else ByImportance(widths, importances_of(graph))


def ratios(graph, value):
    return np.full(len(graph.groups), value)


@pytest.mark.parametrize(
    ("size", "ratio", "kept"), [(32, 0.8, 7), (1280, 0.8, 256), (5, 0.5, 3), (100, 0.29, 71), (10, 0.3, 7), (3, 0.2, 3)]
)
def test_no_group_loses_more_than_its_ratio(size, ratio, kept):
    graph = chain(size)
    assert by_ratio(widths_from(graph, 1), ratios(graph, ratio)).kept.tolist() == [kept]


def test_ratios_yield_to_floors():
    graph = chain(16, 64, 4)
    assert by_ratio(widths_from(graph), ratios(graph, 0.9)).kept.tolist() == [8, 8, 4]


def test_groups_without_a_ratio_stay_whole():
    graph = chain(16, 64)
    assert by_ratio(widths_from(graph), np.array([np.nan, 0.5])).kept.tolist() == [16, 32]


def test_tied_groups_take_their_smallest_ratio():
    graph = parts(8, 8, equal=True)
    assert by_ratio(widths_from(graph, 1), np.array([0.5, 0.25])).kept.tolist() == [6, 6]


@pytest.mark.parametrize("ranking", ["group", "global"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.75, 0.95])
@pytest.mark.parametrize(
    "graph", [chain(32, 64, 128, 96), residual(64, 96), parts(24, 24, 16)], ids=["chain", "residual", "parts"]
)
def test_caps_are_met_within_a_percent_from_below(graph, share, ranking):
    widths = widths_from(graph, 2)
    (cap,) = caps_of(graph, macs=share)
    found = by_caps(widths, [cap], path_of(ranking, widths, graph))
    assert found.reached["macs"] == graph.costs.macs(found.kept) <= cap.limit
    assert found.reached["macs"] >= 0.99 * cap.limit or found.step["macs"] > 0


def test_two_caps_hold_together():
    graph = chain(32, 64, 128, 96)
    widths = widths_from(graph)
    for caps in (caps_of(graph, macs=0.5, params=0.3), caps_of(graph, macs=0.3, params=0.5)):
        found = by_caps(widths, caps, SameShare(widths))
        fills = [cap.fill(found.kept) for cap in caps]
        assert 0.99 <= max(fills) <= 1


def test_any_function_of_the_widths_can_be_capped():
    graph = chain(32, 64)
    widths = widths_from(graph)
    found = by_caps(widths, [Cap("ms", 50.0, lambda kept: float(10 + kept.sum()))], SameShare(widths))
    assert found.kept.sum() == 40


def test_global_ranking_keeps_the_more_important_group_wider():
    graph = chain(64, 64)
    widths = widths_from(graph)
    importances = [np.ones(64) + np.arange(64) / 1000, np.linspace(0, 2, 64)]
    kept = by_caps(widths, caps_of(graph, params=0.5), ByImportance(widths, importances)).kept
    assert kept[0] > kept[1] >= 8


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
def test_no_group_starves_while_others_are_untouched(share):
    graph = chain(64, 64, 64, 64)
    widths = widths_from(graph, 1)
    worthless = [np.full(64, 1e-6), *(np.ones(64) + np.arange(64) for _ in range(3))]
    found = by_caps(widths, caps_of(graph, macs=share), ByImportance(widths, worthless))
    shares = found.kept / 64
    assert shares.min() >= np.median(shares) / 4


def test_a_budget_below_the_smallest_reachable_says_what_that_is():
    graph = chain(32, 64)
    widths = widths_from(graph)
    smallest = graph.costs.macs(np.array([8, 8]))
    with pytest.raises(PlanError, match=f"below the smallest reachable, which is macs={smallest:.0f} "):
        by_caps(widths, caps_of(graph, macs=0.01), SameShare(widths))
    cost = counted(graph.costs, "macs")
    assert by_caps(widths, [Cap("macs", smallest, cost)], SameShare(widths)).kept.tolist() == [8, 8]


def test_where_a_unit_is_more_than_a_percent_the_step_is_said():
    graph = chain(4)
    widths = widths_from(graph, 1)
    found = by_caps(widths, caps_of(graph, macs=0.6), SameShare(widths))
    assert found.kept.tolist() == [2]
    assert found.step == {"macs": graph.costs.macs([3]) - graph.costs.macs([2])}


def test_two_units_are_exchanged_where_no_single_one_fits():
    graph = chain(6, 50)
    widths = widths_from(graph, 1)
    # One unit of the first group costs 100, one of the second 7: only exchanges come near to 493.
    cap = Cap("cost", 493.0, lambda kept: float(kept @ [100, 7]))
    found = by_caps(widths, [cap], SameShare(widths))
    assert found.reached["cost"] >= 0.99 * 493


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.65, 0.8])
@pytest.mark.parametrize("sizes", [(5,), (4, 6), (7, 3, 5)])
def test_in_a_small_network_the_nearest_width_of_all_is_found(sizes, share):
    graph = chain(*sizes)
    widths = widths_from(graph, 1)
    (cap,) = caps_of(graph, params=share)
    found = by_caps(widths, [cap], SameShare(widths))
    every = (np.array(kept) for kept in product(*(range(1, size + 1) for size in sizes)))
    alive = [kept for kept in every if not starved(widths, kept, floors_too=True).any()]
    best = max(fill for kept in alive if (fill := cap.fill(kept)) <= 1)
    assert cap.fill(found.kept) >= min(best, 0.99)


def test_rounded_widths_stay_multiples_under_a_cap():
    graph = chain(32, 64, 128)
    widths = widths_from(graph, round_to=8)
    found = by_caps(widths, caps_of(graph, macs=0.4), SameShare(widths))
    assert (found.kept % 8 == 0).all()


def test_the_same_request_gives_the_same_widths():
    graph = table(16, 32, 24, 24)
    widths, again = widths_from(graph), widths_from(graph)
    for ranking in ("group", "global"):
        one = by_caps(widths, caps_of(graph, params=0.4), path_of(ranking, widths, graph))
        two = by_caps(again, caps_of(graph, params=0.4), path_of(ranking, again, graph))
        assert one.kept.tolist() == two.kept.tolist()


@st.composite
def graphs(draw):
    kind = draw(st.sampled_from(["chain", "residual", "parts", "tied", "table"]))
    sizes = st.integers(1, 80)
    if kind == "chain":
        return chain(*draw(st.lists(sizes, min_size=1, max_size=6)))
    if kind == "residual":
        return residual(draw(sizes), draw(sizes))
    if kind == "parts":
        return parts(*draw(st.lists(sizes, min_size=1, max_size=4)), fixed=draw(st.integers(0, 9)))
    if kind == "tied":
        return parts(*[draw(sizes)] * draw(st.integers(2, 8)), equal=True)
    a, b, c = sorted(draw(st.lists(sizes, min_size=3, max_size=3)))
    return table(a, c, b, a + c - b)


@settings(max_examples=150, deadline=None)
@given(
    graph=graphs(),
    share=st.floats(0.02, 0.98),
    what=st.sampled_from(["macs", "params"]),
    ranking=st.sampled_from(["group", "global"]),
    min_channels=st.integers(1, 12),
    round_to=st.sampled_from([None, None, 4, 8]),
)
def test_any_cap_is_met_or_refused(graph, share, what, ranking, min_channels, round_to):
    widths = widths_from(graph, min_channels, round_to)
    caps = caps_of(graph, **{what: share})
    sizes = np.array([group.size for group in graph.groups])
    lowest = floors(graph, outputs_of(graph), min_channels)
    try:
        found = by_caps(widths, caps, path_of(ranking, widths, graph))
    except PlanError:
        assert widths.clusters or caps[0].fill(widths.of_groups(widths.lowest)) > 1
        return
    fill = caps[0].fill(found.kept)
    assert fill <= 1
    assert fill >= 0.99 or found.step or (found.kept == sizes).all()
    assert graph.equalities.hold(found.kept)
    assert (found.kept >= lowest).all()
    assert (found.kept <= sizes).all()
    if not widths.clusters:
        variables = found.kept[np.unique(widths.variable_of, return_index=True)[1]]
        assert not starved(widths, variables, floors_too=False).any()


@settings(max_examples=60, deadline=None)
@given(graph=graphs(), ratio=st.floats(0.01, 0.99), min_channels=st.integers(1, 12))
def test_any_ratio_keeps_equalities_and_floors(graph, ratio, min_channels):
    found = by_ratio(widths_from(graph, min_channels), ratios(graph, ratio))
    assert graph.equalities.hold(found.kept)
    assert (found.kept >= floors(graph, outputs_of(graph), min_channels)).all()
