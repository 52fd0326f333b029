"""What each reason holds is what would go if it alone were lifted, with one channel left of everything else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from secateur.measurement.prunable import NEVER_RUN, coverage, held_shares


class Windowed(nn.Module):
    """The first layer's channels are held by a convolution that slides along them; one layer is never run."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.last, self.head, self.spare = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1), nn.Linear(10, 10)

    def forward(self, x):
        x = self.norm(self.first(x))
        return self.head(self.last(x * self.along(x.mean((2, 3))[:, None]).transpose(1, 2)[..., None]))


@pytest.fixture(scope="module")
def graph():
    return secateur.trace(Windowed(), torch.zeros(1, 3, 10, 10))


def test_a_reason_holds_all_that_only_it_keeps(graph):
    window = held_shares(graph)[0]
    total = sum(parameter.numel() for parameter in Windowed().parameters())
    assert "window" in window.reason
    assert window.layers == ("first", "norm")
    assert window.params == pytest.approx((16 * 3 * 9 + 16 + 2 * 16) / total)


def test_macs_are_held_by_the_layers_weights(graph):
    window = held_shares(graph)[0]
    assert window.macs * graph.costs.macs() == pytest.approx(16 * 3 * 9 * 8 * 8)


def test_layers_that_never_run_are_a_reason(graph):
    spare = next(share for share in held_shares(graph) if share.reason == NEVER_RUN)
    assert spare.layers == ("spare",)
    assert spare.params == pytest.approx(110 / graph.costs.params())


def test_all_reasons_together_hold_at_least_what_cannot_be_cut(graph):
    assert sum(share.params for share in held_shares(graph)) >= 1 - coverage(graph).params - 0.02
