"""Trained networks with their pictures: torchvision's MobileNetV2 on ImageNet, and two that are trained here."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from secateur.artifact.atomic import write_atomically
from secateur.models.checkpoints import load_checkpoint
from secateur.models.registry import zoo_entry
from secateur.training.classification import LabelledImages, accuracy, fit_classifier

RESULTS = Path(__file__).resolve().parents[1] / "results" / "recovery"
CALIBRATION = 192  # pictures


@dataclass(frozen=True)
class Subject:
    """A trained classifier; calibration and test pictures have nothing in common."""

    name: str
    model: nn.Module
    example: torch.Tensor
    calibration: LabelledImages  # the labels are for peers that want them, and for fine-tuning
    test: LabelledImages

    def batches(self) -> list[torch.Tensor]:
        """Return pictures without labels, drawn for calibration."""
        return list(self.calibration.images[:CALIBRATION].split(32))

    def score(self, model: nn.Module) -> float:
        """Return the share of test pictures that a model gets right, in percent."""
        return 100 * accuracy(model, self.test, batch=44)


def imagenet(data: Path, seed: int) -> Subject:
    """Return MobileNetV2 with the pictures of 192 classes to calibrate on, and those of 308 others to test on."""
    images, labels = _imagenet(data)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = [LabelledImages(images[part], labels[part]) for part in (order[:CALIBRATION], order[CALIBRATION:])]
    model = zoo_entry("mobilenetv2").build()
    load_checkpoint(model, data / "pretrained/mobilenet_v2-b0353104.pth")
    return Subject("MobileNetV2, ImageNet", model.eval(), torch.zeros(1, 3, 224, 224), *parts)


@cache
def _imagenet(data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    entry = zoo_entry("mobilenetv2")
    images, labels = [], []
    for path in sorted((data / "imagenet_samples").glob("*.jpg")):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        scale = 256 / min(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BILINEAR)
        left, top = ((side - 224) // 2 for side in picture.size)
        pixels = np.array(picture.crop((left, top, left + 224, top + 224)))
        images.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
        labels.append(int(path.name.split("_")[0]))
    return entry.prepared(torch.stack(images)), torch.tensor(labels)


def cifar(data: Path, seed: int = 0) -> Subject:
    """Return a ResNet trained here on a part of CIFAR-10."""
    train, test = (_cifar(data, part) for part in ("train", "test"))
    model = _trained("resnet-cifar", SmallResNet, train, epochs=14, flip=True)
    return Subject("ResNet, CIFAR-10", model, test.images[:1] * 0, _shuffled(train, seed), test)


@cache
def _cifar(data: Path, part: str) -> LabelledImages:
    images, labels, classes = [], [], []
    with zipfile.ZipFile(data / "classification/cifar10_subset.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(f"{part}/") and name.endswith(".jpg"):
                label = name.split("/")[1]
                classes += [] if label in classes else [label]
                with archive.open(name) as stream, Image.open(stream) as picture:
                    images.append(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1))
                labels.append(classes.index(label))
    return LabelledImages(torch.stack(images).float() / 127.5 - 1, torch.tensor(labels))


def mnist(data: Path, seed: int = 0, name: str = "ViT, MNIST") -> Subject:
    """Return a small vision transformer, or the zoo's LeNet, trained here on handwritten digits."""
    parts = []
    for file in ("mnist_train20k", "mnist_test5k"):
        with np.load(data / f"classification/{file}.npz") as found:
            arrays = {array.ndim: array for array in (found[key] for key in found.files)}
        images = torch.from_numpy(arrays[3] if 3 in arrays else arrays[4][:, 0]).float()[:, None]
        parts.append(LabelledImages((images / 255 - 0.1307) / 0.3081, torch.from_numpy(arrays[1]).long()))
    train, test = parts
    build: Callable[[], nn.Module] = SmallViT if name.startswith("ViT") else zoo_entry("lenet").build
    model = _trained(name.split(",", maxsplit=1)[0].lower() + "-mnist", build, train, epochs=5)
    return Subject(name, model, test.images[:1] * 0, _shuffled(train, seed), test)


def _shuffled(data: LabelledImages, seed: int) -> LabelledImages:
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    return LabelledImages(data.images[order], data.labels[order])


def _trained(
    name: str, build: Callable[[], nn.Module], data: LabelledImages, epochs: int, flip: bool = False
) -> nn.Module:
    """Train a network, or find the one that was trained before."""
    torch.manual_seed(0)
    model, path = build(), RESULTS / f"{name}.pt"
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    if flip:
        data = LabelledImages(torch.cat([data.images, data.images.flip(3)]), data.labels.repeat(2))
        epochs //= 2
    fit_classifier(
        model, data, epochs, batch=64, on_epoch=lambda epoch, loss: print(f"{name}: epoch {epoch}, loss {loss:.3f}")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path.with_suffix(".part"))
    write_atomically(path, path.with_suffix(".part").read_bytes())
    return model


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.a_norm = nn.BatchNorm2d(outputs)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.b_norm = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = self.b_norm(self.b(self.a_norm(self.a(x)).relu()))
        return (y + self.short(x)).relu()


class SmallResNet(nn.Module):
    """Six blocks, 16 to 64 channels, for pictures of 32x32 (after He et al., arXiv 1512.03385)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(
            Block(16, 16, 1),
            Block(16, 16, 1),
            Block(16, 32, 2),
            Block(32, 32, 1),
            Block(32, 64, 2),
            Block(64, 64, 1),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of ten classes."""
        return self.head(self.blocks(self.norm(self.stem(x)).relu()).mean((2, 3)))


class Layer(nn.Module):
    """Attention and a perceptron, each beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, tokens, width) to the same."""
        y = self.first(x)
        q, k, v = (self._split(layer(y)) for layer in (self.q, self.k, self.v))
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.second(x))))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class SmallViT(nn.Module):
    """Four layers on patches of 4x4, for pictures of 28x28 (after Dosovitskiy et al., arXiv 2010.11929)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 49, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, 4) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of ten classes."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(tokens)).mean(1))
