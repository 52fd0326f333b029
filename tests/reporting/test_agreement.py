"""The picture of a simulated inference: the same outputs twice, and where they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.errors import ArtifactError
from secateur.reporting.agreement import draw_agreement


def test_outputs_stand_side_by_side_with_their_largest_difference(tmp_path: Path) -> None:
    from PIL import Image

    matte, colours = torch.rand(2, 1, 16, 24), torch.rand(1, 3, 16, 24)
    other = matte.clone()
    other[0, 0, 3, 5] += 0.25
    found = draw_agreement(
        {"matte": matte, "colours": colours}, {"matte": other, "colours": colours}, tmp_path / "a.png"
    )
    assert found == {"matte": pytest.approx(0.25), "colours": 0.0}
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("L"), float)
    height, width = drawn.shape
    bright = drawn[: height // 2, 2 * width // 3 :] > 200
    assert 0 < bright.mean() < 0.6  # one element of the difference is white in a black panel
    draw_agreement({"matte": matte}, {"matte": matte}, tmp_path / "same.svg")
    assert "at most 0.0e+00" in (tmp_path / "same.svg").read_text() or (tmp_path / "same.svg").stat().st_size > 5000


@pytest.mark.parametrize(
    ("found", "why"),
    [({}, "matte is missing"), ({"matte": torch.rand(1, 4)}, "of shape"), ({"matte": torch.rand(1, 1, 4, 4)}, "cut")],
)
def test_what_cannot_be_compared_is_named(found: dict[str, torch.Tensor], why: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=why):
        draw_agreement({"matte": torch.rand(1, 1, 5, 5)}, found, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
