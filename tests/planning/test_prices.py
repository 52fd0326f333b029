"""Ranking by time: units go where they save most time for the importance that their group still has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import PlanError
from secateur.graph.tracing import trace
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.planning.planning import plan
from secateur.planning.prices import marginal_time
from tests.zoo import ZOO
from tests.zoo.blocks import PICTURE


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 1),
    ).eval()  # fmt: skip
    return trace(model, PICTURE), model


def widths(found):
    return [found.shape_after(f"{number}.weight")[0] for number in (0, 2, 4)]


def test_what_takes_time_loses_most_and_the_unit_of_time_does_not_count(traced):
    graph, model = traced
    even = {cost.layer: cost.macs for cost in graph.costs.by_layer()}
    slow_end = {**even, "4": 10 * even["4"], "6": 10 * even["6"]}
    first, second, third = widths(plan(graph, model, macs="0.5x", ranking="time", times=slow_end, criterion="uniform"))
    assert second < third < first  # the second layer's width is in two layers that take long, the third's in one
    by_macs = widths(plan(graph, model, macs="0.5x", ranking="time", times=even, criterion="uniform"))
    assert third < by_macs[2]
    assert first > by_macs[0]
    assert by_macs == widths(
        plan(graph, model, macs="0.5x", ranking="time", times={k: 3 * v for k, v in even.items()}, criterion="uniform")
    )


def test_at_the_same_macs_it_takes_less_of_the_times_than_equal_shares_do(traced):
    graph, model = traced
    times = {"0": 1.0, "2": 8.0, "4": 1.0, "6": 0.5}
    rates = {cost.layer: times[cost.layer] / cost.macs for cost in graph.costs.by_layer() if cost.macs}

    def taken(found):
        small = {cost.layer: cost.macs for cost in trace(secateur.cut(model, found), PICTURE).costs.by_layer()}
        return sum(rates[layer] * macs for layer, macs in small.items() if layer in rates)

    by_time = plan(graph, model, macs="0.5x", ranking="time", times=times)
    assert taken(by_time) < taken(plan(graph, model, macs="0.5x"))


def test_the_price_of_a_unit_is_what_the_layers_that_shrink_with_it_take(traced):
    graph, _ = traced
    times = {"0": 1.0, "2": 2.0, "4": 3.0, "6": 4.0}
    prices = marginal_time(graph.costs, times)(np.array([64, 64, 64]))
    assert prices == pytest.approx([(1 + 2) / 64, (2 + 3) / 64, (3 + 4) / 64])
    half = marginal_time(graph.costs, times)(np.array([32, 64, 64]))
    assert half == pytest.approx([(1 + 2) / 64, (2 / 2 + 3) / 64, (3 + 4) / 64])
    unmeasured = marginal_time(graph.costs, {"2": 2.0})(np.array([64, 64, 64]))
    rate = 2.0 / next(cost.macs for cost in graph.costs.by_layer() if cost.layer == "2")
    first = next(cost.macs for cost in graph.costs.by_layer() if cost.layer == "0")
    assert unmeasured[0] == pytest.approx((rate * first + 2) / 64)


@pytest.mark.parametrize("share", ["0.9x", "0.5x", "0.25x"])
def test_caps_steps_and_floors_hold(share):
    torch.manual_seed(0)
    model = MobileNetV2().eval()
    graph = trace(model, torch.zeros(1, 3, 64, 64))
    times = {cost.layer: cost.macs**0.5 for cost in graph.costs.by_layer() if cost.macs}
    found = plan(graph, model, macs=share, ranking="time", times=times, round_to=8, min_channels=8)
    assert found.recipe["reached"]["macs"] <= float(share[:-1]) * graph.costs.macs()
    assert found.recipe["reached"]["macs"] > 0.9 * float(share[:-1]) * graph.costs.macs()
    for name, shape in found.fingerprint.items():
        if len(shape) == 4:
            assert found.shape_after(name)[0] % 8 == 0
    assert 0 < found.recipe["importance"] < 1


def test_what_does_harm_goes_first_and_costs_nothing(traced):
    graph, model = traced
    times = {cost.layer: cost.macs for cost in graph.costs.by_layer()}
    harmful = {"2": [-5.0] * 32 + [1.0] * 32, **{layer: [1.0] * 64 for layer in ("0", "4")}}
    found = plan(graph, model, macs="0.5x", ranking="time", times=times, scores=harmful)
    assert set(range(32)).isdisjoint(found.keep["2.weight"][0])
    first, second, third = widths(found)
    assert second <= 32 < min(first, third)


def test_in_steps_it_is_refused(traced):
    graph, model = traced
    done = plan(graph, model, macs="0.7x")
    small = secateur.cut(model, done)
    with pytest.raises(PlanError, match="this one was cut before"):
        plan(trace(small, PICTURE), small, macs="0.5x", ranking="time", times={"0": 1.0}, after=(graph, done))


@pytest.mark.parametrize("name", sorted(ZOO)[::8])
def test_it_holds_where_channels_are_coupled(name):
    model, example = ZOO[name].build().eval(), ZOO[name].example
    graph = trace(model, example)
    times = {cost.layer: cost.macs for cost in graph.costs.by_layer() if cost.macs}
    if not times or not graph.groups:
        pytest.skip("nothing to rank")
    found = plan(graph, model, macs="0.97x", ranking="time", times=times, min_channels=1)
    secateur.verify(model, secateur.cut(model, found), found, example, graph=graph)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranking": "time", "macs": "0.5x"}, "wants the times of the layers"),
        ({"ranking": "time", "ratio": 0.5, "times": {"0": 1.0}}, "wants a cap to stay under"),
        ({"ranking": "global", "macs": "0.5x", "times": {"0": 1.0}}, 'times count for ranking="time" alone'),
        ({"ranking": "time", "macs": "0.5x", "times": {"1": 1.0}}, "names no layer of this model: '1'"),
        ({"ranking": "time", "macs": "0.5x", "times": {"0": -1.0}}, "says that 0 takes -1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(traced, options, message):
    with pytest.raises(PlanError, match=message):
        plan(*traced, **options)
