"""Folders of portraits with their mattes, as the field's data sets are laid out, found as pairs of files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Clip:
    """A video of a person: its frames in the order of time, each with its matte.

    Attributes:
        name: the folder's.
        frames: named `clip/frame`.
    """

    name: str
    frames: tuple[Portrait, ...]


@dataclass(frozen=True)
class Layout:
    """The pictures in a data set's folders, by name, whether they have partners or not.

    Attributes:
        folders: those that were found: of the pictures, of the foregrounds, of the mattes; fewer if there are fewer.
        images: the pictures.
        foregrounds: the foregrounds.
        alphas: the mattes; foregrounds where there is no folder of mattes.
        problems: for each file without a partner, and for each of the same name as another, why it is of no use.
    """

    folders: tuple[Path, ...]
    images: Mapping[str, Path]
    foregrounds: Mapping[str, Path]
    alphas: Mapping[str, Path]
    problems: Mapping[Path, str]

    @property
    def portraits(self) -> list[Portrait]:
        """The people whose files have their partners, by name."""
        people = self.images or self.foregrounds
        names = sorted(people.keys() & self.alphas.keys())
        return [Portrait(name, self.images.get(name), self.foregrounds.get(name), self.alphas[name]) for name in names]


def find_portraits(folder: str | Path) -> list[Portrait]:
    """Return the portraits in a data set's folder, by name.

    A data set has its pictures in `image/` (P3M: `original_image/`, AIM: `original/`) or its foregrounds in `fg/`, and
    their mattes under the same names in `alpha/`, `matte/`, `mask/` or `gt/`. Foregrounds with an alpha channel need
    none.

    Raises:
        DataError: it is no such folder, or a file has no partner; names the first.
    """
    layout = find_layout(folder)
    for path, why in layout.problems.items():
        raise DataError(f"{path} {why}")
    return layout.portraits


def find_layout(folder: str | Path) -> Layout:
    """Return what lies in a data set's folder, with all that is wrong with the files' names.

    Raises:
        DataError: it is no such folder, or has no mattes.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{folder} is no folder. Give one with image/ and alpha/ in it.")
    found = [_files(place, names) for names in (IMAGES, FOREGROUNDS, ALPHAS)]
    images, foregrounds, alphas = (_by_name(files) for files in found)
    people = images or foregrounds
    if not people:
        wanted = f"{', '.join(IMAGES + FOREGROUNDS)} with pictures, and {', '.join(ALPHAS)} with their mattes"
        raise DataError(f"{folder} holds no portraits. One of these folders is wanted in it: {wanted}.")
    if not (alphas or foregrounds):
        raise DataError(f"{place} has no mattes. Put them, by the pictures' names, into {place / 'alpha'}.")
    problems = _namesakes(found) | _alone(people, alphas or foregrounds)
    folders = tuple(files[0].parent for files in found if files)
    return Layout(folders, images, foregrounds, alphas or foregrounds, problems)


def find_clips(folder: str | Path) -> list[Clip]:
    """Return the clips in a folder, by name: each folder in it with `image/` and `alpha/`, as of portraits, is one.

    Frames are in the order of their names, numbers in these counted.

    Raises:
        DataError: it is no folder, or a frame has no partner; names the first.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{folder} is no folder. Give one with clips in it.")
    return [_clip(inner) for inner in sorted(place.iterdir()) if is_data_set(inner)]


def is_data_set(folder: Path) -> bool:
    """Tell whether a folder has a folder of pictures or of foregrounds in it."""
    return folder.is_dir() and any(_files(folder, names) for names in (IMAGES, FOREGROUNDS))


def _clip(folder: Path) -> Clip:
    frames = sorted(find_portraits(folder), key=lambda frame: _counted(frame.name))
    named = (Portrait(f"{folder.name}/{one.name}", one.image, one.foreground, one.alpha) for one in frames)
    return Clip(folder.name, tuple(named))


def _counted(name: str) -> list[str | int]:
    """Return a name in parts that sort as people count: 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def find_pictures(folders: Sequence[str | Path]) -> list[Path]:
    """Return all pictures in these folders and the folders in them, by path.

    Raises:
        DataError: one of them is no folder, or holds no picture.
    """
    found: list[Path] = []
    for folder in folders:
        found += pictures_under(Path(folder))
    return found


def _files(place: Path, names: Sequence[str]) -> list[Path]:
    """Return the pictures in the first of some folders that is there."""
    folders = {path.name.lower(): path for path in place.iterdir() if path.is_dir()}
    for name in names:
        if name in folders:
            inside = sorted(folders[name].iterdir())
            return [path for path in inside if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    return []


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    return {path.stem: path for path in files}


def _namesakes(found: Sequence[Sequence[Path]]) -> dict[Path, str]:
    """Return the files that others of the same name but another suffix stand beside."""
    return {
        path: f"and {other.name} beside it have one name, by which they are paired. Take one of them out."
        for files in found
        for path, other in ((path, _by_name(files)[path.stem]) for path in files)
        if path != other
    }


def _alone(people: Mapping[str, Path], alphas: Mapping[str, Path]) -> dict[Path, str]:
    """Return the files without a partner."""
    mattes, pictures = (next(iter(files.values())).parent for files in (alphas, people))
    without = {
        path: f"has no matte: no {name}.* in {mattes}. Add it." for name, path in people.items() if name not in alphas
    }
    return without | {
        path: f"is the matte of no picture: no {name}.* in {pictures}."
        for name, path in alphas.items()
        if name not in people
    }
