"""What MODNet is trained on: its three published losses, and the same three towards a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

SEMANTIC, DETAIL, BAND = 10.0, 10.0, 4.0  # weights of the paper
Outputs = Sequence[torch.Tensor | None]  # semantic (N, 1, H/16, W/16), detail (N, 1, H, W), matte (N, 1, H, W)


def matting_losses(
    outputs: Outputs, image: torch.Tensor, matte: torch.Tensor, trimap: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the losses `semantic`, `detail` and `matte`, weighed as published (Ke et al., arXiv 2011.11961, eq. 2-5).

    Args:
        outputs: of the network: semantic map and detail, either of which may be None, and the matte.
        image: (N, 3, H, W) as the network takes it.
        matte: (N, 1, H, W), the truth.
        trimap: (N, 1, H, W): 0, 1, or anything between in the band around the edge.
    """
    semantic, detail, found = outputs
    assert found is not None
    band = (trimap > 0) & (trimap < 1)
    losses = {}
    if semantic is not None:
        losses["semantic"] = SEMANTIC * functional.mse_loss(semantic.float(), coarse(matte, semantic.shape[-2:]))
    if detail is not None:
        losses["detail"] = DETAIL * _apart(detail.float(), matte, band)
    error = (found.float() - matte).abs()
    colours = image.float().abs().mean(dim=1, keepdim=True)  # |I a - I b| = |I| |a - b|, on average over the channels
    edge = (torch.where(band, found.float(), trimap) - matte).abs()
    losses["matte"] = (error + BAND * edge + colours * (error + BAND * edge)).mean()
    return losses


def teaching_losses(outputs: Outputs, taught: Outputs, trimap: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return how far outputs are from a teacher's, with the weights of the published losses.

    Args:
        outputs: of the student.
        taught: of the teacher.
        trimap: (N, 1, H, W): the band around the edge counts more.
    """
    band = ((trimap > 0) & (trimap < 1)).float()
    losses = {}
    for name, one, other in zip(("semantic", "detail", "matte"), outputs, taught, strict=True):
        if one is None or other is None:
            continue
        if name == "semantic":
            losses["taught_semantic"] = SEMANTIC * functional.mse_loss(one.float(), other.float())
        elif name == "detail":
            losses["taught_detail"] = DETAIL * ((one.float() - other.float()).abs() * band).mean()
        else:
            losses["taught_matte"] = ((one.float() - other.float()).abs() * (1 + BAND * band)).mean()
    return losses


def semantic_entropy(found: torch.Tensor, matte: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of semantic maps (N, 1, h, w) to mattes (N, 1, H, W), blurred and reduced as published.

    The squared error of the paper's eq. 2 hardly moves a network that is sure and wrong, as before a person whom it
    does not see at all; this does.
    """
    truth = coarse(matte, found.shape[-2:])
    with torch.autocast(found.device.type, enabled=False):
        return functional.binary_cross_entropy(found.float(), truth.float())


def coarse(matte: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return a matte (N, 1, H, W) at the semantic map's size, blurred by a Gaussian of 3 x 3 and deviation 0.8."""
    small = functional.interpolate(matte, size=tuple(size), mode="bilinear", align_corners=False)
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], device=matte.device) ** 2) / (2 * 0.8**2))
    kernel = torch.outer(line, line)
    with torch.autocast(matte.device.type, enabled=False):
        return functional.conv2d(functional.pad(small, (1, 1, 1, 1), "reflect"), (kernel / kernel.sum())[None, None])


def _apart(found: torch.Tensor, matte: torch.Tensor, band: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference, counted in the band alone."""
    return ((found - matte).abs() * band).mean()
