"""What a model loses with each group, and budgets that are a quality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import BudgetError, DataError, MeasurementError, PlanError
from secateur.models import LeNet
from secateur.planning.sensitivities import rescaled
from secateur.training.classification import accuracy, fit_classifier, load_digits


@pytest.fixture(scope="module")
def trained():
    pytest.importorskip("sklearn")
    torch.manual_seed(0)
    train, test = load_digits()
    model = LeNet()
    fit_classifier(model, train, epochs=3)
    return model, list(train.images[:128].split(32)), test


class Stream(nn.Module):
    """A residual stream, and a branch that adds next to nothing to it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.c.weight.mul_(1e-3)

    def forward(self, x):
        x = self.a(x).tanh()
        return self.d(x + self.c(self.b(x).relu()))


def test_it_tells_a_stream_from_a_branch_that_hardly_matters():
    torch.manual_seed(0)
    model = Stream().eval()
    found = secateur.sensitivity(model, torch.zeros(1, 6), [torch.randn(32, 6)] * 4, shares=(0.25, 0.5))
    assert set(found.curves) == {"a", "b"}
    assert [share for share, _ in found.curves["a"]] == [0.25, 0.5]
    assert found.curves["b"][1][1] < 0.01 * found.curves["a"][0][1]
    assert found.curves["a"][0][1] < found.curves["a"][1][1]
    plan = secateur.prune(
        model,
        torch.zeros(1, 6),
        macs="0.6x",
        calibrate=[torch.randn(32, 6)] * 4,
        sensitivity=found.curves,
        min_channels=1,
    )[1]
    assert len(plan.keep["b.weight"][0]) == 7  # as the budget wants it, the stream being whole
    assert "a.weight" not in plan.keep


def test_compensation_makes_groups_look_less_sensitive():
    torch.manual_seed(0)
    model, x = Stream().eval(), [torch.randn(32, 6)] * 4
    with_it, without = (
        secateur.sensitivity(model, torch.zeros(1, 6), x, (0.5,), compensate=how).curves for how in (True, False)
    )
    assert with_it["a"][0][1] < without["a"][0][1]


class Counted(Stream):
    """Counts how often any copy of it runs."""

    runs = 0

    def forward(self, x):
        Counted.runs += 1
        return super().forward(x)


def test_what_was_measured_is_kept_and_not_measured_again():
    torch.manual_seed(0)
    model, x = Counted().eval(), [torch.randn(32, 6)] * 4
    runs, curves = [], []
    for batches in (x, x, [2 * one for one in x]):
        before = Counted.runs
        curves.append(secateur.sensitivity(model, torch.zeros(1, 6), batches, (0.5,), compensate=False).curves)
        runs.append(Counted.runs - before)
    assert curves[0] == curves[1] != curves[2]
    assert runs[1] < runs[0] == runs[2]


def test_what_a_metric_says_is_measured_anew():
    torch.manual_seed(0)
    model, x = Stream().eval(), [torch.randn(32, 6)] * 4
    found = [
        secateur.sensitivity(
            model, torch.zeros(1, 6), x, (0.5,), lambda net, scale=scale: scale * float(net(torch.ones(4, 6)).sum())
        ).curves
        for scale in (1.0, -1.0)
    ]
    assert found[0] != found[1]


def test_importances_are_brought_to_the_scale_of_what_is_lost():
    torch.manual_seed(0)
    graph = secateur.trace(Stream(), torch.zeros(1, 6))
    given = [np.arange(1.0, 17), np.ones(16)]
    one, other = rescaled(graph, given, {"a": [(0.25, 0.2), (0.5, 0.8)], "b": [(0.5, 0.01)]})
    assert (np.argsort(one, kind="stable") == np.arange(16)).all()
    assert other[:8].sum() == pytest.approx(0.01)
    assert one[:4].sum() == pytest.approx(0.2, rel=0.05)
    assert one[:8].sum() >= 0.8 - 1e-9
    with pytest.raises(PlanError, match="has 'c', which is no group"):
        rescaled(graph, given, {"c": [(0.5, 1.0)]})
    with pytest.raises(PlanError, match="is no list of shares"):
        rescaled(graph, given, {"a": [(0.5, float("nan"))]})


def test_a_quality_is_met(trained):
    model, pictures, test = trained
    small, plan = secateur.prune(
        model,
        test.images[:1],
        quality="-2%",
        metric=lambda net: accuracy(net, test),
        calibrate=pictures,
        min_channels=2,
    )
    told = plan.recipe["quality"]
    assert accuracy(small, test) == pytest.approx(told["metric"])
    assert told["metric"] >= told["least"] == pytest.approx(0.98 * accuracy(model, test))
    assert told["macs"] < 0.8
    assert all(value < told["least"] for share, value in told["candidates"] if share < told["macs"])


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        ({"quality": "-1%"}, PlanError, "measured by a metric"),
        ({"quality": "1 percent", "metric": len}, PlanError, "is no loss that may be"),
        ({"quality": "-0%", "metric": len}, PlanError, "is no loss that may be"),
        ({"quality": "-1%", "macs": "0.5x", "metric": len}, PlanError, "quality stands alone, and macs"),
        ({"quality": "-1%", "on": "torch", "metric": len}, PlanError, "quality stands alone, and on"),
        ({"quality": "-1%", "metric": len}, MeasurementError, "The metric fails: TypeError"),
        ({"quality": "-1%", "metric": lambda _: float("nan")}, MeasurementError, "no finite number"),
        ({"ratio": 0.5, "allocate": "sensitivity"}, PlanError, "allocate: nothing can be measured without data"),
        ({"ratio": 0.5, "allocate": "even"}, PlanError, "is not known"),
        ({"ratio": 0.5, "ranking": "loss"}, PlanError, "wants a cap"),
        ({"macs": "0.5x", "ranking": "loss"}, PlanError, "importances that are losses"),
        ({"macs": "0.5x", "calibrate": [torch.zeros(8, 5)]}, DataError, "does not run on samples"),
    ],
)
def test_what_makes_no_sense_is_refused(budget, error, message):
    with pytest.raises(error, match=message):
        secateur.prune(Stream().eval(), torch.zeros(1, 6), **budget)


def test_a_quality_that_no_cut_keeps_is_refused_with_what_it_would_take():
    torch.manual_seed(0)
    model = Stream().eval()
    values = iter([1.0, *[0.5] * 20])
    with pytest.raises(BudgetError, match=r"No cut keeps the metric at 0.99 \(1 before\): the best has 0.5"):
        secateur.prune(model, torch.zeros(1, 6), quality="-1%", metric=lambda _: next(values), min_channels=1)


def test_what_is_only_tried_out_warns_of_nothing(caplog):
    with caplog.at_level("WARNING", "secateur"):
        secateur.sensitivity(LeNet().eval(), torch.zeros(1, 1, 28, 28), [torch.randn(8, 1, 28, 28)] * 4, shares=(0.1,))
    assert not caplog.records


def test_a_share_that_is_none_is_refused():
    with pytest.raises(PlanError, match="A share of 1"):
        secateur.sensitivity(Stream(), torch.zeros(1, 6), [torch.zeros(8, 6)], shares=(1.5,))
