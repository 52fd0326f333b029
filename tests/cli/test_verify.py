"""`secateur verify`: files in any dtype, trained or not."""

from __future__ import annotations

import pytest
import torch

import secateur as library
from secateur.models import LeNet


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("when", ["before", "after"])
def test_files_of_any_dtype_are_proved(secateur, dtype, when):
    x = torch.zeros(1, 1, 28, 28)
    model = LeNet().eval()
    torch.save(model.state_dict(), secateur.folder / "original.pth")
    if when == "before":
        model, x = model.to(dtype), x.to(dtype)
    small, plan = library.prune(model, x, ratio=0.5)
    library.save(secateur.folder / "small.safetensors", small.to(dtype), plan)
    result = secateur("verify", "small.safetensors", "--against", "original.pth")
    assert result.code == 0, result.err
    assert "values identical" in result.out
    assert secateur("analyze", "small.safetensors").code == 0


def test_the_shipped_network_is_proved(secateur):
    from secateur.artifact.shipped import shipped

    result = secateur("verify", str(shipped("modnet-small")))
    assert result.code == 0, result.err
    assert "structure sound" in result.out
