"""The part of MODNet that tells where people are learns alone, and says so where there is none."""

import pytest
import torch

from secateur.errors import TrainingError
from secateur.matting.locating import Locating, Locator
from secateur.models import MobileNetV2, MODNet


@pytest.fixture
def batch():
    """Two pictures that are bright where somebody is."""
    matte = torch.zeros(2, 1, 64, 64)
    matte[0, :, 32:], matte[1, :, :, :32] = 1, 1
    return {"image": matte.expand(-1, 3, -1, -1) * 0.8 + 0.1, "matte": matte}


def test_it_learns_where_somebody_is_and_nothing_else(batch):
    torch.manual_seed(0)
    model, task = MODNet(), Locating((0.5,) * 3, (0.5,) * 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    locator = Locator(model).train()
    optimizer = torch.optim.Adam(locator.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = task.losses(locator, batch)["semantic"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"backbone", "lr_branch"}


def test_a_network_without_that_branch_is_refused():
    with pytest.raises(TrainingError, match="MobileNetV2 has no lr_branch"):
        Locator(MobileNetV2())
