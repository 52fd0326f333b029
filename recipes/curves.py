"""Draw the curves of trainings, one panel a run, from what `secateur train` left in their folders.

python recipes/curves.py PICTURE TITLE=RUN [TITLE=RUN ...]
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from secateur.reporting.figures import AFTER, BEFORE, FAINT, STYLE, import_matplotlib, save_figure  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS, WIDE, HIGH = 5, 2.3, 1.9  # panels side by side; inches of each
TITLE = "Left: loss by batch, and its running mean. Right, diamonds: MAD on people held out, of what the run trains"
SMOOTHED = 0.1  # of a run's batches, over which the mean is taken


def main() -> None:
    if len(sys.argv) < 3 or not all("=" in word for word in sys.argv[2:]):
        sys.exit(__doc__)
    runs = dict(word.split("=", 1) for word in sys.argv[2:])
    draw_curves({title: Path(run) for title, run in runs.items()}, Path(sys.argv[1]))


def draw_curves(runs: Mapping[str, Path], picture: Path) -> None:
    """Draw the loss of every batch, its running mean, and the error on people who are held out, run by run."""
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        rows = -(-len(runs) // ACROSS)
        figure = Figure(figsize=(WIDE * min(ACROSS, len(runs)), HIGH * rows + 0.3), layout="constrained")
        for place, (title, run) in enumerate(runs.items(), 1):
            axes = figure.add_subplot(rows, min(ACROSS, len(runs)), place)
            draw_run(axes, run)
            axes.set_title(title, loc="left", fontsize=7)
        figure.suptitle(TITLE, x=0.01, ha="left")
        save_figure(figure, picture)


def draw_run(axes: Axes, run: Path) -> None:
    steps, losses = columns(run / "steps.csv", "step", "total")
    span = max(1, round(SMOOTHED * len(losses)))
    means = np.convolve(losses, np.ones(span) / span, "valid")
    axes.plot(steps, losses, color=BEFORE, linewidth=0.6)
    axes.plot(steps[span - 1 :], means, color=AFTER, linewidth=1.4)
    axes.set_ylim(0, 1.3 * np.percentile(losses, 95))
    axes.spines[["top", "right"]].set_visible(False)
    with (run / "validation.csv").open() as file:
        _, judged = next(csv.reader(file))[:2]
    other = axes.twinx()
    other.plot(*columns(run / "validation.csv", "step", judged), "D", color=FAINT, markersize=3.5)
    other.set_ylim(0, 0.03)
    other.spines[["top"]].set_visible(False)
    other.tick_params(labelsize=6)


def columns(file: Path, *names: str) -> list[np.ndarray]:
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    return [np.array([float(row[name]) for row in rows]) for name in names]


if __name__ == "__main__":
    main()
