"""The trained networks that come with secateur: files of its own beside the code, with a card each."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from secateur.artifact.reading import load
from secateur.errors import ArtifactError, nearest

FOLDER = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"


def trained_networks() -> tuple[str, ...]:
    """Return the names of the networks whose trained weights come with secateur."""
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}")))


def shipped(name: str) -> Path:
    """Return the file of a network that comes trained.

    Raises:
        ArtifactError: there is none of that name; offers the nearest.
    """
    known = trained_networks()
    if name not in known:
        raise ArtifactError(f"No trained network {name!r} comes with secateur.{nearest(name, known)}")
    return FOLDER / f"{name}{SUFFIX}"


def shipped_int8(name: str, suffix: str) -> Path | None:
    """Return the INT8 file of a network that comes trained: `.onnx` or, for OpenVINO, `.xml`; None if there is none."""
    path = FOLDER / f"{name}-int8{suffix}"
    return path if path.is_file() else None


def pretrained(name: str) -> nn.Module:
    """Return a network that comes trained, in float32 and in evaluation mode: `modnet` or `modnet-small`.

    Both take pictures (N, 3, H, W) with values of -1 to 1, height and width multiples of 32, and return the coarse
    matte, the detail and the matte (N, 1, H, W) with values of 0 to 1; see the cards beside the files.

    Raises:
        ArtifactError: there is none of that name; offers the nearest.

    Example:
        >>> import torch
        >>> with torch.no_grad():
        ...     pretrained("modnet-small")(torch.zeros(1, 3, 64, 64), inference=True)[2].shape
        torch.Size([1, 1, 64, 64])
    """
    return load(shipped(name)).float()
