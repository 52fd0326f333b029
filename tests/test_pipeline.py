"""`prune` as a whole: what fails the proof is left whole, and typing errors are answered."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import secateur
from tests.zoo.adversary import LoopsByWidth


def test_channels_that_only_the_proof_finds_at_fault_are_left_whole(caplog):
    model = LoopsByWidth().eval()
    small, plan = secateur.prune(model, torch.zeros(2, 3, 12, 12), ratio=0.5, min_channels=1)
    assert plan.proof.mask_error < 1e-9
    assert small.stem[0].weight.shape == model.stem[0].weight.shape
    assert small.last[0].weight.shape[0] < model.last[0].weight.shape[0]
    assert "stem.0" in caplog.text


def test_a_misspelt_argument_is_answered_with_the_nearest():
    with pytest.raises(secateur.PlanError, match="ratio"):
        secateur.prune(nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8), ratoi=0.5)


def test_one_layer_to_ignore_needs_no_list():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    small, _ = secateur.prune(model, torch.zeros(1, 3, 16, 16), ratio=0.5, ignore="0")
    assert [layer.weight.shape[0] for layer in small if isinstance(layer, nn.Conv2d)] == [16, 8, 4]


class Small(nn.Module):
    """Two convolutions and a head, to be called in odd ways."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 5)

    def features(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))))


class FromBytes(Small):
    """Takes pictures as bytes, and insists on single precision."""

    def forward(self, x):
        return self.head(self.features(x.float() / 255).mean((2, 3)))


def test_a_model_that_insists_on_single_precision_is_proved_in_it():
    pictures = torch.randint(0, 255, (2, 3, 12, 12), dtype=torch.uint8)
    small, plan = secateur.prune(FromBytes(), pictures, ratio=0.5)
    assert small.second.weight.shape == (8, 8, 3, 3)
    assert plan.proof.precision == "float32"
    assert plan.proof.mask_error < 1e-4


class Namespace(Small):
    """Returns features in an object of no known kind."""

    def forward(self, x):
        features = self.features(x)
        return SimpleNamespace(features=features, logits=self.head(features.mean((2, 3))))


def test_what_leaves_the_model_in_any_object_is_never_cut():
    small, _ = secateur.prune(Namespace(), torch.zeros(2, 3, 12, 12), ratio=0.5)
    assert small.first.weight.shape[0] == 8
    assert small.second.weight.shape[0] == 16


class Memory:
    """An object that keeps what it is given."""

    def __init__(self):
        self.ramps = {}


class Remembering(Small):
    """Fills a cache inside an object while it runs."""

    def __init__(self):
        super().__init__()
        self.memory = Memory()

    def forward(self, x):
        features = self.features(x)
        width = features.shape[-1]
        if width not in self.memory.ramps:
            self.memory.ramps[width] = torch.linspace(0, 1, width, device=x.device)
        return self.head((features * self.memory.ramps[width]).mean((2, 3)))


def test_a_cache_in_the_model_is_left_as_it_was():
    model = Remembering()
    secateur.prune(model, torch.zeros(2, 3, 12, 12), ratio=0.5)
    assert model.memory.ramps == {}
    model(torch.zeros(2, 3, 12, 12))


class Compares(Small):
    """Goes one way or the other by a width and a size of the picture."""

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = x * 2 if x.shape[1] < x.shape[2] else x * 3
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


def test_a_width_that_is_compared_in_size_stays():
    small, _ = secateur.prune(Compares(), torch.zeros(2, 3, 24, 24), ratio=0.5)
    assert small.first.weight.shape[0] == 16
    assert small.second.weight.shape[0] == 8
