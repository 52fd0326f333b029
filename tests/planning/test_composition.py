import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateur.errors import PlanError
from secateur.graph.groups import CallShape, Scale
from secateur.planning.plans import Plan
from secateur.surgery.cutting import cut


class Layers(nn.Module):
    """Tensors of every kind that a plan speaks of, and integers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 8, 1)
        self.grouped = nn.Conv2d(12, 8, 1, groups=4)
        self.fc = nn.Linear(5, 9)
        self.width, self.sizes = 8, [3, 5]


def plan_of(model, keep, **others):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return Plan(keep=keep, fingerprint=shapes, **others)


def some_of(draw, size):
    return tuple(draw(st.permutations(range(size)))[: draw(st.integers(1, size))])


@st.composite
def plans_for(draw, model):
    """Draw a plan for a model: any indices in any order, whole groups or rows of a grouped convolution, scales."""
    keep = {}
    for name in ("conv.weight", "fc.weight"):
        shape = model.state_dict()[name].shape
        keep[name] = {axis: some_of(draw, shape[axis]) for axis in draw(st.sets(st.sampled_from([0, 1])))}
    weight, groups = model.grouped.weight, model.grouped.groups
    each, rows = weight.shape[0] // groups, draw(st.integers(1, weight.shape[1]))
    left = sorted(some_of(draw, groups))
    outputs = draw(st.integers(1, each))
    kept = [draw(st.permutations(range(each)))[:outputs] for _ in left]
    keep["grouped.weight"] = {
        0: [group * each + index for group, own in zip(left, kept, strict=True) for index in own],
        "grouped": [draw(st.permutations(range(weight.shape[1])))[:rows] for _ in left],
    }
    scales = {}
    if draw(st.booleans()):
        scales["fc.weight"] = [Scale(draw(st.floats(0.1, 3)), draw(st.sampled_from([None, (0,)])))]
    attributes = {"grouped.groups": len(left), **draw(st.sampled_from([{}, {"width": 4}, {"sizes[1]": 2}]))}
    return plan_of(model, keep, attributes=attributes, scales=scales)


@given(st.data())
def test_two_plans_in_one_do_what_both_do(data):
    torch.manual_seed(0)
    model = Layers()
    first = data.draw(plans_for(model))
    between = cut(model, first)
    second = data.draw(plans_for(between))
    small, composed = cut(between, second), second.after(first)
    for name, tensor in cut(model, composed).state_dict().items():
        assert torch.equal(tensor, small.state_dict()[name]), name
        assert composed.shape_after(name) == tuple(tensor.shape)
    assert cut(model, composed).grouped.groups == small.grouped.groups
    assert cut(model, composed).sizes == small.sizes
    assert Plan.from_json(composed.to_json()) == composed
    third = data.draw(plans_for(small))
    assert third.after(composed) == third.after(second).after(first)


def test_what_else_a_plan_says_is_joined():
    call = (CallShape(((1, 6, 4, 4),), ("float32",)),)
    model = Layers()
    first = plan_of(model, {"fc.weight": {0: range(4)}}, calls=call, statistics=("a", "b"), recipe={"seed": 1})
    then = plan_of(cut(model, first), {}, calls=call, statistics=("b", "c"), recipe={"seed": 2})
    last = plan_of(cut(model, first), {}, recipe={"seed": 3})
    both = then.after(first)
    assert both.calls == call
    assert both.statistics == ("a", "b", "c")
    assert both.recipe == {"steps": [{"seed": 1}, {"seed": 2}]}
    assert last.after(both).recipe == {"steps": [{"seed": 1}, {"seed": 2}, {"seed": 3}]}
    assert then.after(plan_of(cut(model, first), {})).recipe == {"seed": 2}


def test_plans_that_do_not_follow_each_other_are_refused():
    model = Layers()
    first = plan_of(model, {"fc.weight": {0: range(4)}})
    with pytest.raises(
        PlanError, match=r"of fc\.weight the earlier one leaves \(4, 5\), and the later one expects \(9, 5\)"
    ):
        first.after(first)
    fewer = Plan(keep={}, fingerprint={"fc.weight": (4, 5)})
    with pytest.raises(PlanError, match=r"of conv\.weight .* leaves \(8, 6, 1, 1\), and .* expects no such tensor"):
        fewer.after(first)


@given(st.data())
def test_since_undoes_after(data):
    model = Layers()
    first = data.draw(plans_for(model))
    small = cut(model, first)
    second = data.draw(plans_for(small))
    composed = second.after(first)
    rest = composed.since(first)
    for one, other in zip(
        cut(small, rest).state_dict().values(), cut(small, second).state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    assert cut(small, rest).sizes == cut(small, second).sizes
    assert rest.after(first).scales == composed.scales
    for name in composed.fingerprint:
        for axis, size in enumerate(composed.shape_after(name)):
            places = [composed.original(name, axis, index) for index in range(size)]
            if axis in composed.keep.get(name, {}):
                assert places == list(composed.keep[name][axis])
            elif "grouped" not in composed.keep.get(name, {}):
                assert places == list(range(size))


def test_since_refuses_plans_that_do_not_build_on_each_other():
    model = Layers()
    first, other = plan_of(model, {"fc.weight": {0: range(4)}}), plan_of(model, {"fc.weight": {0: range(2, 6)}})
    with pytest.raises(PlanError, match="keeps something that the earlier one removes"):
        other.since(first)
    with pytest.raises(PlanError, match=r"shape \(4, .*no index 4 along axis 0"):
        first.original("fc.weight", 0, 4)
