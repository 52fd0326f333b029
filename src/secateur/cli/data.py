"""`secateur data check DIR`: whether a data set of portraits can be used, before training or evaluation finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from secateur.artifact.atomic import check_writable
from secateur.cli.console import counting, show, show_json
from secateur.cli.options import json_option, quiet_option
from secateur.errors import DataError
from secateur.matting.checking import Checked, check_data
from secateur.matting.layouts import Portrait, find_layout
from secateur.matting.pictures import read_alpha, read_rgb
from secateur.models.pictures import evenly_spread
from secateur.reporting.figures import check_figure
from secateur.reporting.sheets import Tile, draw_sheet, grey, on_colour, small

SHOWN, COLUMNS = 40, 4  # portraits of a contact sheet, and how many of them side by side
_MOST_SIZES = 5


@click.group("data")
def command() -> None:
    """Look at a data set of portraits and their mattes."""


@command.command("check")
@click.argument("folder", metavar="DIR")
@click.option("--figure", metavar="FILE", help="Draw a contact sheet, what looks wrong first: FILE.png or FILE.svg.")
@json_option
@quiet_option
def check(folder: str, figure: str | None, as_json: bool, quiet: bool) -> None:
    """Read every picture and matte in DIR, and list what is wrong: partners, sizes, values, duplicates, broken files.

    DIR has image/ with pictures, or fg/ with foregrounds, and alpha/ with their mattes under the same names; folders
    as P3M, AIM-500 and Distinctions-646 name them are known, too. The exit code is 1 if something cannot be used.
    """
    if figure is not None:
        check_figure(figure)
        check_writable(figure)
    layout = find_layout(folder)
    with counting(len(layout.portraits), quiet) as tell:
        checked = check_data(layout, tell)
    if figure is not None:
        draw_sheet(_rows(checked), f"{folder}: picture, matte, and the person cut out by it", figure)
    if as_json:
        show_json(_as_json(checked))
    else:
        show(*_lines(checked), *([f"Saved: {figure}"] if figure is not None else []))
    if checked.unusable:
        raise DataError(f"{checked.unusable} files in {folder} cannot be used. Mend them, or take them out.")


def _lines(checked: Checked) -> list[str]:
    folders = ", ".join(path.name + "/" for path in checked.layout.folders)
    sizes = [f"{width}x{height} ({count})" for (width, height), count in checked.sizes.items()]
    others = f" and {len(sizes) - _MOST_SIZES} others" if len(sizes) > _MOST_SIZES else ""
    depths = ", ".join(f"{depth} ({count})" for depth, count in checked.depths.items())
    found = [
        f"{len(checked.layout.portraits)} portraits in {folders}",
        f"pictures: {', '.join(sizes[:_MOST_SIZES])}{others}",
        f"mattes: {depths}",
    ]
    words = {True: "cannot be used", False: "looks wrong"}
    found += [f"{words[finding.unusable]}: {finding}" for finding in checked.findings]
    return found if checked.findings else [*found, "Nothing is wrong with them."]


def _as_json(checked: Checked) -> dict[str, Any]:
    return {
        "folders": [str(path) for path in checked.layout.folders],
        "portraits": len(checked.layout.portraits),
        "sizes": [
            {"width": width, "height": height, "count": count} for (width, height), count in checked.sizes.items()
        ],
        "depths": dict(checked.depths),
        "findings": [{"path": str(one.path), "what": one.what, "unusable": one.unusable} for one in checked.findings],
        "unusable": checked.unusable,
    }


def _rows(checked: Checked) -> list[list[Tile]]:
    """Return the tiles of a contact sheet: what looks wrong, then some of the rest."""
    odd = {finding.path for finding in checked.findings}
    wrong = [one for one in checked.layout.portraits if _files(one) & odd]
    fine = [one for one in checked.layout.portraits if not _files(one) & odd]
    chosen = wrong[:SHOWN] + evenly_spread(fine, max(0, SHOWN - len(wrong)))
    tiles = [tile for one in chosen if (tile := _tile(one, warned=one in wrong)) is not None]
    return [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]


def _files(portrait: Portrait) -> set[Path | None]:
    return {portrait.image, portrait.foreground, portrait.alpha}


def _tile(portrait: Portrait, warned: bool) -> Tile | None:
    """Return the picture, the matte and the person cut out, side by side; None if one cannot be shown."""
    try:
        picture, alpha = read_rgb(portrait.image or portrait.foreground or portrait.alpha), read_alpha(portrait.alpha)
    except DataError:
        return None
    if picture.shape[:2] != alpha.shape:
        return None
    picture, matte = small(picture), small(alpha).astype(np.float32) / 255
    parts = picture, np.repeat(grey(matte)[:, :, None], 3, axis=2), on_colour(picture, matte)
    return Tile(np.concatenate(parts, axis=1), portrait.name, warned)
