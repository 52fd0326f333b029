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
    opened = _opened(path)
    return np.asarray(opened.getchannel("A") if "A" in opened.getbands() else opened.convert("L"))


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
