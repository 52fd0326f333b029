from __future__ import annotations

import torch

from secateur.models import LeNet


def test_layers_are_those_of_the_article():
    shapes = {name: tuple(value.shape) for name, value in LeNet().named_parameters() if value.dim() > 1}
    assert shapes == {
        "conv1.weight": (6, 1, 3, 3),
        "conv2.weight": (16, 6, 3, 3),
        "fc1.weight": (120, 400),
        "fc2.weight": (84, 120),
        "fc3.weight": (10, 84),
    }


def test_scores_ten_digits():
    assert LeNet()(torch.rand(3, 1, 28, 28)).shape == (3, 10)
