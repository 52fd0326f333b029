import numpy as np
import pytest

from secateur.errors import PlanError
from secateur.planning.outputs import outputs_of
from secateur.planning.rules import rules_of
from secateur.planning.scope import scope_of
from tests.planning.graphs import chain, graph_of, residual

LINEAR = {"fc1.weight": (16, 12), "fc2.weight": (4, 16)}


def scope_from(graph, rules=(), ignore=()):
    kinds = {layer.name: frozenset([layer.type]) for layer in graph.layers}
    return scope_of(graph, outputs_of(graph), kinds, rules_of(rules), ignore)


def mixed():
    """Return a convolution c, then a linear layer fc1, each a group of its own."""
    return graph_of(
        {"c.weight": (12, 3, 3, 3), "n.weight": (12,), **LINEAR},
        [
            ("c", [("c.weight", 0, range(12)), ("n.weight", 0, range(12)), ("fc1.weight", 1, range(12))]),
            ("fc1", [("fc1.weight", 0, range(16)), ("fc2.weight", 1, range(16))]),
        ],
    )


def test_without_a_word_everything_may_be_cut():
    scope = scope_from(mixed())
    assert scope.cuttable.tolist() == [True, True]
    assert not scope.has_budget


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        (["c0"], [1, 2]),
        (["c*"], []),
        (["c[01]"], [2]),
        (["n1"], [0, 2]),
        (["BatchNorm2d"], []),
        (["last"], [0, 1, 2]),
    ],
)
def test_ignored_layers_keep_what_they_make(ignore, left):
    assert np.flatnonzero(scope_from(chain(8, 9, 10), ignore=ignore).cuttable).tolist() == left


def test_a_prefix_names_all_that_is_in_a_module():
    graph = graph_of(
        {"body.a.weight": (8, 3, 3, 3), "body.b.weight": (6, 8, 3, 3), "head.weight": (5, 6, 1, 1)},
        [
            ("body.a", [("body.a.weight", 0, range(8)), ("body.b.weight", 1, range(8))]),
            ("body.b", [("body.b.weight", 0, range(6)), ("head.weight", 1, range(6))]),
        ],
    )
    assert not scope_from(graph, ignore=["body"]).cuttable.any()


def test_a_writer_of_a_stream_that_is_ignored_keeps_the_stream():
    assert scope_from(residual(), ignore=["b"]).cuttable.tolist() == [False, True]


def test_a_type_selects_the_groups_that_its_layers_make():
    scope = scope_from(mixed(), [{"sparsity": 0.8, "op_types": ["Conv2d"]}])
    assert scope.cuttable.tolist() == [True, False]
    assert scope.ratios[0] == 0.8
    assert np.isnan(scope.ratios[1])


def test_norms_select_through_their_members():
    assert scope_from(mixed(), [{"sparsity": 0.5, "op_types": ["BatchNorm2d"]}]).cuttable.tolist() == [True, False]


def test_default_selects_every_layer_with_weights():
    assert scope_from(mixed(), [{"sparsity": 0.5, "op_types": ["default"]}]).cuttable.all()


def test_a_later_entry_overrides_an_earlier_one():
    scope = scope_from(mixed(), [{"sparsity": 0.8, "op_types": ["default"]}, {"sparsity": 0.2, "op_names": ["fc1"]}])
    assert scope.ratios.tolist() == [0.8, 0.2]


def test_excluded_layers_keep_what_they_make():
    scope = scope_from(mixed(), [{"sparsity": 0.8, "op_types": ["default"]}, {"exclude": True, "op_names": ["c"]}])
    assert scope.cuttable.tolist() == [False, True]


def test_entries_that_only_exclude_leave_the_rest():
    assert scope_from(mixed(), [{"exclude": True, "op_types": ["Linear"]}]).cuttable.tolist() == [True, False]


def test_a_stream_takes_the_smallest_of_its_writers_sparsities():
    scope = scope_from(residual(), [{"sparsity": 0.8, "op_names": ["stem", "a"]}, {"sparsity": 0.3, "op_names": ["b"]}])
    assert scope.ratios.tolist() == [0.3, 0.8]


def test_names_and_types_of_one_entry_narrow_each_other():
    scope = scope_from(
        chain(8, 8, 8), [{"sparsity": 0.5, "op_types": ["Conv2d"], "op_partial_names": ["1"], "op_names": ["c2"]}]
    )
    assert scope.cuttable.tolist() == [False, True, True]


def test_totals_and_caps_per_layer_are_kept_for_the_allocation():
    scope = scope_from(mixed(), [{"total_sparsity": 0.5, "max_sparsity_per_layer": 0.9, "op_types": ["default"]}])
    assert scope.has_budget
    assert scope.max_ratios.tolist() == [0.9, 0.9]
    (total,) = scope.totals
    assert total.share == 0.5
    assert total.groups.all()


def test_selection_without_sparsity_is_no_budget():
    scope = scope_from(mixed(), [{"op_types": ["Conv2d"]}])
    assert scope.cuttable.tolist() == [True, False]
    assert not scope.has_budget


@pytest.mark.parametrize(
    ("rule", "cuttable"),
    [
        ({"op_names_re": ["c[01]"]}, [True, True, False]),
        ({"op_names_re": ["0"]}, None),  # from the beginning of the name, as in NNI
        ({"op_names_re": [".*1", "c0"], "op_types": ["BatchNorm2d"]}, [False, True, False]),
        ({"exclude_op_names": ["c1"]}, [True, False, True]),
        ({"op_types": ["Conv2d"], "exclude_op_names_re": ["c[12]"]}, [True, False, False]),
        ({"exclude_op_types": ["BatchNorm2d", "Linear"]}, [True, True, True]),
        ({"exclude_op_types": ["Conv2d"]}, None),
    ],
)
def test_expressions_select_and_leave_out(rule, cuttable):
    rules = [{"sparse_ratio": 0.5, **rule}]
    if cuttable is None:
        with pytest.raises(PlanError, match=r"matches the expression|selects nothing"):
            scope_from(chain(8, 8, 8), rules)
    else:
        assert scope_from(chain(8, 8, 8), rules).cuttable.tolist() == cuttable


def test_what_one_entry_leaves_out_another_may_select():
    rules = [{"sparse_ratio": 0.2, "op_names": ["c1"]}, {"sparse_ratio": 0.8, "exclude_op_names": ["c1", "c2"]}]
    scope = scope_from(chain(8, 8, 8), rules)
    assert scope.cuttable.tolist() == [True, True, False]
    assert scope.ratios[:2].tolist() == [0.8, 0.2]


def test_a_stream_stays_if_one_of_its_writers_is_left_out():
    assert scope_from(residual(), [{"sparse_ratio": 0.5, "exclude_op_names": ["b"]}]).cuttable.tolist() == [False, True]


def test_a_pool_spans_entries_and_counts_units():
    rules = [{"sparse_ratio": 0.5, "global_group_id": 1, "op_names": [name]} for name in ("c", "fc1")]
    (total,) = scope_from(mixed(), rules).totals
    assert (total.share, total.of, total.groups.tolist()) == (0.5, "units", [True, True])
    assert len(scope_from(mixed(), [rules[0], {**rules[1], "global_group_id": 2}]).totals) == 2


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"op_types": ["conv2d"]}, "No layer is of type 'conv2d'. Did you mean Conv2d"),
        ({"op_names": ["fc11"]}, "No layer with parameters is called 'fc11'. Did you mean fc1"),
        ({"op_partial_names": ["xyz"]}, "No layer has 'xyz' in its name"),
        ({"op_names_re": ["d.*"]}, "No layer's name matches the expression"),
        ({"exclude_op_names": ["fc11"]}, "Did you mean fc1"),
        ({"op_types": ["ConvTranspose1d"]}, "selects nothing that can be cut"),
        ({"op_names": ["fc2"]}, "selects nothing that can be cut"),
    ],
)
def test_what_matches_nothing_is_said(rule, message):
    with pytest.raises(PlanError, match=message):
        scope_from(mixed(), [{"sparsity": 0.5, **rule}])


def test_an_ignored_name_that_matches_nothing_is_said():
    with pytest.raises(PlanError, match=r"'fc3', nor of that type\. Did you mean fc"):
        scope_from(mixed(), ignore=["fc3"])
