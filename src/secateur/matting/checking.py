"""Whether a data set can be used: files without partners, broken ones, sizes and values of mattes, duplicates."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secateur.errors import DataError
from secateur.matting.layouts import Layout, Portrait
from secateur.matting.pictures import has_alpha, read_rgb, stored_alpha

_BITS = {"bool": "1 bit", "uint8": "8 bits", "uint16": "16 bits", "float32": "floats"}


@dataclass(frozen=True)
class Finding:
    """Something about a file: it is `unusable`, or else only looks wrong."""

    path: Path
    what: str
    unusable: bool

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


@dataclass(frozen=True)
class Checked:
    """What a data set holds.

    Attributes:
        layout: its folders and files.
        sizes: how many pictures there are of each width and height.
        depths: how many mattes there are of "8 bits", "16 bits", "1 bit" and "floats".
        findings: what is wrong, those first that cannot be used.
    """

    layout: Layout
    sizes: Mapping[tuple[int, int], int]
    depths: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def unusable(self) -> int:
        """How many files cannot be used."""
        return len({finding.path for finding in self.findings if finding.unusable})


def check_data(layout: Layout, tell: Callable[[str], object] = len) -> Checked:
    """Read everything in a data set and return what it holds and what is wrong with it.

    Args:
        layout: what `find_layout` gave.
        tell: is called with the name of each portrait once it is read.

    Raises:
        RuntimeMissingError: Pillow is not installed.

    Example:
        >>> checked = check_data(find_layout("PPM-100"))  # doctest: +SKIP
        >>> [str(finding) for finding in checked.findings]  # doctest: +SKIP
        ['PPM-100/alpha/7.png is 0 everywhere: there is nobody in it.']
    """
    findings = [Finding(path, why, unusable=True) for path, why in layout.problems.items()]
    sizes: Counter[tuple[int, int]] = Counter()
    depths: Counter[str] = Counter()
    portraits = layout.portraits
    for portrait in portraits:
        findings += _of_portrait(portrait, sizes, depths)
        tell(portrait.name)
    findings += _duplicates([one.image or one.foreground or one.alpha for one in portraits])
    findings.sort(key=lambda finding: not finding.unusable)
    return Checked(layout, dict(sizes.most_common()), dict(depths.most_common()), tuple(findings))


def _of_portrait(portrait: Portrait, sizes: Counter[tuple[int, int]], depths: Counter[str]) -> list[Finding]:
    findings: list[Finding] = []
    seen: dict[Path, tuple[int, int]] = {}
    for path in (portrait.image, portrait.foreground):
        if path is not None:
            try:
                height, width, _ = read_rgb(path).shape
                seen[path] = width, height
            except DataError as error:
                findings.append(_broken(path, error))
    sizes.update([*seen.values()][:1])
    try:
        values = stored_alpha(portrait.alpha)
        without = portrait.alpha == portrait.foreground and not has_alpha(portrait.alpha)
    except DataError as error:
        return findings if portrait.alpha == portrait.foreground else [*findings, _broken(portrait.alpha, error)]
    if without:
        return [*findings, Finding(portrait.alpha, "has no alpha channel, and there is no alpha/ beside it.", True)]
    depths[_BITS[values.dtype.name]] += 1
    size = values.shape[1], values.shape[0]
    findings += [
        Finding(portrait.alpha, f"is {_shown(size)}, and {path} is {_shown(other)}: it is not its matte.", True)
        for path, other in seen.items()
        if other != size
    ]
    return findings + _of_values(portrait.alpha, values)


def _of_values(path: Path, values: np.ndarray) -> list[Finding]:
    """Return what is odd about a matte's values."""
    low, high = values.min(), values.max()
    largest = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else 1
    if high == 0:
        return [Finding(path, "is 0 everywhere: there is nobody in it.", True)]
    if largest > 1 and high == 1:
        return [Finding(path, f"is a mask of 0 and 1, which reads as black: it wants 0 and {largest}.", True)]
    odd = []
    if low == high:
        odd.append(f"is {high} everywhere: there is no background in it.")
    elif np.isin(values, (low, high)).all():
        odd.append(f"holds {low} and {high} alone: it is a mask, without soft edges.")
    if high < 0.9 * largest:
        odd.append(f"goes up to {high} of {largest}: nothing in it is opaque.")
    if _is_inverted(values / largest):
        odd.append("may be inverted: it is opaque above the person and transparent in the middle.")
    if path.suffix.lower() in (".jpg", ".jpeg"):
        odd.append("is a JPEG, whose blacks and whites are not exact: the boundary is blurred over all of it.")
    return [Finding(path, what, unusable=False) for what in odd]


def _is_inverted(matte: np.ndarray) -> bool:
    """Tell whether a matte is opaque at its upper edge and transparent in its middle, as of people it hardly is."""
    height, width = matte.shape
    above = matte[: max(1, height // 16)]
    middle = matte[height // 3 : height - height // 3, width // 3 : width - width // 3]
    return bool(above.mean() > 0.5 > middle.mean())


def _duplicates(paths: Sequence[Path]) -> list[Finding]:
    """Return the files whose bytes are those of an earlier one; only files of one length are read."""
    paths = [path for path in paths if os.access(path, os.R_OK)]  # what cannot be read was found before
    lengths = Counter(path.stat().st_size for path in paths)
    first: dict[str, Path] = {}
    findings = []
    for path in paths:
        if lengths[path.stat().st_size] > 1:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if first.setdefault(digest, path) != path:
                findings.append(Finding(path, f"is the same file as {first[digest]}.", unusable=False))
    return findings


def _broken(path: Path, error: DataError) -> Finding:
    return Finding(path, str(error).removeprefix(f"{path} "), unusable=True)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
