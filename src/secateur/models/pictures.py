"""Pictures from a folder, as a model wants them: its size, its channels, its mean and deviation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from secateur.errors import DataError, RuntimeMissingError

T = TypeVar("T")
_DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})  # Pillow's grey of more than 8 bits
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})


def pictures_in(folder: str | Path, most: int | None = None) -> list[Path]:
    """List the pictures in a folder, by name; of more than `most` so many, evenly spread.

    Folders in it are not looked into: data sets keep masks and trimaps beside their pictures.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{folder} is no folder. Give one with pictures in it.")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        inner = sorted(path.name for path in place.iterdir() if path.is_dir())
        hint = f" It holds the folders {', '.join(inner[:8])}: name one of these." if inner else ""
        raise DataError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))}).{hint or ' Give another.'}")
    return evenly_spread(found, most)


def evenly_spread(found: Sequence[T], most: int | None) -> list[T]:
    """Return `most` of what was found, evenly spread; all of it if there are no more.

    Example:
        >>> evenly_spread("abcdefgh", 4)
        ['a', 'c', 'e', 'g']
    """
    if most is None or len(found) <= most:
        return list(found)
    return [found[number * len(found) // most] for number in range(most)]


def read_picture(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Return a picture as (channels, height, width) with values in [0, 1], upright, resized to `size`.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    image_module, operations = _pillow()
    try:
        with image_module.open(path) as opened:
            upright = operations.exif_transpose(opened)
            upright = (in_grey(upright) if upright.mode in _DEEP else upright).convert("L" if channels == 1 else "RGB")
            smaller = upright.width >= size[1] and upright.height >= size[0]
            filtered = image_module.Resampling.BOX if smaller else image_module.Resampling.BILINEAR
            values = np.asarray(upright.resize((size[1], size[0]), filtered), np.float32) / 255
    except Exception as error:
        raise DataError(f"{path} cannot be read as a picture: {error}. Take it out, or replace it.") from error
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def prepared_pictures(
    paths: Sequence[Path], shape: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> Iterator[torch.Tensor]:
    """Yield inputs (1, channels, height, width) for a model whose input is of this shape: `(picture - mean) / std`.

    Raises:
        DataError: a picture is broken, the shape is not one of pictures, or mean and std do not fit it.
    """
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise DataError(f"An input of {'x'.join(map(str, shape))} is no picture: 1 or 3 channels are wanted.")
    centre, scale = (np.array(numbers(values, shape[1]), np.float32).reshape(-1, 1, 1) for values in (mean, std))
    if not centre.size or not scale.size or scale.min() <= 0:
        raise DataError(
            f"The model's pre-processing says mean={mean}, std={std}, and its pictures have {shape[1]} channels. Save "
            f"it with {shape[1]} numbers for each, those of std above 0."
        )
    for path in paths:
        picture = read_picture(path, shape[1], (shape[2], shape[3]))
        yield torch.from_numpy((picture - centre) / scale)[None]


def numbers(value: Any, count: int) -> tuple[float, ...]:
    """Return so many finite numbers; none if the value is anything else."""
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return ()
    return tuple(found.tolist()) if found.shape == (count,) and np.isfinite(found).all() else ()


def in_grey(image: Any) -> Any:
    """Return a picture of Pillow's in grey of 8 bits; 16 bits and floating point numbers keep their tones."""
    if image.mode not in _DEEP:
        return image.convert("L")
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        values = values * 255 if np.nanmax(values, initial=0) <= 1 else values
    elif image.mode != "I" or values.max(initial=0) > 255:
        values = values / 257
    values = np.nan_to_num(values).clip(0, 255)
    return _pillow()[0].fromarray((values + np.float32(0.5)).astype(np.uint8))


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise RuntimeMissingError("Pillow is not installed. Run: pip install 'secateur[matting]'") from None
    return Image, ImageOps
