"""Draw docs/matte.png: scikit-image's astronaut (NASA, public domain), her matte by `modnet-small`, and the cut-out.

python recipes/picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from skimage import data

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

import secateur  # noqa: E402
from secateur.matting.foregrounds import foreground_of  # noqa: E402
from secateur.matting.predicting import open_predictor  # noqa: E402
from secateur.reporting.sheets import Tile, cut_out, draw_sheet, grey  # noqa: E402
from secateur.runtimes.network import Network  # noqa: E402


def main() -> None:
    picture = data.astronaut()
    network = Network.of_model("modnet-small", secateur.pretrained("modnet-small"), torch.zeros(1, 3, 128, 128))
    matte = open_predictor(network)(picture)
    cut = cut_out(foreground_of(picture, matte), matte)
    tiles = [Tile(picture, "picture"), Tile(grey(matte), "matte"), Tile(cut, "cut-out")]
    draw_sheet([tiles], "secateur matte", ROOT / "docs" / "matte.png")


if __name__ == "__main__":
    main()
