"""`convert`: the two ways in which people keep pruned models become one safe file, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import secateur
from secateur.artifact.conversion import convert
from secateur.errors import ArtifactError
from secateur.models import LeNet

EXAMPLE = torch.rand(2, 1, 28, 28)


class Own(nn.Module):
    """A model that is not of the zoo."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 16, 3), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(params=[LeNet, Own])
def pruned(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = request.param().eval()
    small, plan = secateur.prune(model, EXAMPLE, ratio=0.5, min_channels=1)
    secateur.save("small.safetensors", small, plan)
    return model, small, plan


def full(model):
    return None if isinstance(model, LeNet) else Own()


def test_parameters_and_plan_come_out_and_go_in_again(pruned):
    model, small, plan = pruned
    assert convert("small.safetensors", "plan.json") == "the plan alone, as JSON"
    assert convert("small.safetensors", "small.pth") == "the parameters alone"
    assert secateur.Plan.from_json(Path("plan.json").read_text()) == plan
    stored = torch.load("small.pth", weights_only=True)
    assert all(torch.equal(stored[name], tensor) for name, tensor in small.state_dict().items())
    convert("small.pth", "again.safetensors", model=type(model)(), plan="plan.json")
    again = secateur.load("again.safetensors", into=full(model)).eval()
    assert torch.equal(again(EXAMPLE), small(EXAMPLE))


def test_a_plan_alone_is_applied_to_any_checkpoint_of_the_model(pruned):
    model, _, plan = pruned
    torch.manual_seed(5)
    other = type(model)().eval()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in other.state_dict().items()}}, "other.pth")
    convert("small.safetensors", "plan.json")
    convert("other.pth", "other.safetensors", model=type(model)(), plan="plan.json")
    again = secateur.load("other.safetensors", into=full(model)).eval()
    assert torch.equal(again(EXAMPLE), secateur.cut(other, plan)(EXAMPLE))


def test_a_whole_model_goes_through_a_pickle_that_is_trusted(pruned):
    model, small, _ = pruned
    convert("small.safetensors", "whole.pth", model=full(model), whole=True)
    with pytest.raises(ArtifactError, match=r"weights without a model.*trust=True"):
        convert("whole.pth", "weights.pth")
    convert("whole.pth", "weights.pth", trust=True)
    stored = torch.load("weights.pth", weights_only=True)
    assert all(torch.equal(stored[name], tensor) for name, tensor in small.state_dict().items())
    with pytest.raises(ArtifactError, match="has no plan"):
        convert("whole.pth", "again.safetensors", trust=True)
    convert("small.safetensors", "plan.json")
    convert("whole.pth", "again.safetensors", trust=True, plan="plan.json")
    again = secateur.load("again.safetensors", into=full(model)).eval()
    assert torch.equal(again(EXAMPLE), small(EXAMPLE))


def test_what_does_not_fit_is_refused_and_nothing_is_written(pruned, tmp_path):
    model, _, _ = pruned
    torch.save(nn.Linear(3, 4).state_dict(), "other.pth")
    convert("small.safetensors", "plan.json")
    with pytest.raises(ArtifactError, match=r"does not fit .* Nor does it fit as one that is small already"):
        convert("other.pth", "out.safetensors", model=type(model)(), plan="plan.json")
    with pytest.raises(ArtifactError, match="is no plan"):
        convert("other.pth", "out.safetensors", model=type(model)(), plan="other.pth")
    with pytest.raises(ArtifactError, match=r"names no form that is known"):
        convert("small.safetensors", "out.onnx")
    with pytest.raises(ArtifactError, match="cannot be read"):
        convert("nowhere.safetensors", "out.pth")
    assert not list(tmp_path.glob("out*"))
