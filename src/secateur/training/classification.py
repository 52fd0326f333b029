"""Train and score a small classifier that fits in memory: enough to see a pruned network recover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from secateur.errors import RuntimeMissingError


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, C, H, W) in float32 and their classes (N,) in int64."""

    images: torch.Tensor
    labels: torch.Tensor


def load_digits(size: int = 28) -> tuple[LabelledImages, LabelledImages]:
    """Return scikit-learn's handwritten digits (1,797 scans, in its wheel) as a training and a test set.

    Every fifth scan is held out for the test. They are enlarged from 8x8 to `size` x `size`, and scaled to [-1, 1].

    Raises:
        RuntimeMissingError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise RuntimeMissingError(
            "The digits come with scikit-learn, which is not installed. Install it with: pip install 'secateur[demo]'."
        ) from None
    pixels, classes = datasets.load_digits(return_X_y=True)
    scans = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    images = functional.interpolate(scans, size=(size, size), mode="bilinear", align_corners=False)
    labels = torch.as_tensor(classes, dtype=torch.int64)
    held_out = torch.arange(len(labels)) % 5 == 0
    return LabelledImages(images[~held_out], labels[~held_out]), LabelledImages(images[held_out], labels[held_out])


def fit_classifier(
    model: nn.Module,
    data: LabelledImages,
    epochs: int,
    rate: float = 2e-3,
    batch: int = 32,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train `model` in place with Adam on the cross-entropy, the rate falling to nought; the same seed, the same model.

    `on_epoch` is given the number of the epoch, from 1, and its mean loss.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(data.labels) // batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for epoch in range(1, epochs + 1):
        losses = []
        for chosen in torch.randperm(len(data.labels), generator=generator).split(batch):
            loss = functional.cross_entropy(model(data.images[chosen]), data.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if on_epoch is not None:
            on_epoch(epoch, sum(losses) / len(losses))
    model.eval()


@torch.inference_mode()
def accuracy(model: nn.Module, data: LabelledImages, batch: int = 256) -> float:
    """Return the share of images whose class `model` gets right, in evaluation mode."""
    model.eval()
    right = sum(
        int((model(images).argmax(dim=1) == labels).sum())
        for images, labels in zip(data.images.split(batch), data.labels.split(batch), strict=True)
    )
    return right / len(data.labels)
