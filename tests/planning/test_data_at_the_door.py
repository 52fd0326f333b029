"""What users hand to plans: the right calibration, criteria that judge some groups, options that mean something."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import DataError, PlanError

X = torch.rand(1, 3, 8, 8)


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [torch.rand(4, 3, 8, 8) for _ in range(4)]


def net(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 20), nn.ReLU(), nn.Linear(20, 5),
    ).eval()  # fmt: skip


def test_a_calibration_of_another_model_is_refused(batches):
    model = net()
    graph = secateur.trace(model, X)
    found = secateur.calibrate(model, graph, batches)
    small, _ = secateur.prune(model, X, ratio=0.5, min_channels=1)
    for criterion in ("variance", "obs"):
        with pytest.raises(PlanError, match=r"taken from another model. Calibrate this one"):
            secateur.plan(
                secateur.trace(small, X), small, ratio=0.5, criterion=criterion, calibration=found, min_channels=1
            )
    with pytest.raises(PlanError, match=r"calibration is a list. Give what secateur.calibrate"):
        secateur.plan(graph, model, ratio=0.5, criterion="obs", calibration=batches)


@pytest.mark.parametrize(
    "words",
    [
        {"ratio": 0.5, "ignore": ["8"]},
        {"config": [{"sparsity": 0.5, "op_types": ["Conv2d"]}]},
        {"ratio": {"0": 0.5, "3": 0.5}},
    ],
)
def test_groups_that_nobody_cuts_need_no_importance(words):
    small, _ = secateur.prune(net(), X, criterion="bn_scale", min_channels=1, **words)
    assert (small[0].out_channels, small[3].out_channels, small[8].out_features) == (8, 16, 20)
    with pytest.raises(PlanError, match="channels of 8 go through none"):
        secateur.prune(net(), X, criterion="bn_scale", ratio=0.5)


def test_a_broken_layer_can_be_left_alone():
    model = net()
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(PlanError, match=r"because 3.weight holds NaN"):
        secateur.prune(model, X, ratio=0.5)
    plan = secateur.plan(secateur.trace(model, X), model, ratio=0.5, ignore=["3"], min_channels=1)
    assert plan.shape_after("0.weight")[0] == 8


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"criterion": lambda evidence: None}, r"gives None for 0. Return one number a unit, 16 of them"),
        ({"criterion": lambda evidence: [float("inf")] * evidence.group.size}, "not finite by the criterion"),
        ({"scores": [1, 2]}, "scores is a list. Give a dict"),
        ({"ignore": 3}, "ignore=3 is no list"),
        ({"metric": 5}, "metric: only a quality is measured by it"),
    ],
)
def test_what_makes_no_sense_is_told(words, expected):
    with pytest.raises(PlanError, match=expected):
        secateur.prune(net(), X, **{"ratio": 0.5, **words})


def test_nothing_to_ignore_may_be_said_as_none():
    assert secateur.prune(net(), X, ratio=0.5, min_channels=1, ignore=None)[0][0].out_channels == 8


@pytest.mark.parametrize(
    "words",
    [
        {"ratio": 0.5, "sensitivity": {"0": [(0.5, 0.1)]}},
        {"macs": "0.5x", "ranking": "global", "allocate": "sensitivity"},
        {"config": [{"sparsity": 0.5, "op_types": ["Conv2d"]}], "allocate": "sensitivity"},
    ],
)
def test_curves_that_would_not_be_read_are_refused(words, batches):
    with pytest.raises(PlanError, match="shares out a cap for all of them"):
        secateur.prune(net(), X, calibrate=batches, min_channels=1, **words)


@pytest.mark.parametrize(
    "words", [{"criterion": "obs"}, {"macs": "0.5x", "ranking": "loss"}, {"criterion": "variance"}]
)
def test_steps_take_data_as_prune_does(words, batches):
    budget = {"ratio": 0.5, **words} if "macs" not in words else words
    stages = list(secateur.prune_steps(net(), X, steps=2, calibrate=batches, min_channels=1, **budget))
    assert len(stages) == 2
    with pytest.raises(DataError, match="The batches to calibrate with are int"):
        secateur.prune_steps(net(), X, steps=2, ratio=0.5, calibrate=5)


class Drawing(nn.Module):
    """Drops some at random, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.c(nn.functional.dropout(torch.relu(self.b(torch.relu(self.a(x)))), 0.5).mean((2, 3)))


def test_gradients_leave_the_model_and_the_random_state_as_they_were(batches):
    model, kept = Drawing().eval(), []
    for _ in range(2):
        state = torch.get_rng_state()
        words = {"criterion": "taylor", "loss": lambda output, _: output.square().sum(), "mimic": 1}
        _, plan = secateur.prune(model, X, ratio=0.5, calibrate=batches, min_channels=1, **words)
        kept.append(plan.keep["a.weight"])
        assert torch.equal(torch.get_rng_state(), state)
    assert kept[0] == kept[1]
    assert model.calls == 0
    stages = secateur.prune_steps(
        model, X, steps=2, ratio=0.5, calibrate=batches, min_channels=1, criterion="taylor",
        loss=lambda output, _: output.square().sum(),
    )  # fmt: skip
    assert len(list(stages)) == 2


def test_features_that_never_vary_are_cut_for_nothing():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    for value in (0.3, 0.0):
        constant = [torch.full((4, 3, 8, 8), value)] * 4
        small, plan = secateur.prune(model.eval(), X, ratio=0.5, calibrate=constant, min_channels=1)
        assert small[0].out_channels == 8
        torch.testing.assert_close(small(constant[0]), model(constant[0]), rtol=0, atol=1e-4)
        assert plan.recipe["compensation"]


def test_norms_of_branches_that_only_training_takes_keep_their_statistics(batches):
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out, self.side = net()[:6], nn.Linear(32, 5), nn.Conv2d(32, 8, 1)
            self.norm, self.other = nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> object:
            read = self.body(x)
            found = self.out(read.mean((2, 3)))
            return (found, self.other(self.norm(self.side(read)).mean((2, 3)))) if self.training else found

    model = Auxiliary()
    for _ in range(10):
        model.train()(torch.rand(8, 3, 8, 8))
    small, _ = secateur.prune(model.eval(), X, ratio=0.5, calibrate=batches, min_channels=1)
    assert small.norm.num_batches_tracked == 10
    kept = [int(torch.argmin((model.norm.running_mean - one).abs())) for one in small.norm.running_mean]
    assert torch.equal(small.norm.running_mean, model.norm.running_mean[kept])
    assert torch.equal(small.norm.running_var, model.norm.running_var[kept])
    fresh = [int(norm.num_batches_tracked) for norm in small.body if isinstance(norm, nn.BatchNorm2d)]
    assert all(count > 0 for count in fresh)


def test_curves_by_a_metric_are_measured_anew_each_time(batches):
    model, truth = net(), {}

    def agreement(small: nn.Module) -> float:
        return float((small(truth["x"]).argmax(1) == truth["y"]).float().mean())

    found = []
    for scale in (1.0, 30.0):
        truth["x"] = torch.randn(64, 3, 8, 8) * scale
        truth["y"] = model(truth["x"]).argmax(1)
        shares = (share for share in (0.5, 0.75))
        found.append(secateur.sensitivity(model, X, batches, shares=shares, compensate=False, metric=agreement).curves)
    assert len(found[0]["0"]) == 2
    assert found[0] != found[1]
    with pytest.raises(PlanError, match="no list of shares"):
        secateur.sensitivity(model, X, batches, shares=[])


def test_high_powers_do_not_vanish():
    model = net()
    graph = secateur.trace(model, X)
    high, largest = (
        secateur.plan(graph, model, ratio=0.5, criterion=criterion, min_channels=1).keep["0.weight"][0]
        for criterion in ("lp:1000", lambda evidence: sum(rows.abs().amax(dim=1) for rows in evidence.filters()))
    )
    assert high == largest
