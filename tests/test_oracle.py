"""The oracle itself: it must see a single wrong index, or it proves nothing about the engine."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import secateur
from tests.oracle import kept_elements, relative_error, sliced
from tests.zoo import ZOO

WRONG = (
    ("IdentityResidual", "inner.0.weight", 1),
    ("IdentityResidual", "stem.1.running_var", 0),
    ("InvertedResidual", "depthwise.0.weight", 0),
    ("SmallUNet", "up.weight", 1),
    ("ConvNeXtBlock", "norm.weight", 0),
    ("FlattenLive", "hidden.weight", 1),
)


@pytest.mark.parametrize(("name", "tensor", "axis"), WRONG)
def test_one_wrong_index_is_seen(name, tensor, axis):
    torch.manual_seed(7)
    model, example = ZOO[name].build().eval(), ZOO[name].example
    plan = secateur.plan(secateur.trace(model, example), model, ratio=0.5, min_channels=1)
    assert relative_error(model, plan, secateur.cut(model, plan), example) < 1e-9
    kept = list(plan.keep[tensor][axis])
    kept[0] = plan.removed(tensor, axis)[0]
    wrong = dataclasses.replace(plan, keep={**plan.keep, tensor: {**plan.keep[tensor], axis: tuple(kept)}})
    assert relative_error(model, wrong, secateur.cut(model, wrong), example) > 1e-4


def test_slices_of_a_grouped_weight():
    weight = torch.arange(6 * 2).view(6, 2)  # three groups of two filters, two inputs each
    keep = {0: (0, 1, 4, 5), "grouped": ((1,), (0,))}
    assert sliced(weight, keep).tolist() == [[1], [3], [8], [10]]
    assert weight[kept_elements(weight, keep)].tolist() == [1, 3, 8, 10]
