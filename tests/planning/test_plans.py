import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateur.errors import PlanError
from secateur.graph.groups import CallShape, Scale
from secateur.graph.tracing import trace
from secateur.planning.plans import Plan
from tests.planning.graphs import chain, parts

SHAPES = {"conv.weight": (6, 4, 3, 3), "conv.bias": (6,), "group.weight": (8, 2, 1, 1), "fc.weight": (5, 6)}


def a_plan(**changes):
    plan = Plan(
        keep={
            "conv.weight": {0: [0, 2, 5], 1: np.array([3, 1])},
            "conv.bias": {0: (0, 2, 5)},
            "group.weight": {0: [0, 1, 4, 5], "grouped": [[0], [1]]},
            "fc.weight": {1: [0, 2, 5]},
        },
        fingerprint=SHAPES,
        attributes={"conv.sizes[1]": 3, "branch.channels": np.int64(4)},
        scales={"fc.weight": [Scale(0.1)], "conv.weight": (Scale(0.5, (0, 2)), Scale(2.0, (5,)))},
        calls=(CallShape(((1, 3, 8, 8),), ("float32",)),),
        attention="heads",
        free_outputs=True,
        statistics=("conv",),
        recipe={"criterion": "l1", "budget": {"ratio": 0.5}, "words": ("a", "b")},
    )
    return replace(plan, **changes)


def test_shapes_and_removed_indices_follow_from_what_is_kept():
    plan = a_plan()
    assert plan.shape_after("conv.weight") == (3, 2, 3, 3)
    assert plan.shape_after("group.weight") == (4, 1, 1, 1)
    assert plan.removed("conv.weight", 0) == (1, 3, 4)
    assert plan.removed("conv.weight", 1) == (0, 2)
    assert plan.removed("conv.weight", 2) == ()
    assert plan.removed("group.weight", "grouped") == ((1,), (0,))
    with pytest.raises(PlanError, match=r"knows no tensor 'conv.wieght'. Did you mean conv.weight"):
        plan.shape_after("conv.wieght")
    with pytest.raises(PlanError, match="no axis 4"):
        plan.removed("conv.weight", 4)


def test_a_plan_that_removes_nothing_is_empty():
    assert Plan(keep={}, fingerprint=SHAPES).is_empty
    assert Plan(keep={"conv.bias": {0: range(6)}}, fingerprint=SHAPES).is_empty
    assert not a_plan().is_empty


def test_the_proof_is_no_part_of_equality_or_json():
    plan = a_plan()
    proved = plan.with_proof({"relative error": 1e-12})
    assert proved == plan
    assert proved.proof == {"relative error": 1e-12}
    assert proved.to_json() == plan.to_json()
    assert "proof" not in repr(proved)


def test_json_stores_each_list_once():
    document = json.loads(a_plan().to_json())
    assert document["lists"].count([0, 2, 5]) == 1
    number = document["lists"].index([0, 2, 5])
    assert document["keep"]["conv.weight"]["0"] == document["keep"]["fc.weight"]["1"] == number
    assert len(document["keep"]["group.weight"]["grouped"]) == 2


def test_json_gives_the_plan_back():
    plan = a_plan()
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert again.keep["conv.weight"][1] == (3, 1)


NAMES = st.text(min_size=1, max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def plans(draw):
    fingerprint = draw(
        st.dictionaries(NAMES, st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5)
    )
    keep = {}
    for name, shape in fingerprint.items():
        axes = {}
        for axis in draw(st.sets(st.integers(0, len(shape) - 1))):
            order = draw(st.permutations(range(shape[axis])))
            axes[axis] = tuple(order[: draw(st.integers(1, shape[axis]))])
        if len(shape) > 1 and 1 not in axes and draw(st.booleans()):
            count = draw(st.integers(1, shape[1]))
            axes["grouped"] = tuple(
                tuple(draw(st.permutations(range(shape[1])))[:count]) for _ in range(draw(st.integers(1, shape[0])))
            )
        if axes:
            keep[name] = axes
    return Plan(
        keep=keep,
        fingerprint=fingerprint,
        attributes=draw(
            st.dictionaries(
                st.sampled_from(["a", "a.b.channels", "layers.1.sizes[2]", "x[0][1]"]),
                st.integers(-9, 10**6),
                max_size=3,
            )
        ),
        scales={
            name: tuple(
                Scale(factor, draw(st.sampled_from([None, (0,)])) if fingerprint[name] else None) for factor in factors
            )
            for name, factors in draw(
                st.dictionaries(
                    st.sampled_from(sorted(fingerprint)),
                    st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=2),
                    max_size=2,
                )
            ).items()
        },
        calls=tuple(
            CallShape((shape,), (dtype,))
            for shape, dtype in draw(
                st.lists(st.tuples(st.just((1, 3)), st.sampled_from(["int64", "float32"])), max_size=2)
            )
        ),
        statistics=tuple(draw(st.lists(NAMES, max_size=2))),
        recipe=draw(st.dictionaries(NAMES, JSON, max_size=3)),
    )


@given(plans())
def test_json_gives_any_plan_back(plan):
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()


def changed(**changes):
    document = json.loads(a_plan().to_json())
    for path, value in changes.items():
        *inner, last = path.split("__")
        place = document
        for key in inner:
            place = place[key.replace("_", ".")]
        place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[1]", "the plan is \\[1\\], and an object is wanted"),
        ("[" * 100_000, "is not JSON"),
        ('{"version": 1, "version": 1}', "a name appears twice"),
        (a_plan().to_json().replace("0.1", "NaN"), "is not JSON .NaN is no number"),
        (a_plan().to_json().replace("0.1", "1e999"), "scales\\['fc.weight'\\] is inf"),
        (a_plan().to_json()[:-30], "is not JSON"),
        ("{}", "the field 'version' is missing"),
        (changed(version=2), "version is 2, and this secateur reads 1"),
        (changed(version=True), "version is True"),
        (changed(extra=1), "the field 'extra' is not known"),
        (changed(lists=[[0, 0]]), "lists\\[0\\] names an index twice"),
        (changed(lists=[[-1]]), "lists\\[0\\] holds -1"),
        (changed(lists=[[True]]), "lists\\[0\\] holds True"),
        (changed(lists=[[1.0]]), "lists\\[0\\] holds 1.0"),
        (changed(lists=[[]]), "lists\\[0\\] keeps nothing"),
        (changed(lists=[0]), "lists\\[0\\] is 0, and a list"),
        (changed(keep={"conv.bias": {"0": 99}}), "refers to list 99"),
        (changed(keep={"conv.bias": {"0": "a"}}), "refers to list 'a'"),
        (
            changed(keep={"conv.bias": {"1": 0}}),
            "keep\\['conv.bias'\\]\\['1'\\] is no axis of a tensor of shape \\(6,\\)",
        ),
        (changed(keep={"conv.bias": {"-1": 0}}), "is no axis"),
        (changed(keep={"conv.bias": {"00": 0}}), "is no axis"),
        (changed(keep={"conv.bias": {"x": 0}}), "is no axis"),
        (changed(keep={"conv.bias": {"grouped": [0]}}), "is no axis"),
        (changed(keep={"conv.bia": {"0": 0}}), "a tensor that the fingerprint lacks. Did you mean conv.bias"),
        (changed(keep={"conv.bias": [0]}), "keep\\['conv.bias'\\] is \\[0\\]"),
        (changed(keep={"group.weight": {"grouped": 0}}), "is 0, and a list is wanted"),
        (changed(keep={"group.weight": {"grouped": []}}), "must have rows for each group"),
        (changed(keep={"fc.weight": {"0": 0}}), "keeps index 5 of an axis of 5"),
        (changed(fingerprint={"conv.bias": [-6]}), "fingerprint\\['conv.bias'\\] holds -6"),
        (changed(attributes={"a.__class__": 1}), "is no path of attributes"),
        (changed(attributes={"a..b": 1}), "is no path of attributes"),
        (changed(attributes={"a": 1.5}), "attributes\\['a'\\] is 1.5"),
        (changed(scales={"fc.weight": [[0, None]]}), "is 0, and a number above 0"),
        (changed(scales={"fc.weight": [[10**400, None]]}), "a number above 0"),
        (changed(scales={"fc.weight": [[0.5, 99]]}), "refers to list 99"),
        (changed(scales={"fc.weight": [0.5]}), "is 0.5, and a list is wanted"),
        (changed(scales={"fc.weight": [[0.5]]}), "a factor with a list of rows"),
        (changed(scales={"fc": [[1.0, None]]}), "a tensor that the fingerprint lacks"),
        (changed(calls=[{"shapes": [[1]]}]), "calls\\[0\\] must have shapes and dtypes"),
        (changed(calls=[{"shapes": [[1]], "dtypes": []}]), "as many shapes as dtypes"),
        (changed(free_outputs=1), "free_outputs is 1, and true or false is wanted"),
        (changed(attention="head"), "attention is 'head', and one of auto, dims, heads is wanted"),
        (changed(attention=["dims"]), "attention is .*, and one of auto"),
        (changed(statistics=[1]), "statistics is 1, and a text"),
        (changed(recipe=[]), "recipe is \\[\\], and an object"),
        (changed(recipe={"a": [[[[[[[[[[1]]]]]]]]]]}), "recipe.* is nested too deep"),
        (changed(recipe={"a": float("inf")}).replace("Infinity", "1e999"), "recipe.* is inf"),
    ],
)
def test_damaged_json_is_refused_with_the_place(text, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_json(text)


def test_no_damage_to_a_plan_raises_anything_else():
    document = json.loads(a_plan().to_json())
    for field in document:
        for junk in (None, True, 3, -1.5, "x", [], [[]], [None], {}, {"0": None}, {"conv.weight": {"0": [[0]]}}):
            text = json.dumps({**document, field: junk})
            with contextlib.suppress(PlanError):
                Plan.from_json(text)


class TestByHand:
    def model(self):
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 4, 3))

    def graph(self):
        return trace(self.model(), torch.zeros(1, 3, 12, 12))

    @pytest.mark.parametrize("name", ["0", "0.weight", "1", "1.running_mean"])
    def test_named_channels_go_with_all_that_is_coupled(self, name):
        plan = Plan.from_indices(self.graph(), {name: [7, 2]})
        assert plan.removed("0.weight", 0) == plan.removed("1.running_var", 0) == plan.removed("3.weight", 1) == (2, 7)
        assert plan.removed("3.weight", 0) == ()

    def test_channels_taken_back_stay(self):
        graph = self.graph()
        plan = Plan.from_indices(graph, {"0": [1, 2, 7], "3": [0]})
        gentler = plan.without(graph, "1", [2, 7, 5])
        assert gentler.removed("0.weight", 0) == gentler.removed("3.weight", 1) == (1,)
        assert gentler.removed("3.weight", 0) == (0,)
        assert plan.without(graph, "0", range(8)).without(graph, "3", [0]).is_empty
        assert Plan.from_json(gentler.to_json()) == gentler

    @pytest.mark.parametrize(
        ("removed", "message"),
        [
            ({"0": [8]}, "0 has no output channel 8. Give numbers from 0 to 7"),
            ({"0": [-1]}, "no output channel -1"),
            ({"0": [1.5]}, "Give whole numbers"),
            ({"0": ["a"]}, "Give whole numbers"),
            ({"0": [True]}, "Give whole numbers"),
            ({"0": range(8)}, "Nothing would be left of 0"),
            ({"4": [0]}, "Output channel 0 of 4 is protected: .* Leave it out"),
            ({"conv": [0]}, "'conv' is no layer or tensor"),
            ({"1.num_batches_tracked": [0]}, "is no layer or tensor of the model with channels"),
        ],
    )
    def test_what_cannot_go_is_refused(self, removed, message):
        with pytest.raises(PlanError, match=message):
            Plan.from_indices(self.graph(), removed)

    def test_numbers_that_do_not_go_together_are_refused(self):
        graph = parts(4, 4, equal=True)
        with pytest.raises(
            PlanError, match=r"do not go together .*keeps 3 of 4.* the rows of a table are equally long"
        ):
            Plan.from_indices(graph, {"c": [0]})
        plan = Plan.from_indices(graph, {"c": [0, 5]})
        assert plan.removed("c.weight", 0) == (0, 5)
        with pytest.raises(PlanError, match="do not go together"):
            plan.without(graph, "c", [0])

    def test_a_plan_for_another_model_is_refused(self):
        plan = Plan.from_indices(chain(8, 8), {"c0": [0]})
        with pytest.raises(PlanError, match="made for another model"):
            plan.without(self.graph(), "0", [0])

    def test_channels_may_come_as_any_whole_numbers(self):
        graph = chain(8)
        expected = Plan.from_indices(graph, {"c0": [1, 3]})
        assert Plan.from_indices(graph, {"c0": np.array([3, 1])}) == expected
        assert Plan.from_indices(graph, {"c0": iter([1, 3, 3])}).keep == expected.keep
