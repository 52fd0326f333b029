"""Costs by branch, by group and by layer add up to the costs of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from secateur.measurement.branches import branch_costs, top_level_branches, total_cost
from secateur.measurement.layers import compare_layers
from secateur.measurement.prunable import coverage, group_shares, protected_layers


class Mixed(nn.Module):
    """A parameter of its own, a transposed and a grouped convolution, a norm, and a child without parameters."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 24, 2, groups=2)
        self.head = nn.Conv2d(24, 4, 1)
        self.act = nn.ReLU()
        self.gain = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        return self.act(self.head(self.up(self.stem(x)))) * self.gain


@pytest.fixture(scope="module")
def model():
    return Mixed()


@pytest.fixture(scope="module")
def graph(model):
    return secateur.trace(model, torch.zeros(1, 3, 16, 16))


def test_branches_are_the_children_and_the_rest(model, graph):
    branches = branch_costs(graph, top_level_branches(model))
    assert [branch.name for branch in branches] == ["stem", "up", "head", "other"]
    assert branches[0].params == 3 * 16 * 9 + 16
    assert branches[0].all_params == branches[0].params + 32
    assert branches[-1].all_params == 4
    assert total_cost(branches).all_params == sum(parameter.numel() for parameter in model.parameters())
    assert total_cost(branches).all_macs == graph.costs.macs()


def test_the_longest_prefix_decides_and_names_are_whole(graph):
    branches = branch_costs(graph, {"a": ("stem",), "b": ("stem.0",), "c": ("hea",)})
    found = {branch.name: branch.all_params for branch in branches}
    assert found["a"] == 32
    assert found["b"] == 3 * 16 * 9 + 16
    assert found["c"] == 0


def test_layers_are_counted_before_and_after(model, graph):
    small, _ = secateur.prune(model, torch.zeros(1, 3, 16, 16), ratio=0.5, min_channels=1)
    change = compare_layers(model, small, graph, secateur.trace(small, torch.zeros(1, 3, 16, 16)))
    assert [(layer.name, layer.channels.before, layer.channels.after) for layer in change.layers] == [
        ("stem.0", 16, 8),
        ("up", 24, 12),
        ("head", 4, 4),
    ]
    assert change.params.after == sum(parameter.numel() for parameter in small.parameters())
    assert change.macs.after == sum(layer.macs.after for layer in change.layers)
    assert change.layers[0].channels.share == 0.5


def test_groups_say_what_they_carry(graph):
    shares = group_shares(graph)
    assert sum(share.groups for share in shares) == len(graph.groups)
    stem = next(share for share in shares if share.name == "stem.0")
    assert "up" in stem.layers
    assert 0 < stem.params < graph.costs.params()
    found = coverage(graph)
    assert 0.5 < found.params < 1
    assert 0.5 < found.macs < 1


def test_what_stays_is_told_once_a_layer_and_reason(graph):
    protected = protected_layers(graph)
    assert {entry.layer for entry in protected} >= {"head", "stem.0"}
    assert len({(entry.layer, entry.reason, entry.source) for entry in protected}) == len(protected)
