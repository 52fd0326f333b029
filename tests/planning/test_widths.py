import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.planning.outputs import floors, outputs_of
from secateur.planning.widths import widths_of
from tests.planning.graphs import chain, graph_of, parts, residual, table


def widths_from(graph, min_channels=1, round_to=None, cuttable=None, excluded=None):
    outputs = outputs_of(graph)
    everything = np.ones(len(graph.groups), dtype=bool)
    cuttable = everything if cuttable is None else np.array(cuttable)
    excluded = ~everything if excluded is None else np.array(excluded)
    return widths_of(graph, outputs, cuttable, excluded, floors(graph, outputs, min_channels), round_to)


def test_floor_is_the_size_of_a_narrower_layer():
    graph = chain(4, 32)
    assert floors(graph, outputs_of(graph), 8).tolist() == [4, 8]


def test_floor_of_a_split_layer_is_shared_by_size():
    graph = parts(24, 8)
    assert floors(graph, outputs_of(graph), 8).tolist() == [6, 2]


def test_floor_of_a_finely_split_layer_leaves_one_unit_in_each_group():
    graph = parts(*[4] * 32, equal=True)
    assert floors(graph, outputs_of(graph), 8).tolist() == [1] * 32


def test_protected_channels_count_towards_the_floor():
    graph = parts(16, fixed=16)
    assert floors(graph, outputs_of(graph), 8).tolist() == [4]


def test_layers_that_write_one_stream_share_a_group_and_its_floor():
    graph = residual(32, 48)
    assert outputs_of(graph).making_layers(0) == ("stem", "b")
    assert floors(graph, outputs_of(graph), 8).tolist() == [8, 8]


def test_transposed_convolutions_make_channels_along_their_second_axis():
    graph = graph_of(
        {"up.weight": (3, 16, 2, 2), "last.weight": (5, 16, 1, 1)},
        [("up", [("up.weight", 1, range(16)), ("last.weight", 1, range(16))])],
        types={"up": "ConvTranspose2d"},
    )
    assert [member.tensor for member in outputs_of(graph).producers[0]] == ["up.weight"]


def test_groups_that_keep_equally_many_are_one_variable():
    widths = widths_from(parts(4, 4, 4, equal=True))
    assert widths.variable_of.tolist() == [0, 0, 0]
    assert not widths.clusters


def test_a_tied_group_goes_along_with_a_cuttable_one():
    widths = widths_from(parts(4, 4, equal=True), cuttable=[True, False])
    assert widths.lowest.tolist() == [1]


def test_a_tied_group_stays_with_an_excluded_one():
    widths = widths_from(parts(4, 4, equal=True), cuttable=[True, False], excluded=[False, True])
    assert widths.lowest.tolist() == [4]


def test_settled_tables_hold_their_equality_near_what_was_wanted():
    widths = widths_from(table(8, 8, 8, 8))
    kept = widths.settle(np.array([2.0, 2.0, 4.0, 4.0]))
    assert kept[0] + kept[1] == kept[2] + kept[3]
    assert np.abs(kept - [2, 2, 4, 4]).sum() <= 4


@given(st.lists(st.integers(1, 40), min_size=3, max_size=3), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_any_wish_is_settled_within_the_bounds(sizes, shares):
    a, b, c = sorted(sizes)
    graph = table(a, c, b, a + c - b)  # a + c == b + (a + c - b), and every part is at least one
    widths = widths_from(graph, min_channels=4)
    kept = widths.of_groups(widths.settle(widths.sizes * np.array(shares)))
    assert graph.equalities.hold(kept)
    assert (kept <= [group.size for group in graph.groups]).all()
    assert (kept >= 1).all()


def test_a_step_in_a_table_takes_its_partner_along():
    widths = widths_from(table(8, 8, 8, 8))
    kept = np.array([2, 2, 2, 2])
    wider = widths.wider(kept, 0)
    assert wider is not None
    assert wider.sum() == 10
    assert wider[0] == 3
    assert wider[0] + wider[1] == wider[2] + wider[3]


def test_widths_are_multiples_or_whole():
    widths = widths_from(chain(36, 5, 64), round_to=8)
    kept = widths.settle(np.array([17.0, 2.0, 41.0]))
    assert kept.tolist() == [16, 5, 40]
    assert widths.settle(np.array([35.0, 5.0, 64.0])).tolist() == [36, 5, 64]


def test_halves_of_a_layer_add_up_to_the_multiple():
    widths = widths_from(parts(24, 24), round_to=8)
    kept = widths.of_groups(widths.settle(np.full(len(widths.sizes), 13.0)))
    assert kept.tolist() == [12, 12]


def test_parts_of_different_sizes_are_multiples_each():
    widths = widths_from(parts(40, 24), round_to=8)
    assert widths.of_groups(widths.settle(np.array([21.0, 9.0]))).tolist() == [24, 8]


def test_parts_of_a_width_that_is_a_multiple_keep_their_remainders():
    widths = widths_from(parts(5, 11), round_to=4)
    for wish in ([5.0, 11.0], [5.0, 6.0], [2.0, 9.0], [1.0, 1.0]):
        assert widths.settle(np.array(wish)).sum() % 4 == 0
    assert widths.lowest.tolist() == [1, 3]


def test_thirty_two_tied_groups_are_a_multiple_at_any_width():
    widths = widths_from(parts(*[4] * 32, equal=True), round_to=16)
    assert widths.step.tolist() == [1]


def test_protected_channels_count_into_the_multiple():
    widths = widths_from(parts(32, fixed=4), round_to=8)
    assert (widths.settle(np.array([13.0]))[0] + 4) % 8 == 0


@pytest.mark.parametrize("sizes", [(16,), (16, 24), (7, 96)])
def test_steps_up_and_down_lead_from_floor_to_full_and_back(sizes):
    widths = widths_from(chain(*sizes), round_to=8)
    kept = widths.lowest
    up = [kept]
    while (wider := widths.wider(up[-1], 0)) is not None:
        up.append(wider)
    assert up[-1][0] == sizes[0]
    down = [up[-1]]
    while (narrower := widths.narrower(down[-1], 0)) is not None:
        down.append(narrower)
    assert [k[0] for k in down] == [k[0] for k in reversed(up)]
