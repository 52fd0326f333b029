"""Deliberately wrong results: `verify` catches each one and names the tensor."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur import ProofError
from tests.zoo.blocks import PICTURE, conv, pooled_head
from tests.zoo.splitting import HalfSigmoid


class Victim(nn.Module):
    """Two convolutions with norms, a split by an attribute, and a linear head."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = conv(3, 12), nn.BatchNorm2d(12), conv(12, 16)
        self.sizes, self.gate = [6, 10], conv(6, 10)
        self.head = pooled_head(10)

    def forward(self, x):
        x = self.second(torch.relu(self.norm(self.first(x))))
        gate, value = torch.split(x, self.sizes, dim=1)
        return self.head(torch.relu(value) * torch.sigmoid(self.gate(gate)))


class Sabotaged(Victim):
    """A forward that is right but for a tenth of a percent."""

    def forward(self, x):
        return super().forward(x) * 1.001


@dataclasses.dataclass
class Case:
    """A model, its plan, and what came of it."""

    model: nn.Module
    plan: Any
    small: nn.Module

    def verify(self) -> Any:
        return secateur.verify(self.model, self.small, self.plan, PICTURE)

    def edited(self, tensor: str, axis: int, edit: Callable[[list[int], list[int]], list[int]]) -> Case:
        """Return the case with one index list of one tensor changed, and the model cut by that plan.

        `edit` takes the kept and the removed indices.
        """
        kept, removed = list(self.plan.keep[tensor][axis]), list(self.plan.removed(tensor, axis))
        axes = {**self.plan.keep[tensor], axis: tuple(edit(kept, removed))}
        plan = dataclasses.replace(self.plan, keep={**self.plan.keep, tensor: axes})
        return Case(self.model, plan, secateur.cut(self.model, plan))


def case_of(model: nn.Module) -> Case:
    _randomize(model)
    plan = secateur.plan(secateur.trace(model, PICTURE), model, ratio=0.5, min_channels=1, criterion="random")
    return Case(model, plan, secateur.cut(model, plan))


@pytest.fixture
def case() -> Case:
    torch.manual_seed(5)
    return case_of(Victim().eval())


def test_right_result_passes(case):
    proof = case.verify()
    assert isinstance(proof, secateur.Proof)


def test_one_index_off_in_the_values(case):
    other = case.plan.removed("second.weight", 1)[0]
    kept = list(case.plan.keep["second.weight"][0])
    case.small.second.weight.data[:, 0] = case.model.second.weight.data[kept, other]
    _caught(case, "second.weight")


def test_one_index_off_in_the_plan(case):
    _caught(case.edited("second.weight", 1, lambda kept, removed: sorted([*kept[1:], removed[0]])), "second.weight")


def test_one_index_off_in_a_norm(case):
    _caught(case.edited("norm.weight", 0, lambda kept, removed: sorted([*kept[:-1], removed[-1]])), "norm.weight")


def test_consumer_forgotten_in_the_values(case):
    outputs = list(case.plan.keep["second.weight"][0])
    width = case.small.second.weight.shape[1]
    case.small.second.weight.data.copy_(case.model.second.weight.data[outputs][:, :width])
    _caught(case, "second.weight")


def test_consumer_forgotten_in_the_plan(case):
    _caught(case.edited("second.weight", 1, lambda kept, removed: list(range(len(kept)))), "second.weight")


def test_consumer_left_whole(case):
    axes = {axis: kept for axis, kept in case.plan.keep["second.weight"].items() if axis != 1}
    plan = dataclasses.replace(case.plan, keep={**case.plan.keep, "second.weight": axes})
    _caught(Case(case.model, plan, secateur.cut(case.model, plan)), "second")


def test_attribute_stale_in_the_model(case):
    case.small.sizes = list(case.model.sizes)
    _caught(case, "sizes")


def test_attribute_stale_where_any_number_runs():
    case = case_of(HalfSigmoid().eval())
    case.verify()
    case.small.bound = case.model.bound
    _caught(case, "bound")


def test_attribute_stale_in_the_plan():
    case = case_of(HalfSigmoid().eval())
    plan = dataclasses.replace(case.plan, attributes={})
    _caught(Case(case.model, plan, secateur.cut(case.model, plan)), "bound")


def test_two_channels_swapped_in_the_values(case):
    weight = case.small.first.weight.data
    weight[[0, 1]] = weight[[1, 0]]
    _caught(case, "first.weight")


def test_two_channels_swapped_in_the_plan(case):
    _caught(case.edited("first.weight", 0, lambda kept, removed: [kept[1], kept[0], *kept[2:]]), "first.weight")


def test_one_weight_one_percent_off(case):
    case.small.gate.weight.data[1, 0, 2, 1] *= 1.01
    _caught(case, "gate.weight")


def test_running_variance_lost(case):
    case.small.norm.running_var.fill_(1.0)
    _caught(case, "norm.running_var")


def test_bias_of_a_neighbour(case):
    kept = list(case.plan.keep["first.bias"][0])
    removed = case.plan.removed("first.bias", 0)
    case.small.first.bias.data[0] = case.model.first.bias.data[removed[0]]
    assert kept[0] != removed[0]
    _caught(case, "first.bias")


def test_bias_of_a_neighbour_in_the_plan(case):
    _caught(case.edited("first.bias", 0, lambda kept, removed: sorted([*kept[1:], removed[-1]])), "first.bias")


def test_untouched_tensor_changed(case):
    case.small.head[2].bias.data[0] += 1e-3
    _caught(case, "head.2.bias")


def test_model_that_does_not_run(case):
    case.small.head[2] = nn.Linear(3, 4)
    _caught(case, "head.2.weight")


def test_forward_replaced(case):
    case.small.__class__ = Sabotaged
    with pytest.raises(ProofError):
        case.verify()


def test_no_rounding_error_is_called_a_fault(case):
    coarse = Case(copy.deepcopy(case.model).bfloat16(), case.plan, copy.deepcopy(case.small).bfloat16())
    secateur.verify(coarse.model, coarse.small, coarse.plan, PICTURE.bfloat16())


def _caught(case: Case, name: str) -> None:
    with pytest.raises(ProofError, match=name):
        case.verify()


def _randomize(model: nn.Module) -> None:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
                module.running_mean.normal_()
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
