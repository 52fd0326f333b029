"""The keys and shapes of the published MODNet checkpoint, spelt out from its description and not from our modules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch

Keys = dict[str, tuple[int, ...]]

# Each inverted residual block of the backbone: channels in, expanded, out.
WIDTHS = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
BLOCKS = [(i, i if place == 0 else 6 * i, o) for place, (i, o) in enumerate(pairwise(WIDTHS))]

# Name, in, out, kernel of every convolution with IBNorm; the last three have none.
CONVOLUTIONS = [
    ("lr_branch.conv_lr16x", 1280, 96, 5),
    ("lr_branch.conv_lr8x", 96, 32, 5),
    ("lr_branch.conv_lr", 32, 1, 3),
    ("hr_branch.tohr_enc2x", 16, 32, 1),
    ("hr_branch.conv_enc2x", 35, 32, 3),
    ("hr_branch.tohr_enc4x", 24, 32, 1),
    ("hr_branch.conv_enc4x", 64, 64, 3),
    ("hr_branch.conv_hr4x.0", 99, 64, 3),
    ("hr_branch.conv_hr4x.1", 64, 64, 3),
    ("hr_branch.conv_hr4x.2", 64, 32, 3),
    ("hr_branch.conv_hr2x.0", 64, 64, 3),
    ("hr_branch.conv_hr2x.1", 64, 32, 3),
    ("hr_branch.conv_hr2x.2", 32, 32, 3),
    ("hr_branch.conv_hr2x.3", 32, 32, 3),
    ("hr_branch.conv_hr.0", 35, 32, 3),
    ("hr_branch.conv_hr.1", 32, 1, 1),
    ("f_branch.conv_lr4x", 32, 32, 5),
    ("f_branch.conv_f2x", 64, 32, 3),
    ("f_branch.conv_f.0", 35, 16, 3),
    ("f_branch.conv_f.1", 16, 1, 1),
]


def modnet_keys() -> Keys:
    """Return the 751 keys, without the `module.` before each."""
    keys = {f"backbone.model.{key}": shape for key, shape in backbone_keys().items()}
    keys |= {f"lr_branch.{key}": shape for key, shape in keys.items()}
    keys |= {"lr_branch.se_block.fc.0.weight": (320, 1280), "lr_branch.se_block.fc.2.weight": (1280, 320)}
    for name, in_channels, out_channels, kernel in CONVOLUTIONS:
        keys[f"{name}.layers.0.weight"] = (out_channels, in_channels, kernel, kernel)
        keys[f"{name}.layers.0.bias"] = (out_channels,)
        if out_channels > 1:
            keys |= _norm(f"{name}.layers.1.bnorm", out_channels // 2)
    return keys


def backbone_keys() -> Keys:
    """Return the 312 keys of MobileNetV2's features."""
    keys: Keys = {}
    keys |= _conv_and_norm("features.0.0", "features.0.1", (32, 3, 3, 3))
    for place, (narrow, wide, out_channels) in enumerate(BLOCKS, start=1):
        layer = _numbers(f"features.{place}.conv.")
        if wide > narrow:
            keys |= _conv_and_norm(*next(layer), (wide, narrow, 1, 1))
        keys |= _conv_and_norm(*next(layer), (wide, 1, 3, 3))
        keys |= _conv_and_norm(*next(layer), (out_channels, wide, 1, 1))
    return keys | _conv_and_norm("features.18.0", "features.18.1", (1280, 320, 1, 1))


def as_torchvision_nests(key: str) -> str:
    """Return a key of MobileNetV2 as torchvision names it: convolution, norm and activation in a block of their own."""
    parts = key.split(".")
    if parts[0] == "classifier":
        return key.replace("classifier", "classifier.1")
    if parts[2] != "conv":
        return key
    projection = 3 if parts[1] == "1" else 6
    layer = int(parts[3])
    nested = f"{layer // 3}.{layer % 3}" if layer < projection else str(projection // 3 + layer - projection)
    return ".".join([*parts[:3], nested, *parts[4:]])


def _numbers(prefix: str) -> Iterator[tuple[str, str]]:
    return ((f"{prefix}{place}", f"{prefix}{place + 1}") for place in (0, 3, 6))


def _conv_and_norm(conv: str, norm: str, shape: tuple[int, ...]) -> Keys:
    return {f"{conv}.weight": shape} | _norm(norm, shape[0])


def _norm(name: str, channels: int) -> Keys:
    vectors = {f"{name}.{vector}": (channels,) for vector in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}


def write_published(path: Path) -> None:
    """Write a checkpoint as it was published, pickled and with `module.` before every key, of random weights."""
    drawn: dict[str, torch.Tensor] = {}
    for key, shape in modnet_keys().items():
        if key.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        elif len(shape) > 1:
            value = torch.randn(shape) * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        else:
            value = torch.full(shape, float(key.endswith(("running_var", "weight"))))
        drawn[key] = drawn.get(key.removeprefix("lr_branch."), value)
    torch.save({f"module.{key}": value for key, value in drawn.items()}, path)
