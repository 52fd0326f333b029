"""A small classifier is trained the same way by the same seed, and learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.training.classification import LabelledImages, accuracy, fit_classifier, load_digits


def test_it_learns_and_the_seed_decides():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, 1, 4, 4, generator=generator)
    data = LabelledImages(images, (images.mean(dim=(1, 2, 3)) > 0).long())
    found, losses = [], []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        fit_classifier(model, data, epochs=10, rate=0.05, seed=3, on_epoch=lambda _, loss: losses.append(loss))
        found.append(model[1].weight.detach().clone())
    assert torch.equal(*found)
    assert losses[9] < losses[0]
    assert accuracy(model, data) > 0.9
    assert not model.training


def test_digits_are_split_without_overlap():
    pytest.importorskip("sklearn")
    train, test = load_digits()
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 28, 28)
    assert len(train.labels) + len(test.labels) == 1797
    assert test.labels.unique().numel() == 10
    assert -1 <= train.images.min() < train.images.max() <= 1
