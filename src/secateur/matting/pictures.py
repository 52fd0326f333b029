"""Pictures and alpha mattes from files: upright, 8 bits a channel, whatever they were saved as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from secateur.errors import DataError, RuntimeMissingError


def read_rgb(path: Path) -> np.ndarray:
    """Return a picture as (height, width, 3) of uint8, upright.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    return np.asarray(_opened(path).convert("RGB"))


def read_alpha(path: Path) -> np.ndarray:
    """Return a matte as (height, width) of uint8, upright: the alpha channel where there is one, or else the grey.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    values = stored_alpha(path)
    if values.dtype == np.uint8:
        return values
    largest = np.iinfo(values.dtype).max if values.dtype == np.uint16 else 1
    return np.rint(np.clip(values / largest, 0, 1) * 255).astype(np.uint8)


def stored_alpha(path: Path) -> np.ndarray:
    """Return a matte as (height, width) with the values that the file has, upright.

    They are of uint8 or uint16; a file of black and white alone gives booleans, one of floats float32.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    opened = _opened(path)
    if "A" in opened.getbands():
        return np.asarray(opened.getchannel("A"))
    if opened.mode.startswith("I"):  # Pillow would cut it off at 255
        return np.asarray(opened).astype(np.uint16)
    return np.asarray(opened if opened.mode in ("1", "F") else opened.convert("L"))


def has_alpha(path: Path) -> bool:
    """Tell whether a picture has an alpha channel.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    return "A" in _opened(path).getbands()


def _opened(path: Path) -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise RuntimeMissingError("Pillow is not installed. Run: pip install 'secateur[matting]'") from None
    try:
        with Image.open(path) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened)
    except Exception as error:
        raise DataError(f"{path} cannot be read as a picture: {error}. Take it out, or replace it.") from error
