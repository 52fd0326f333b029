"""What a pruned model has lost, and what each group of channels is worth: lines, a table, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from secateur.measurement.sensitivity import Sensitivity
from secateur.reporting.figures import STYLE, check_figure, import_matplotlib, save_figure


def compensation_line(told: Mapping[str, Any]) -> str:
    """Return how far the outputs are from the original's, before and after, for people."""
    errors = [error for error in told["errors"].values() if error is not None]
    if len(errors) < 2:
        reasons = "; ".join(told["left"].values()) or "nothing helped"
        return f"Nothing could be made up for: {reasons}"
    steps = ", ".join(name for name in told["errors"] if name != "cut")
    return (
        f"Outputs differ from the original's by {errors[0]:.0%} once cut, by {errors[-1]:.0%} compensated "
        f"({steps}; {told['samples']} samples, a quarter of them held out)"
    )


def quality_line(told: Mapping[str, Any]) -> str:
    """Return what a metric has fallen to, for people."""
    return (
        f"The metric is {told['metric']:.4g} with {told['macs']:.0%} of the MACs "
        f"({told['full']:.4g} before, {told['least']:.4g} wanted)"
    )


def sensitivity_table(found: Sensitivity) -> Table:
    """Return a row for each group: its units, and the loss at each share."""
    shares = sorted({round(share, 2) for curve in found.curves.values() for share, _ in curve})
    table = Table(box=None, pad_edge=False, title=f"{found.loss}, by share of a group cut", title_justify="left")
    table.add_column("group")
    table.add_column("units", justify="right")
    for share in shares:
        table.add_column(f"{share:.0%}", justify="right")
    for name, curve in found.curves.items():
        losses = {round(share, 2): loss for share, loss in curve}
        cells = (f"{losses[share]:.3g}" if share in losses else "" for share in shares)
        table.add_row(name, str(found.sizes[name]), *cells)
    return table


def draw_sensitivity(found: Sensitivity, title: str, path: str | Path) -> None:
    """Draw what a model loses by group and share, a heat map beside the curves, SVG or PNG by the suffix.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    check_figure(path)
    matplotlib = import_matplotlib()
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    names = list(found.curves)
    shares = sorted({round(share, 2) for curve in found.curves.values() for share, _ in curve})
    losses = np.full((len(names), len(shares)), np.nan)
    for row, name in enumerate(names):
        for share, loss in found.curves[name]:
            losses[row, shares.index(round(share, 2))] = loss
    least = max(float(np.nanmin(np.where(losses > 0, losses, np.nan))) if (losses > 0).any() else 1e-6, 1e-9)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, max(3.5, 1.2 + 0.2 * len(names))), layout="constrained", facecolor="white")
        heat, curves = figure.subplots(1, 2, width_ratios=(1.1, 1))
        norm = LogNorm(least, max(float(np.nanmax(losses)), 2 * least))
        shown = heat.pcolormesh(np.maximum(losses, least), norm=norm, cmap="cividis", edgecolors="white", linewidth=0.5)
        heat.invert_yaxis()
        heat.set_yticks(np.arange(len(names)) + 0.5, [f"{name} ({found.sizes[name]})" for name in names])
        heat.set_xticks(np.arange(len(shares)) + 0.5, [f"{share:.0%}" for share in shares])
        heat.set_xlabel("share of the group's channels cut")
        figure.colorbar(shown, ax=heat, label=found.loss, pad=0.01)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(names)))
        ends = sorted(names, key=lambda name: found.curves[name][-1][1])
        for name, colour in zip(names, colours, strict=True):
            points = found.curves[name]
            line = [(share, max(loss, least)) for share, loss in points]
            curves.plot(*zip(*line, strict=True), color=colour, marker="o", markersize=2.5, linewidth=1)
            if name in (ends[0], ends[-1]):
                curves.annotate(name, line[-1], xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
        curves.set_yscale("log")
        curves.set_xticks(shares, [f"{share:.0%}" for share in shares])
        curves.set_xlabel("share of the group's channels cut")
        curves.set_ylabel("the same; groups from dark (the first) to light (the last)")
        curves.margins(x=0.22)
        curves.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        save_figure(figure, path)
