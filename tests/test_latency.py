"""A time as a budget: candidates are measured on the runtime, and the one that is kept meets it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import BudgetError, PlanError, RuntimeUnfitError
from secateur.measurement import contest, latency
from secateur.measurement.latency import Candidate, Target, search
from secateur.runtimes.shapes import Sizes


class Wide(nn.Module):
    """Enough to compute for its time to tell."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(),
            nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 4, 1),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))


def test_a_model_is_pruned_to_half_of_its_time(kept):
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    model, example = Wide().eval(), torch.zeros(1, 3, 96, 96)
    small, plan = secateur.prune(model, example, latency="0.5x", on="openvino", threads=1, round_to=8)
    found = plan.recipe["latency"]
    assert found["on"] == "openvino"
    assert found["chosen"] in found["candidates"]
    assert found["chosen"]["time"] <= 1.05 * found["target"] == pytest.approx(0.525)  # as the search measured it
    assert plan.proof.values
    assert sum(one.numel() for one in small.parameters()) < sum(one.numel() for one in model.parameters())
    assert secateur.Plan.from_json(plan.to_json()).recipe == plan.recipe


def test_a_model_is_pruned_to_a_time_in_int8(kept, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(contest, "MOST_OPENINGS", contest.FEW_OPENINGS)  # no time need be known well here
    torch.manual_seed(0)
    model, example = Wide().eval(), torch.zeros(1, 3, 96, 96)
    small, plan = secateur.prune(model, example, latency="0.6x", on="openvino", precision="int8", threads=1, round_to=8)
    found = plan.recipe["latency"]
    assert (found["on"], found["precision"]) == ("openvino", "int8")
    assert found["chosen"]["time"] <= 1.05 * found["target"] == pytest.approx(0.63)
    assert sum(one.numel() for one in small.parameters()) < sum(one.numel() for one in model.parameters())


def test_a_runtime_without_a_time_only_rounds_to_its_step(kept, monkeypatch):
    monkeypatch.setattr("secateur.measurement.place.probe", lambda *given: pytest.fail("round_to is given"))
    small, _ = secateur.prune(Wide().eval(), torch.zeros(1, 3, 32, 32), macs="0.5x", on="torch", round_to=32)
    assert small.layers[0].out_channels % 32 == 0


class Track:
    """Measures by a formula."""

    runtime = "formula"

    def __init__(self, time, smallest=0.0, clock=None):
        self.full, self.time, self.smallest, self.asked = self, time, smallest, []
        self.name, self.clock = "net", clock or latency.Clock()

    def make(self, share):
        if share < self.smallest:
            raise BudgetError("too small")
        return share, None

    def alone(self):
        return Cell(100.0)

    def against(self, small, plan, macs, wanted):
        self.asked.append(macs)
        self.clock.measured += 1
        time = self.time(macs)
        return Candidate(macs, macs, time, time, time, 100 * time)

    def floor(self, small):
        return f" What it takes: {small:.2f}."


class Cell:
    def __init__(self, milliseconds):
        self.spread = type("Spread", (), {"median": milliseconds})


SHAPES = {
    "in proportion": lambda macs: macs,
    "with a floor": lambda macs: 0.2 + 0.8 * macs,
    "bent": lambda macs: macs**0.5,
    "in steps": lambda macs: 0.1 + 0.9 * -(-macs // 0.04) * 0.04,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wanted", ["0.25x", "0.5x", "0.9x", "40ms"])
def test_the_search_ends_near_the_target_after_few_measurements(shape, wanted):
    track = Track(SHAPES[shape])
    found = search(track, track.make, Target.read(wanted))
    assert found.chosen.time == pytest.approx(found.target, rel=0.05)
    assert len(track.asked) <= latency.MOST


def test_a_time_that_no_candidate_comes_near_is_told(caplog):
    track = Track(lambda macs: macs if macs > 0.7 else 0.2 * macs)
    found = search(track, track.make, Target.read("0.5x"))
    assert found.chosen.time == pytest.approx(0.14, abs=0.01)
    assert len(track.asked) <= latency.MOST
    assert "where 0.50 would do: from 0.70 on the time falls in one step" in caplog.text


def test_a_time_that_cannot_be_met_is_refused_with_the_least_that_can():
    track = Track(SHAPES["with a floor"], smallest=0.1)
    with pytest.raises(
        PlanError, match=r"net takes 0\.\d+ of its time in formula at the least, and 0\.20 is wanted.*takes: 0\.1"
    ):
        search(track, track.make, Target.read("0.2x"))
    assert min(track.asked) < 0.2
    assert len(track.asked) <= latency.MOST


def test_several_searches_share_what_they_may_take(caplog):
    clock = latency.Clock(candidates=2)
    first = Track(SHAPES["bent"], clock=clock)
    with pytest.raises(PlanError, match=r"0\.30 is wanted: 2 candidates were measured, .* The same command goes on"):
        search(first, first.make, Target.read("0.3x"))
    assert len(first.asked) == 2
    second = Track(lambda macs: 0.5 * macs, clock=clock)
    assert search(second, second.make, Target.read("0.3x")).chosen.time < 0.3
    assert len(second.asked) == 1  # one of each, however late it is
    assert "where 0.30 would do: 3 candidates were measured" in caplog.text


def test_a_search_ends_when_its_time_is_over():
    clock = latency.Clock(seconds=0.0)
    track = Track(SHAPES["bent"], clock=clock)
    with pytest.raises(PlanError, match="searching ends after 20, or 0 s"):
        search(track, track.make, Target.read("0.3x"))
    assert len(track.asked) == 1


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        ({"latency": "0.5x"}, PlanError, "say on which runtime"),
        ({"precision": "int8", "ratio": 0.5}, PlanError, "say on which runtime"),
        ({"latency": "0.5x", "on": "openvin"}, RuntimeUnfitError, "no runtime 'openvin'. Did you mean openvino"),
        ({"latency": "half", "on": "torch"}, PlanError, "'half' is no time"),
        ({"latency": "1.5x", "on": "torch"}, PlanError, "between 0 and 1"),
        ({"latency": "0.5x", "on": "torch", "macs": "0.5x"}, PlanError, "latency stands alone, and macs"),
        ({"latency": "1000000ms", "on": "torch"}, PlanError, "Nothing need be cut"),
        ({"ratio": 0.5, "on": "torch", "ranking": "time"}, PlanError, "wants a cap to stay under"),
        ({"macs": "0.5x", "ranking": "time"}, PlanError, "say on which runtime"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(kept, caplog, budget, error, message):
    with pytest.raises(error, match=message):
        secateur.prune(Wide().eval(), torch.zeros(1, 3, 16, 16), **budget)
    assert "do not meet the budget" not in caplog.text


def test_a_smaller_step_is_tried_where_the_runtimes_own_does_not_meet_the_budget(kept, monkeypatch, caplog):
    step = type("Staircase", (), {"step": 64})
    monkeypatch.setattr("secateur.measurement.place.probe", lambda *given: step)
    small, _ = secateur.prune(Wide().eval(), torch.zeros(1, 3, 32, 32), macs="0.2x", on="torch")
    assert small.layers[0].out_channels % 32 == 0
    assert "Multiples of 64 channels do not meet the budget, trying those of 32" in caplog.text


def by_parameters(networks, *rest, **more):
    """Take the number of parameters for the time."""
    counts = [float(sum(one.numel() for one in network.form.parameters())) for network in networks]
    return [
        contest.Cell(network.name, "torch", "fp32", "cpu", Sizes(), ((count,) * 3,) * 3)
        for network, count in zip(networks, counts, strict=True)
    ]


def test_times_may_be_given_and_then_none_is_asked_of_the_runtime(kept, monkeypatch):
    monkeypatch.setattr("secateur.measurement.place.table_of", lambda *given: pytest.fail("times are given"))
    monkeypatch.setattr(latency, "contest", by_parameters)
    times = {"layers.0": 1.0, "layers.2": 9.0, "layers.4": 1.0, "layers.6": 0.1}
    options = {"on": "torch", "threads": 1, "round_to": 8, "ranking": "time", "times": times}
    small, plan = secateur.prune(Wide().eval(), torch.zeros(1, 3, 96, 96), latency="0.6x", **options)
    assert plan.recipe["ranking"] == "time"
    assert plan.recipe["latency"]["chosen"]["time"] == pytest.approx(0.6, rel=0.05)
    assert max(small.layers[0].out_channels, small.layers[2].out_channels) < small.layers[4].out_channels


def test_candidates_of_an_interrupted_search_are_not_measured_again(kept, monkeypatch):
    contests = []

    def counted(networks, *rest, **more):
        contests.append(len(networks))
        if len(contests) == 3:
            raise KeyboardInterrupt
        return by_parameters(networks)

    monkeypatch.setattr(latency, "contest", counted)
    torch.manual_seed(0)
    options = {"latency": "0.31x", "on": "torch", "threads": 1, "round_to": 8, "ranking": "group"}
    model, example = Wide().eval(), torch.zeros(1, 3, 96, 96)
    with pytest.raises(KeyboardInterrupt):
        secateur.prune(model, example, **options)
    assert contests == [1, 2, 2]  # the model alone, and two candidates
    found = secateur.prune(model, example, **options)[1].recipe["latency"]
    assert len(found["candidates"]) == contests[3:].count(2) + 1
