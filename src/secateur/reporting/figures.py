"""The picture of a pruning: the channels of every layer before and after, as a paper would print it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.artifact.atomic import write_atomically
from secateur.errors import ArtifactError, RuntimeMissingError
from secateur.measurement.layers import LayerChange, ModelChange
from secateur.reporting.numbers import short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
BEFORE, AFTER, INK, FAINT = "#CFD5DB", "#0072B2", "#24292F", "#6B7580"  # told apart by lightness alone, too
_LEGIBLE = 26  # bars side by side; with more of them, numbers would run into each other
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so the picture is the same everywhere
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": FAINT,
    "svg.hashsalt": "secateur",
}


@dataclass(frozen=True)
class Panel:
    """One row of the picture: consecutive layers, with the number of the first one."""

    title: str
    first: int
    layers: tuple[LayerChange, ...]


def check_figure(path: str | Path) -> None:
    """Make sure, before the long work, that a picture can be drawn and is of a known format.

    Raises:
        ArtifactError: the name ends neither in .svg nor in .png.
        RuntimeMissingError: matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ArtifactError(f"{path} is no name for a picture: it must end in .svg or .png. Give it one of these.")
    import_matplotlib()


def draw_widths(
    change: ModelChange,
    title: str,
    path: str | Path,
    backbone: str = "",
    below: Callable[[Axes], None] | None = None,
) -> None:
    """Draw the channels of every layer before and after into one picture, SVG or PNG by the suffix of `path`.

    Up to three panels, as in the article; if `backbone` names a part of the model, three for it and one for the rest.
    `below` draws one more under them.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    check_figure(path)
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        figure = _draw(split_panels(change.layers, backbone), _title(change, title), below)
        save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path, dpi: int = 160) -> None:
    """Write a figure, SVG or PNG by the suffix, whole or not at all; the same figure gives the same bytes.

    Raises:
        ArtifactError: the file cannot be written.
    """
    data, kind = BytesIO(), Path(path).suffix.lower().lstrip(".")
    metadata = {"Date": None, "Creator": "secateur"} if kind == "svg" else {"Software": "secateur"}
    figure.savefig(data, format=kind, dpi=dpi, metadata=metadata)
    write_atomically(path, data.getvalue())


def split_panels(layers: Sequence[LayerChange], backbone: str = "") -> list[Panel]:
    """Split layers into panels: at 30 % and 63 %, which for the article's 53 layers is 0-15, 16-32, 33-52."""
    inside = [layer for layer in layers if backbone and layer.name.startswith(f"{backbone}.")]
    outside = [layer for layer in layers if layer not in inside] if inside else []
    drawn = inside or list(layers)
    count = len(drawn)
    bounds = [0, round(0.30 * count), round(0.63 * count), count] if count > 20 else [0, count]
    panels = [
        Panel(f"{'Backbone, layers' if inside else 'Layers'} {first}–{end - 1}", first, tuple(drawn[first:end]))
        for first, end in pairwise(bounds)
    ]
    if outside:
        panels.append(Panel(f"Outside the backbone, layers {count}–{count + len(outside) - 1}", count, tuple(outside)))
    return panels


def _draw(panels: Sequence[Panel], title: tuple[str, str], below: Callable[[Axes], None] | None) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    widest, count = max(len(panel.layers) for panel in panels), len(panels) + (below is not None)
    size = (max(7.5, min(13.0, 2.0 + 0.5 * widest)), 1.0 + 2.15 * count)
    rect = (0.005, 0.005, 0.99, 1 - 0.62 / size[1])  # room for the title above
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(hspace=0.06, rect=rect), facecolor="white")
    rows = figure.subplots(count, 1, squeeze=False)[:, 0]
    for axes, panel in zip(rows, panels, strict=False):
        _draw_panel(axes, panel, widest)
    if below is not None:
        below(rows[-1])
    figure.text(0.012, 1 - 0.10 / size[1], title[0], fontsize=11, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.34 / size[1], title[1], fontsize=9, color=FAINT, va="top")
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper right", ncols=2, frameon=False, bbox_to_anchor=(0.995, 1 - 0.04 / size[1])
    )
    return figure


def _draw_panel(axes: Axes, panel: Panel, widest: int) -> None:
    places = range(panel.first, panel.first + len(panel.layers))
    before = [layer.channels.before for layer in panel.layers]
    after = [layer.channels.after for layer in panel.layers]
    top = _top(before)
    scales = [min(1.0, top / old) for old in before]
    heights = [scale * old for scale, old in zip(scales, before, strict=True)]
    filled = [scale * new for scale, new in zip(scales, after, strict=True)]
    axes.bar(places, heights, width=0.78, color=BEFORE, label="before")
    axes.bar(places, filled, width=0.78, color=AFTER, label="after")
    for place, scale in zip(places, scales, strict=True):
        if scale < 1:
            axes.plot([place - 0.45, place + 0.45], [0.10 * top, 0.17 * top], color="white", linewidth=3)
    for place, old, new, high, low in zip(places, before, after, heights, filled, strict=True):
        if widest <= _LEGIBLE or high < old:
            _number(axes, place, high if new == old else max(high, low + 0.085 * top), old, top, FAINT)
            if new != old:
                _number(axes, place, low, new, top, AFTER)
    axes.set_xticks(list(places)[:: -(-widest // _LEGIBLE)])
    axes.set_xlim(panel.first - 0.6, panel.first + widest - 0.4)
    axes.set_ylim(0, top * 1.17)
    broken = "  (broken bars are not to scale)" if min(scales) < 1 else ""
    axes.set_title(panel.title + broken, loc="left", fontsize=8.5, color=INK, pad=3)
    axes.set_ylabel("output channels", color=FAINT)
    axes.tick_params(length=0, pad=2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.yaxis.grid(True, color="#E8EBEE", linewidth=0.7)
    axes.set_axisbelow(True)


def _top(widths: Sequence[int]) -> float:
    """Return the height of a panel; the few bars far above all others are drawn broken, and do not count."""
    usual = 2 * sorted(widths)[int(0.85 * (len(widths) - 1))]
    return usual if max(widths) > 2 * usual else max(widths)


def _number(axes: Axes, place: int, height: float, value: int, top: float, color: str) -> None:
    axes.text(place, height + 0.015 * top, str(value), ha="center", va="bottom", fontsize=6.8, color=color)


def _title(change: ModelChange, title: str) -> tuple[str, str]:
    totals = (
        f"parameters {short_count(change.params.before)} → {short_count(change.params.after)} "
        f"({change.params.share:.1%}) · MACs {short_count(change.macs.before)} → {short_count(change.macs.after)} "
        f"({change.macs.share:.1%})"
    )
    return title, totals


def import_matplotlib() -> Any:
    """Return matplotlib.

    Raises:
        RuntimeMissingError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise RuntimeMissingError(
            "A picture needs matplotlib, which is not installed. Install it with: pip install 'secateur[plot]'."
        ) from None
    return matplotlib
