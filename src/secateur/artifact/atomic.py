"""Files and folders that are there whole or not at all: written beside their place, then moved into it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from secateur.errors import ArtifactError

T = TypeVar("T")


def check_writable(path: str | Path) -> Path:
    """Make sure that a file can be written at `path`, before the long work that fills it; nothing is left behind.

    Raises:
        ArtifactError: the folder is missing or closed, or something that is no file lies there.

    Example:
        >>> check_writable("small.safetensors").name
        'small.safetensors'
    """
    place = _place(path)
    beside = _beside(place)
    try:
        _create(beside)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        _remove(beside)
    return place


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` in one step: readers see the old file or the new one, never half of it.

    Raises:
        ArtifactError: the file cannot be written; what was there before is untouched.
    """
    fill_atomically(path, lambda beside: beside.write_bytes(data))


def fill_atomically(path: str | Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a file beside `path`, then move it into place; it is removed if anything goes wrong.

    Raises:
        ArtifactError: the file cannot be written; what was there before is untouched.
    """
    fill_together({path: fill})


def fill_together(fills: Mapping[str | Path, Callable[[Path], object]]) -> None:
    """Let files that belong together be written beside their places; only when all are there they move, in this order.

    Raises:
        ArtifactError: one of them cannot be written; what was there before is untouched.
    """
    placed = [(path, place := _place(path), _beside(place)) for path in fills]
    path = next(iter(fills), "")
    try:
        for path, _, beside in placed:
            _create(beside)
            fills[path](beside)
            _flush(beside)
        for _, place, beside in placed:
            beside.replace(place)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        for _, _, beside in placed:
            _remove(beside)


def ensure_folder(path: str | Path) -> Path:
    """Make a folder, and those that it is to lie in, unless they are there.

    Raises:
        ArtifactError: it cannot be made.
    """
    place = Path(path).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None
    return place


def check_new_folder(path: str | Path) -> Path:
    """Make sure that a folder can be made at `path`, before the long work that fills it; nothing is left behind.

    Raises:
        ArtifactError: something lies there that is no empty folder, or the folder around it is missing or closed.

    Example:
        >>> check_new_folder("shipped").name
        'shipped'
    """
    place = _new_folder(path)
    beside = _beside(place)
    try:
        beside.mkdir()
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def fill_folder_atomically(path: str | Path, fill: Callable[[Path], T]) -> T:
    """Let `fill` write into a folder beside `path`, then move that into place; it is removed if anything goes wrong.

    Returns what `fill` does.

    Raises:
        ArtifactError: something lies there that is no empty folder, or the folder cannot be written.
    """
    place = _new_folder(path)
    beside = _beside(place)
    try:
        beside.mkdir()
        filled = fill(beside)
        for file in beside.iterdir():
            _flush(file)
        beside.replace(place)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return filled


def _place(path: str | Path) -> Path:
    try:
        place = Path(path).expanduser().resolve()
        taken = place.exists() and not place.is_file()
        found = place.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot_write(path, error) from None
    if taken:
        raise ArtifactError(f"{path} cannot be written: it is there already and is no file. Give another name.")
    if not found:
        raise _no_parent(path, place)
    return place


def _new_folder(path: str | Path) -> Path:
    try:
        place = Path(path).expanduser().resolve()
        taken = _taken_by(place)
        found = place.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot_write(path, error) from None
    if taken:
        raise ArtifactError(
            f"{path} cannot be written: it is there already and is {taken}. Name a folder that is not there yet."
        )
    if not found:
        raise _no_parent(path, place)
    return place


def _taken_by(place: Path) -> str:
    if not place.exists():
        return ""
    if not place.is_dir():
        return "no folder"
    if any(place.iterdir()):
        return "not empty"
    # It would be replaced, and who stands in it would go on looking at the old one.
    return "the folder that you are in" if place == Path.cwd() else ""


def _beside(place: Path) -> Path:
    # The suffix stays, because those who fill the file may choose its format by it.
    return place.with_name(f".{secrets.token_hex(6)}.part{place.suffix[:16]}")


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_parent(path: str | Path, place: Path) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be written: the folder {place.parent} does not exist. Create it, or give another path."
    )


def _cannot_write(path: str | Path, error: Exception) -> ArtifactError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ArtifactError(f"{path} cannot be written: {why}. Give a path in a folder that you may write to.")
