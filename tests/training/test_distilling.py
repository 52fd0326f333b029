"""A student's features are compared with those of its teacher that it kept, wherever a layer has its channels."""

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import TrainingError
from secateur.training.distilling import Teacher, feature_loss, watched


def test_a_student_is_compared_with_the_channels_that_it_kept():
    torch.manual_seed(0)
    full = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    x = torch.randn(2, 3, 12, 12)
    small, plan = secateur.prune(full, x, ratio=0.5)
    teacher = Teacher(full, plan, ["0"])
    with watched(small, ["0"]) as features:
        small(x)
    _, wanted = teacher(x)
    assert wanted["0"].shape[1] == 8
    assert feature_loss(features, wanted).item() < 1e-12  # nothing before this layer was cut
    with pytest.raises(TrainingError, match="no layer 'O'"):
        Teacher(full, plan, ["O"])


def test_a_teacher_that_the_student_was_not_cut_out_of_is_refused():
    full = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    small, plan = secateur.prune(full, torch.zeros(1, 3, 8, 8), ratio=0.5)
    with pytest.raises(TrainingError, match=r"teacher's 0 has 8 channels, and the network .* had 16. Give that one"):
        Teacher(small, plan, ["0"])


class Mixed(nn.Module):
    """A convolution, a transposed one, and layers whose channels come last."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 16, 3, padding=1), nn.ConvTranspose2d(16, 24, 2, stride=2)
        self.fc, self.norm, self.out = nn.Linear(24, 40), nn.LayerNorm(40), nn.Linear(40, 5)

    def forward(self, x):
        x = torch.relu(self.up(torch.relu(self.conv(x))))
        return self.out(torch.relu(self.norm(self.fc(x.flatten(2).transpose(1, 2)))))


def test_channels_are_taken_where_a_layer_has_them():
    torch.manual_seed(0)
    full, x = Mixed().eval(), torch.rand(2, 3, 8, 8)
    small, plan = secateur.prune(full, x, ratio={"conv": 0.25, "up": 0.5, "fc": 0.3}, min_channels=1)
    layers = ["conv", "up", "fc", "norm"]
    with watched(small, layers) as features:
        small(x)
    outputs, wanted = Teacher(full, plan, layers)(x)
    assert outputs.shape == (2, 256, 5)
    for layer in layers:
        assert features[layer].shape == wanted[layer].shape
    with watched(full, layers) as whole:
        full(x)
    assert torch.equal(wanted["up"], whole["up"][:, list(plan.keep["up.weight"][1])])
    assert torch.equal(wanted["fc"], whole["fc"][..., list(plan.keep["fc.weight"][0])])
    assert torch.equal(wanted["norm"], whole["norm"][..., list(plan.keep["norm.weight"][0])])
    assert feature_loss(features, wanted).isfinite()
