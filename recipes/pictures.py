"""Draw what the built-in networks make of people that they never saw: docs/matte.png and docs/people.png.

python recipes/pictures.py [--out build/modnet]

The first is scikit-image's astronaut (NASA, public domain). The second wants the sets to judge on that
`recipes/modnet.py` left in OUT: those held-out people whose pictures may be published, in their own pictures and
before a background, and as many others, whose mattes alone are shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from skimage import data

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

import secateur  # noqa: E402
from secateur.matting.evaluating import read_truth  # noqa: E402
from secateur.matting.foregrounds import foreground_of  # noqa: E402
from secateur.matting.layouts import Portrait, find_portraits  # noqa: E402
from secateur.matting.predicting import Predictor, open_predictor  # noqa: E402
from secateur.reporting.sheets import Tile, difference, draw_sheet, grey, on_colour, small  # noqa: E402
from secateur.runtimes.network import Network  # noqa: E402

NETWORKS = {"full": "modnet", "small": "modnet-small"}
SHOWN = "cc0_"  # people whose pictures may be published, by the beginning of their names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build/modnet")
    held_out = parser.parse_args().out / "held-out"
    opened = {title: predictor(name) for title, name in NETWORKS.items()}
    draw_astronaut(opened["small"], ROOT / "docs" / "matte.png")
    if held_out.is_dir():
        portraits, composites = (find_portraits(held_out / name) for name in ("portraits", "composites"))
        draw_people(portraits, composites, opened, ROOT / "docs" / "people.png")


def predictor(name: str) -> Predictor:
    return open_predictor(Network.of_model(name, secateur.pretrained(name), torch.zeros(1, 3, 128, 128)))


def draw_astronaut(network: Predictor, path: Path) -> None:
    picture = data.astronaut()
    matte = network(picture)
    cut = on_colour(foreground_of(picture, matte), matte)
    tiles = [Tile(picture, "picture"), Tile(grey(matte), "matte"), Tile(cut, "cut-out")]
    draw_sheet([tiles], "secateur matte", path)


def draw_people(
    portraits: Sequence[Portrait], composites: Sequence[Portrait], opened: dict[str, Predictor], path: Path
) -> None:
    """Draw a portrait, and a composite of the same person, as the networks see them; of others the mattes, in pairs."""
    shown = [one for one in portraits if one.name.startswith(SHOWN)]
    others = [one for one in portraits if one not in shown][: len(shown)]
    rows = []
    for one in shown:
        composite = next(other for other in composites if other.name.endswith(one.name))
        rows.append([*tiles(one, opened), *tiles(composite, opened)])
    for left, right in zip(others[::2], others[1::2], strict=False):
        rows.append([*tiles(left, opened, shown=False), *tiles(right, opened, shown=False)])
    draw_sheet(
        rows, "Never trained on; above the mattes: MAD in thousandths; errors: red too much, blue too little", path
    )


def tiles(portrait: Portrait, opened: dict[str, Predictor], shown: bool = True) -> list[Tile]:
    picture, truth = read_truth(portrait)
    mattes = {title: network(picture) for title, network in opened.items()}
    drawn = [Tile(small(picture), portrait.name) if shown else Tile(small(grey(truth)), "true matte")]
    for title, matte in mattes.items():
        drawn.append(Tile(small(grey(matte)), f"{title}: {1e3 * np.abs(matte - truth).mean():.1f}"))
    return [*drawn, Tile(small(difference(mattes["small"], truth)), "small: errors")]


if __name__ == "__main__":
    main()
