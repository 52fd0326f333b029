"""Folders of portraits with their mattes, as the field's data sets are laid out, found as pairs of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import DataError
from secateur.matting.folders import pictures_under
from secateur.models.pictures import SUFFIXES

# Names of the folders in PPM-100, P3M, AIM-500 and Distinctions-646, the first that is there is taken.
IMAGES = ("image", "images", "original", "original_image", "blurred_image", "img")
FOREGROUNDS = ("fg", "foreground")
ALPHAS = ("alpha", "alphas", "matte", "mask", "gt", "pha")


@dataclass(frozen=True)
class Portrait:
    """A person: the picture it is in, or the foreground alone, and its matte.

    Attributes:
        name: the files' name without folder and suffix.
        image: the picture; None where there is a foreground alone.
        foreground: the person's own colours; None where the data set has none.
        alpha: the matte; the foreground's own file where that has an alpha channel.
    """

    name: str
    image: Path | None
    foreground: Path | None
    alpha: Path


def find_portraits(folder: str | Path) -> list[Portrait]:
    """Return the portraits in a data set's folder, by name.

    A data set has its pictures in `image/` (P3M: `original_image/`, AIM: `original/`) or its foregrounds in `fg/`, and
    their mattes under the same names in `alpha/`, `matte/`, `mask/` or `gt/`. Foregrounds with an alpha channel need
    none.

    Raises:
        DataError: it is no such folder, or a file has no partner; names the first.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{folder} is no folder. Give one with image/ and alpha/ in it.")
    images, foregrounds, alphas = (_files(place, names) for names in (IMAGES, FOREGROUNDS, ALPHAS))
    people = images or foregrounds
    if not people:
        wanted = f"{', '.join(IMAGES + FOREGROUNDS)} with pictures, and {', '.join(ALPHAS)} with their mattes"
        raise DataError(f"{folder} holds no portraits. One of these folders is wanted in it: {wanted}.")
    alphas = alphas or foregrounds
    _check_paired(place, people, alphas)
    return [Portrait(name, images.get(name), foregrounds.get(name), alphas[name]) for name in sorted(people)]


def find_pictures(folders: Sequence[str | Path]) -> list[Path]:
    """Return all pictures in these folders and the folders in them, by path.

    Raises:
        DataError: one of them is no folder, or holds no picture.
    """
    found: list[Path] = []
    for folder in folders:
        found += pictures_under(Path(folder))
    return found


def _files(place: Path, names: Sequence[str]) -> dict[str, Path]:
    folders = {path.name.lower(): path for path in place.iterdir() if path.is_dir()}
    for name in names:
        if name in folders:
            inside = sorted(folders[name].iterdir())
            return {path.stem: path for path in inside if path.suffix.lower() in SUFFIXES}
    return {}


def _check_paired(place: Path, people: dict[str, Path], alphas: dict[str, Path]) -> None:
    if not alphas:
        raise DataError(f"{place} has no mattes. Put them, by the pictures' names, into {place / 'alpha'}.")
    for name, path in people.items():
        if name not in alphas:
            raise DataError(f"{path} has no matte: no {name}.* in {next(iter(alphas.values())).parent}. Add it.")
    for name, path in alphas.items():
        if name not in people:
            raise DataError(f"{path} is the matte of no picture: no {name}.* in {next(iter(people.values())).parent}.")
