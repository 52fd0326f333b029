"""Pictures in folders, and where their results go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from secateur.errors import DataError
from secateur.models.pictures import SUFFIXES


def pictures_under(folder: Path, pattern: str | None = None, without: Path | None = None) -> list[Path]:
    """Return the pictures in a folder and in those in it, by path; hidden ones are left out.

    Args:
        folder: the folder.
        pattern: of the paths in it, such as `*.jpg` or `2024/*`; None: all that have a picture's suffix.
        without: a folder that is not looked into, if it lies in `folder`.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Give one with pictures in it.")
    left_out = without.resolve() if without is not None else None
    if left_out is not None and folder.resolve() not in left_out.parents:
        left_out = None
    found = [
        path
        for path in _matching(folder, pattern)
        if path.is_file()
        and (pattern or path.suffix.lower() in SUFFIXES)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (left_out is None or left_out not in path.resolve().parents)
    ]
    if not found:
        wanted = f"nothing like {pattern}" if pattern else f"no picture ({', '.join(sorted(SUFFIXES))})"
        raise DataError(f"{folder} holds {wanted}. Give a folder with pictures in it.")
    return found


def _matching(folder: Path, pattern: str | None) -> list[Path]:
    try:
        return sorted(folder.rglob(pattern or "*"))
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"{pattern!r} is no pattern of paths in a folder: {error}. Write one like '*.jpg'.") from None


def results_of(pictures: Sequence[Path], folder: Path, output: Path) -> list[Path]:
    """Return for each picture of a folder the PNG that is its result, in the same place under `output`.

    It has the picture's name without suffix; those that would be the same keep it: `a.jpg.png` and `a.png.png`.

    Raises:
        DataError: a result would take a picture's place.

    Example:
        >>> pictures = [Path("in/a.jpg"), Path("in/a.png"), Path("in/b/c.jpg")]
        >>> [path.as_posix() for path in results_of(pictures, Path("in"), Path("out"))]
        ['out/a.jpg.png', 'out/a.png.png', 'out/b/c.png']
    """
    places = [output / path.relative_to(folder) for path in pictures]
    results = [place.with_suffix(".png") for place in places]
    # A longer name may again be somebody's short one; in the end all are long, and files of one folder differ.
    while len(set(results)) < len(results):
        times = Counter(results)
        results = [
            place.with_name(f"{place.name}.png") if times[result] > 1 else result
            for place, result in zip(places, results, strict=True)
        ]
    taken = {path.resolve() for path in pictures}
    for result in results:
        if result.resolve() in taken:
            raise DataError(
                f"{result} is a picture itself, and would be written over. Give another folder for results."
            )
    return results
