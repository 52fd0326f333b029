"""`prune` as a whole: what fails the proof is left whole, and typing errors are answered."""

from __future__ import annotations

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
