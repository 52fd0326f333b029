"""MODNet's losses, against values worked out by hand."""

import pytest
import torch

from secateur.errors import TrainingError
from secateur.matting.losses import coarse, matting_losses, semantic_entropy, teaching_losses
from secateur.matting.recovering import Matting, triple
from secateur.models import MODNet


def test_the_truth_costs_nothing():
    matte = torch.zeros(1, 1, 64, 64)
    matte[..., 20:, :] = 1
    trimap = torch.where(torch.arange(64).view(-1, 1).sub(20).abs() < 4, 0.5, matte)
    outputs = (coarse(matte, (4, 4)), matte, matte)
    losses = matting_losses(outputs, torch.ones(1, 3, 64, 64), matte, trimap)
    assert {name: float(loss) for name, loss in losses.items()} == {"semantic": 0, "detail": 0, "matte": 0}


def test_cross_entropy_pulls_at_what_is_surely_wrong_and_the_square_does_not():
    matte = torch.ones(1, 1, 64, 64)
    slopes = {}
    for name, loss in {"entropy": semantic_entropy, "square": lambda one, _: (one - 1).square().mean()}.items():
        logit = torch.full((1, 1, 4, 4), -6.0, requires_grad=True)
        loss(logit.sigmoid(), matte).backward()
        slopes[name] = float(logit.grad.abs().sum())
    assert slopes["entropy"] == pytest.approx(1, abs=0.01)
    assert slopes["square"] < 0.01


def test_losses_are_weighed_as_published():
    # Half of the pixels lie in the band, everything is off by 0.1, and the image is 0.5 everywhere.
    matte = torch.full((1, 1, 32, 32), 0.5)
    trimap = torch.full_like(matte, 0.5)
    trimap[..., :16] = 1
    matte[..., :16] = 1
    off = matte - 0.1
    losses = matting_losses((coarse(matte, (2, 2)) - 0.1, off, off), torch.full((1, 3, 32, 32), -0.5), matte, trimap)
    assert float(losses["semantic"]) == pytest.approx(10 * 0.01)
    assert float(losses["detail"]) == pytest.approx(10 * 0.1 / 2)
    assert float(losses["matte"]) == pytest.approx(1.5 * (0.1 + 4 * 0.1 / 2))


def test_the_semantic_target_is_a_blurred_matte():
    matte = torch.zeros(1, 1, 80, 80)
    matte[..., 32:48, 32:48] = 1
    target = coarse(matte, (5, 5))
    assert float(target.sum()) == pytest.approx(1, abs=1e-5)
    side = torch.exp(torch.tensor(-1 / (2 * 0.64)))
    assert float(target[0, 0, 2, 2]) == pytest.approx(float(1 / (1 + 2 * side) ** 2), rel=1e-5)


def test_a_teacher_that_says_the_same_costs_nothing():
    outputs = (torch.rand(1, 1, 2, 2), torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    trimap = torch.full((1, 1, 32, 32), 0.5)
    assert all(float(loss) == 0 for loss in teaching_losses(outputs, outputs, trimap).values())
    worse = tuple(one + 0.1 for one in outputs)
    assert float(teaching_losses(worse, outputs, trimap)["taught_matte"]) == pytest.approx(0.5, rel=1e-4)


def test_every_weight_of_modnet_learns():
    torch.manual_seed(0)
    model = MODNet().train()
    sample = {
        "image": torch.rand(2, 3, 64, 64),
        "matte": torch.rand(2, 1, 64, 64),
        "trimap": torch.full((2, 1, 64, 64), 0.5),
    }
    task = Matting((0.5,) * 3, (0.5,) * 3)
    sum(task.losses(model, sample).values()).backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in model.parameters())


def test_networks_with_a_matte_alone_are_trained_on_that():
    matte = torch.rand(1, 1, 8, 8)
    assert triple(matte)[2] is matte
    with pytest.raises(TrainingError, match="returns dict"):
        triple({"matte": matte})
