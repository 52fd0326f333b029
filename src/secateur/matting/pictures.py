"""Pictures and alpha mattes from files and into files: upright, 8 bits a channel, whatever they were saved as."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from secateur.errors import DataError, RuntimeMissingError
from secateur.matting.layouts import Portrait
from secateur.models.pictures import in_grey
from secateur.runtimes.packages import require

MOST_PIXELS = 2**29  # 1.6 GB of colours; a file that claims more is taken for a decompression bomb
LOSSLESS = frozenset({".png", ".webp", ".tif", ".tiff"})  # what is written with transparency
WRITTEN = LOSSLESS | {".jpg", ".jpeg"}
_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"compress_level": 3},
    ".webp": {"lossless": True, "quality": 30, "method": 2},  # quality of a lossless file is how hard it tries
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
}
_GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_limit = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A picture, upright.

    Attributes:
        colours: (height, width, 3) of uint8; where it is transparent, whatever the file says.
        alpha: (height, width) of uint8, if it has transparency.
        profile: the ICC profile that its colours are meant in, if the file says.
        frames: how many the file holds; this is the first.
    """

    colours: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    frames: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.colours.shape[0], self.colours.shape[1]


def load_picture(source: Path | bytes, name: str | None = None) -> Picture:
    """Return the picture in a file, or in its bytes, which messages call `name`.

    The way it is to be turned (EXIF) is applied, 16 bits and floating point numbers become 8 bits, palettes, grey and
    CMYK become RGB. Of several frames the first is taken.

    Raises:
        DataError: it is broken, truncated, too large, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    with _opened(source, name) as (image, frames):
        return picture_of(image, frames)


def picture_of(image: Any, frames: int = 1) -> Picture:
    """Return a picture of Pillow's, which is upright, in the colours of `load_picture`."""
    profile = image.info.get("icc_profile")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = np.asarray(_in_rgb(image, profile))
    keeps_profile = image.mode in ("RGB", "RGBA", "P", "PA") and profile
    return Picture(colours, None if alpha is None else np.asarray(alpha), profile if keeps_profile else None, frames)


def opaque(colours: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Return colours (H, W, 3) of uint8 with grey under what is transparent, where a file may say anything."""
    if alpha is None:
        return colours
    share = alpha[..., None] / np.float32(255)
    return (colours * share + 128 * (1 - share)).astype(np.uint8)


def read_rgb(path: Path) -> np.ndarray:
    """Return a picture as (height, width, 3) of uint8, upright.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    return load_picture(path).colours


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


def read_pair(person: Portrait) -> tuple[np.ndarray, np.ndarray]:
    """Return a person's picture (H, W, 3), or foreground where there is none, and matte (H, W), both of uint8.

    Raises:
        DataError: a file is broken, or they are of different sizes.
    """
    source = person.image or person.foreground
    assert source is not None
    colours, alpha = read_rgb(source), read_alpha(person.alpha)
    if colours.shape[:2] != alpha.shape:
        one, other = (f"{values.shape[1]}x{values.shape[0]}" for values in (colours, alpha))
        raise DataError(
            f"{source} is {one} and {person.alpha} is {other}; a matte is of its picture's size. "
            "`secateur data check` lists all."
        )
    return colours, alpha


def stored_alpha(path: Path) -> np.ndarray:
    """Return a matte as (height, width) with the values that the file has, upright.

    They are of uint8 or uint16; a file of black and white alone gives booleans, one of floats float32.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    with _opened(path) as (image, _):
        if image.has_transparency_data:
            return np.asarray(image.convert("RGBA").getchannel("A"))
        if image.mode.startswith("I"):  # Pillow would cut it off at 255
            return np.asarray(image).astype(np.uint16)
        return np.asarray(image if image.mode in ("1", "F") else image.convert("L"))


def has_alpha(path: Path) -> bool:
    """Tell whether a picture has an alpha channel.

    Raises:
        DataError: it is broken, or no picture.
        RuntimeMissingError: Pillow is not installed.
    """
    with _opened(path) as (image, _):
        return bool(image.has_transparency_data)


def save_picture(target: Path | BinaryIO, pixels: np.ndarray, suffix: str, profile: bytes | None = None) -> None:
    """Write pixels (height, width[, 3 or 4]) of uint8 in the format of a suffix, one of `WRITTEN`.

    Raises:
        OSError: the file cannot be written, or its format holds no picture of this size.
    """
    image = require("PIL.Image").fromarray(pixels)
    told = {"icc_profile": profile} if profile and pixels.ndim == 3 else {}
    kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix.removeprefix(".").upper())
    try:
        image.save(target, format=kind, **_OPTIONS[suffix], **told)
    except (ValueError, OverflowError) as error:
        raise OSError(0, f"{kind} holds no picture of {image.width} x {image.height} pixels ({error})") from error


@contextmanager
def _opened(source: Path | bytes, name: str | None = None) -> Iterator[tuple[Any, int]]:
    """Open a picture, upright, with its number of frames; what goes wrong, also in the body, is a DataError."""
    with reading(name or source), open_image(source) as image:
        # The second picture in what cameras call MPO is a preview.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.seek(0)
        image.load()
        require("PIL.ImageOps").exif_transpose(image, in_place=True)
        yield image, frames


@contextmanager
def reading(name: object) -> Iterator[None]:
    """Wrap what opens and decodes a picture, which messages call `name`.

    Raises:
        DataError: something went wrong in the body.
        RuntimeMissingError: Pillow is not installed.
    """
    try:
        yield
    except RuntimeMissingError:
        raise
    except MemoryError:
        raise DataError(f"{name} does not fit into memory. Make it smaller.") from None
    except Exception as error:
        unknown = type(error).__name__ == "UnidentifiedImageError"
        why = "it has no format that is known" if unknown else str(error) or type(error).__name__
        raise DataError(f"{name} cannot be read as a picture: {why}. Take it out, or replace it.") from error


def open_image(source: Path | bytes) -> Any:
    """Open a picture of Pillow's, without its warning of sizes that cameras have.

    Raises:
        ValueError: it is too large, which is decided here.
        OSError: it cannot be read, or has no format that is known.
        RuntimeMissingError: Pillow is not installed.
    """
    pillow = require("PIL.Image")
    with _limit:
        before, pillow.MAX_IMAGE_PIXELS = pillow.MAX_IMAGE_PIXELS, None
        try:
            image = pillow.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        finally:
            pillow.MAX_IMAGE_PIXELS = before
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    return image


def _in_rgb(image: Any, profile: bytes | None) -> Any:
    if image.mode in _GREY:
        return in_grey(image).convert("RGB")
    if image.mode == "CMYK" and profile:
        return _by_profile(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_profile(image: Any, profile: bytes) -> Any:
    """Return the colours that a print's profile stands for, in sRGB."""
    management = require("PIL.ImageCms")
    try:
        return management.profileToProfile(
            image, io.BytesIO(profile), management.createProfile("sRGB"), outputMode="RGB"
        )
    except management.PyCMSError:  # a profile that is none
        return image.convert("RGB")
