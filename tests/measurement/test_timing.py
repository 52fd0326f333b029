"""Times are taken in turns, and leave the models as they were."""

from __future__ import annotations

import torch
from torch import nn

from secateur.measurement.timing import compare_module_times, compare_times


def test_calls_take_turns_and_warm_up_does_not_count() -> None:
    order: list[str] = []
    times = compare_times({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warm_up=1)
    assert sorted(order[:2]) == sorted(order[2:4]) == ["a", "b"]
    assert order[2:4] == order[5:3:-1]
    assert times["a"].rounds == 2
    assert times["a"].low <= times["a"].median <= times["a"].high


def test_models_are_timed_in_evaluation_mode_and_put_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    times = compare_module_times({"model": model}, (torch.ones(2, 4),), rounds=2, warm_up=1)
    assert times["model"].median > 0
    assert (model.training, model[0].training, model[1].training) == (True, False, True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
