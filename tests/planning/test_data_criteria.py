"""Criteria that look at data, and those of weights that came with them, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import DataError, PlanError
from secateur.planning.brain_surgeon import Reader, surgeon_losses
from secateur.planning.criteria.scoring import importances
from secateur.planning.outputs import outputs_of
from secateur.planning.planning import tensors_of


class Two(nn.Module):
    """Four hidden units, read by one layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 4, bias=False), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.a(x))


@pytest.fixture
def two():
    model = Two().eval()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0], [3.0, 0.0]]))
        model.b.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 2.0]]))
        model.b.bias.zero_()
    return model, secateur.trace(model, torch.zeros(1, 2))


def judged(model, graph, name, calibration=None, **options):
    found = importances(graph, outputs_of(graph), tensors_of(model), name, calibration=calibration, **options)
    return found[0]


def samples():
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    return [x.repeat(2, 1)] * 4  # the two inputs have variance 1, and nothing in common


def test_fpgm_adds_up_distances(two):
    # Distances of (1, 0): to (0, 2) sqrt 5, to (1, 2) 2, to (3, 0) 2.
    found = judged(*two, "fpgm")
    np.testing.assert_allclose(found[0], 5**0.5 + 2 + 2)
    np.testing.assert_allclose(found[3], 2 + 13**0.5 + 8**0.5)


def test_lamp_divides_by_what_is_no_smaller(two):
    # Squared norms 1, 4, 5, 9.
    np.testing.assert_allclose(judged(*two, "lamp"), [1 / 19, 4 / 18, 5 / 14, 1.0])


def test_bn_scale_is_the_scale_of_the_norm():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, -2.0, 1.0]))
    graph = secateur.trace(model, torch.zeros(1, 1, 2, 2))
    np.testing.assert_allclose(judged(model, graph, "bn_scale"), [0.5, 2.0, 1.0])


def test_bn_scale_without_a_norm_is_refused(two):
    with pytest.raises(PlanError, match="channels of a go through none"):
        judged(*two, "bn_scale")


def test_activations_are_what_is_read(two):
    model, graph = two
    data = secateur.calibrate(model, graph, samples())
    # Rows of `a` on inputs of unit variance: 1, 4, 5, 9.
    np.testing.assert_allclose(judged(model, graph, "activation", data) ** 2, [1, 4, 5, 9])
    np.testing.assert_allclose(judged(model, graph, "variance", data) ** 2, [1, 4, 5, 9])
    shifted = secateur.calibrate(model, graph, [x + 1 for x in samples()])
    np.testing.assert_allclose(judged(model, graph, "activation", shifted)[0] ** 2, 2)
    np.testing.assert_allclose(judged(model, graph, "variance", shifted)[0] ** 2, 1)


def test_taylor_and_fisher_are_gradient_times_weight(two):
    model, graph = two
    # The loss is the sum of the outputs, whose gradient by row u of `a` is (1 + b[1, u]) times the sum of the inputs.
    batches = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])] * 3
    data = secateur.calibrate(model, graph, batches, loss=lambda output, _: output.sum())
    slopes = np.array([1.0, 2.0, 1.0, 3.0])
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0], [3.0, 0.0]])
    each = [slopes * rows[:, 0], slopes * 2 * rows[:, 1]]  # gradient times weight in batches of the two kinds
    held_out = [at for at in range(6) if at % 4 == 3]
    kinds = [at % 2 for at in range(6) if at not in held_out]
    np.testing.assert_allclose(judged(model, graph, "taylor", data), np.mean([each[k] ** 2 for k in kinds], axis=0))
    np.testing.assert_allclose(judged(model, graph, "fisher", data), np.mean([each[k] ** 2 for k in kinds], axis=0) / 2)
    assert all(parameter.grad is None for parameter in model.parameters())


def best_error(weight, second, kept):
    """The error of a weight's outputs when only some inputs are left, and stand in for the others."""
    gone = [at for at in range(len(second)) if at not in kept]
    rest = second[gone][:, gone]
    if kept:
        rest = rest - second[gone][:, kept] @ np.linalg.solve(second[kept][:, kept], second[kept][:, gone])
    return float(np.trace(weight[:, gone] @ rest @ weight[:, gone].T))


def test_obs_is_the_error_that_no_weights_of_the_others_can_avoid():
    generator = np.random.default_rng(0)
    factor, weight = generator.standard_normal((6, 6)), generator.standard_normal((3, 6))
    second = factor @ factor.T
    whole = float(np.trace(weight @ second @ weight.T))
    reader = Reader(
        torch.arange(6)[:, None],
        torch.from_numpy(weight.T @ weight),
        torch.from_numpy(np.linalg.inv(second)),
        whole,
    )
    single = reader.losses().numpy()
    for unit in range(6):
        others = [at for at in range(6) if at != unit]
        np.testing.assert_allclose(single[unit], best_error(weight, second, others) / whole)
    losses = surgeon_losses([reader], 6).numpy()
    order = np.argsort(losses)
    kept, before = list(range(6)), 0.0
    for unit in order[:-1]:  # greedy: each is the one that adds least, with the others' weights brought up to date
        candidates = {one: best_error(weight, second, [k for k in kept if k != one]) / whole for one in kept}
        assert unit == min(candidates, key=candidates.get)
        kept.remove(unit)
        before = candidates[unit]
    assert before <= losses[order[:-1]].sum() + 1e-9


def test_obs_of_units_with_several_indices_takes_them_together():
    generator = np.random.default_rng(1)
    factor, weight = generator.standard_normal((6, 6)), generator.standard_normal((3, 6))
    second = factor @ factor.T
    reader = Reader(
        torch.tensor([[0, 3], [1, 4], [2, 5]]),
        torch.from_numpy(weight.T @ weight),
        torch.from_numpy(np.linalg.inv(second)),
        1.0,
    )
    np.testing.assert_allclose(reader.losses()[0], best_error(weight, second, [1, 2, 4, 5]))
    reader.remove(torch.tensor([0]))
    both = best_error(weight, second, [2, 5])
    np.testing.assert_allclose(reader.losses()[1], both - best_error(weight, second, [1, 2, 4, 5]))


def test_obs_lets_go_what_others_say_however_large(two):
    model, graph = two
    data = secateur.calibrate(model, graph, samples())
    found = judged(model, graph, "obs", data)
    # Unit 3 is three times unit 0, and unit 2 the sum of units 0 and 1: two of the four go at no loss.
    assert (np.sort(found)[:2] < 1e-2).all()
    assert (np.sort(found)[2:] > 0.05).all()
    plan = secateur.plan(graph, model, ratio=0.5, criterion="obs", calibration=data, min_channels=1)
    small = secateur.compensate(secateur.cut(model, plan), plan, model, samples())
    x = torch.randn(5, 2)
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_function_of_the_users_own(two):
    model, graph = two
    found = secateur.plan(
        graph, model, ratio=0.5, min_channels=1, criterion=lambda seen: torch.tensor([3.0, 1.0, 2.0, 4.0])
    )
    assert found.keep["a.weight"][0] == (0, 3)
    assert "lambda" in found.recipe["criterion"]
    with pytest.raises(PlanError, match="Return one number a unit, 4 of them"):
        secateur.plan(graph, model, ratio=0.5, criterion=lambda seen: torch.ones(3))


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum", 5.0), ("mean", 2.5), ("max", 4.0), ("product", 4.0), ("first", 1.0)]
)
def test_reductions_join_what_coupled_layers_say(reduction, expected):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(1, 2, bias=False), nn.Linear(1, 2, bias=False), nn.Linear(2, 1)

        def forward(self, x):
            return self.c(self.a(x) + self.b(x))

    model = Sum()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([[1.0], [2.0]]))
        model.b.weight.copy_(torch.tensor([[-4.0], [1.0]]))
    graph = secateur.trace(model, torch.zeros(1, 1))
    assert judged(model, graph, "l1", reduction=reduction)[0] == expected
    with pytest.raises(PlanError, match="no reduction 'media'"):
        judged(model, graph, "l1", reduction="media")


@pytest.mark.parametrize("normalizer", ["mean", "sum", "max", "deviation", "none"])
def test_normalizers_are_accepted_and_others_refused(two, normalizer):
    model, graph = two
    secateur.plan(graph, model, ratio=0.5, ranking="global", normalizer=normalizer, min_channels=1)
    with pytest.raises(PlanError, match="no normalizer 'medium'"):
        secateur.plan(graph, model, ratio=0.5, normalizer="medium")


@pytest.mark.parametrize("name", ["obs", "activation", "variance", "taylor", "fisher"])
def test_without_data_it_is_said_what_to_give(two, name):
    model, graph = two
    with pytest.raises(PlanError, match=r"looks at data. Give some: prune\(..., calibrate=batches\)"):
        secateur.plan(graph, model, ratio=0.5, criterion=name)


def test_without_a_loss_it_is_said_what_to_give(two):
    model, graph = two
    data = secateur.calibrate(model, graph, samples())
    with pytest.raises(PlanError, match="Give a loss beside the data"):
        secateur.plan(graph, model, ratio=0.5, criterion="taylor", calibration=data)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda output, batch: output, "no single number"),
        (lambda output, batch: 3.0, "no single number"),
        (lambda output, batch: output[9], "The loss fails: IndexError"),
    ],
)
def test_a_loss_that_is_none_is_refused(two, loss, message):
    with pytest.raises(DataError, match=message):
        secateur.calibrate(*two, samples(), loss=loss)
