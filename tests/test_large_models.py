"""Models too large for a test's memory: built, traced, planned and cut without a weight in memory."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

import secateur
from tests import torchvision_operators

LARGE = ("convnext_large", "vit_l_16")


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("criterion", ["random", "uniform"])
def test_a_large_model_is_cut_on_tensors_without_data(name, criterion):
    if not torchvision_operators.declare():
        pytest.skip("torchvision is not installed")
    from torchvision.models import get_model

    with torch.device("meta"):
        model = get_model(name, weights=None).eval()
        picture = torch.zeros(1, 3, 224, 224)
    tracemalloc.start()
    graph = secateur.trace(model, picture)
    small = secateur.cut(model, secateur.plan(graph, model, ratio=0.5, criterion=criterion))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(tensor.is_meta for tensor in (*small.parameters(), *small.buffers()))
    before, after = (sum(parameter.numel() for parameter in each.parameters()) for each in (model, small))
    assert after < 0.3 * before
    assert small(picture).shape == (1, 1000)
    assert peak < 2**30
    proof = secateur.verify(model, small, secateur.plan(graph, model, ratio=0.5, criterion=criterion), picture, graph)
    assert proof.structure


@pytest.mark.parametrize("criterion", ["random", "uniform"])
def test_a_model_is_pruned_where_everything_is_made_without_data(criterion):
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        small, _ = secateur.prune(model, torch.zeros(1, 3, 9, 9), ratio=0.5, criterion=criterion, min_channels=1)
    assert small[0].weight.is_meta
    assert small[0].weight.shape == (4, 3, 3, 3)
