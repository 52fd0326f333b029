"""Tables and a figure of what networks took: by batch, side by side, with the ratio to the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from secateur.measurement.branches import branch_of
from secateur.measurement.contest import Cell
from secateur.measurement.profiling import LayerTime, Profile
from secateur.measurement.staircase import Staircase
from secateur.measurement.statistics import Ratio
from secateur.reporting.figures import AFTER, BEFORE, FAINT, INK, STYLE, check_figure, import_matplotlib, save_figure
from secateur.reporting.numbers import number_of, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#6B7580", AFTER, "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito's, told apart by all eyes
_LEAST_SHOWN = 0.01  # share of a network's time
Key = tuple[str, str, str]  # runtime, precision, device


def latency_tables(cells: Sequence[Cell]) -> list[Table]:
    """Return two tables for each runtime, precision and device: a line for each network, in a section for each batch.

    The first is of calls in turns; the second of each network alone in a fresh process: to open it, its first call, and
    the most memory. What was not opened alone has none.
    """
    by_place = [(key, list(own)) for key, own in groupby(cells, _key)]
    return [table for key, own in by_place for table in (_table(key, own), *_alone(key, own))]


def _alone(key: Key, cells: list[Cell]) -> list[Table]:
    if not any(cell.load_ms for cell in cells):
        return []
    runtime, precision, device = key
    title = f"{runtime} {precision} on {device}, opened alone"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("batch", justify="right")
    table.add_column("model")
    for name in ("ms to open", "ms, first call", "memory"):
        table.add_column(name, justify="right")
    for sizes, row in groupby(cells, lambda cell: cell.sizes):
        for number, cell in enumerate(row):
            taken = [number_of(cell.load_ms), number_of(cell.first_ms)] if cell.load_ms else [cell.status, ""]
            memory = f"{cell.peak_bytes / 2**20:.0f} MB" if cell.peak_bytes else ""
            table.add_row("" if number else str(sizes.batch), Text(cell.network), *taken, memory)
        table.add_section()
    return [table]


def _key(cell: Cell) -> Key:
    return cell.runtime, cell.precision, cell.device


def _table(key: Key, cells: list[Cell]) -> Table:
    runtime, precision, device = key
    table = Table(title=f"{runtime} {precision} on {device}", title_justify="left", title_style="bold")
    table.add_column("batch", justify="right")
    table.add_column("model")
    for name in ("ms a call", "10–90 %", "a second", "times as fast", "95 %"):
        table.add_column(name, justify="right")
    for sizes, row in groupby(cells, lambda cell: cell.sizes):
        first, *others = row
        for cell in (first, *others):
            ratio = cell.times_as_fast_as(first) if cell is not first else None
            table.add_row(str(sizes.batch) if cell is first else "", Text(cell.network), *_columns(cell, ratio))
        table.add_section()
    return table


def _columns(cell: Cell, ratio: Ratio | None) -> list[str]:
    if not cell.milliseconds:
        return [cell.status, "", "", "", ""]
    spread = cell.spread
    shown = [number_of(value) for value in (spread.median, spread.low, spread.high)]
    times = ["", ""] if ratio is None else [number_of(ratio.value), f"{number_of(ratio.low)}–{number_of(ratio.high)}"]
    return [shown[0], f"{shown[1]}–{shown[2]}", number_of(cell.throughput), *times]


def profile_tables(profiles: Sequence[Profile], title: str, branches: Mapping[str, Sequence[str]]) -> list[Table]:
    """Return tables of where the time of networks goes, side by side: by layer, and by branch.

    Args:
        profiles: of one runtime, precision and size.
        title: says which.
        branches: prefixes of module names, by branch.
    """
    rows = {layer.layer: layer for profile in reversed(profiles) for layer in reversed(profile.layers)}
    shares = {name: max(_share(profile, name) for profile in profiles) for name in rows}
    shown = [name for name in reversed(rows) if shares[name] >= _LEAST_SHOWN]
    by_layer = _profile_table(f"{title}, by layer", "layer", profiles)
    for name in shown:
        kinds = ", ".join(rows[name].kinds)
        by_layer.add_row(name, *_both(profiles, lambda layer, name=name: layer.layer == name), kinds)
    if len(shown) < len(rows):
        others = f"{len(rows) - len(shown)} others, each under {_LEAST_SHOWN:.0%}"
        by_layer.add_row(others, *_both(profiles, lambda layer: layer.layer not in shown), "", style="dim")
    by_branch = _profile_table(f"{title}, by branch", "branch", profiles)
    for branch in (*branches, ""):
        columns = _both(profiles, lambda layer, branch=branch: branch_of((layer.layer,), branches, "") == branch)
        if any(columns):
            by_branch.add_row(branch or "other", *columns, "")
    by_branch.add_section()
    by_branch.add_row("total", *_both(profiles, lambda _: True), "")
    return [by_layer, by_branch]


def _profile_table(title: str, what: str, profiles: Sequence[Profile]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(what, overflow="fold")
    for profile in profiles:
        table.add_column(f"{profile.network}\nMACs", justify="right")
        table.add_column("ms", justify="right")
        table.add_column("share", justify="right")
    table.add_column("operations" if what == "layer" else "", style="dim")
    return table


def _share(profile: Profile, name: str) -> float:
    return sum(layer.milliseconds for layer in profile.layers if layer.layer == name) / profile.milliseconds


def _both(profiles: Sequence[Profile], belongs: Callable[[LayerTime], bool]) -> list[str]:
    """Return the columns of all networks for some layers: MACs, milliseconds, share of the time."""
    columns = []
    for profile in profiles:
        own = [layer for layer in profile.layers if belongs(layer)]
        macs, taken = sum(layer.macs for layer in own), sum(layer.milliseconds for layer in own)
        known = [number_of(taken), f"{taken / profile.milliseconds:.0%}"] if own else ["", ""]
        columns += [short_count(round(macs)) if macs else "", *known]
    return columns


def failures(cells: Iterable[Cell]) -> list[str]:
    """Return a line for each cell that was not measured, with the reason."""
    return [
        f"{cell.network}, {cell.runtime} {cell.precision}, {cell.sizes}: {cell.status}, {cell.why}"
        for cell in cells
        if not cell.milliseconds
    ]


def latency_json(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return the cells for machines: times in milliseconds, the ratio to the first network of each row."""
    found = []
    for _, row in groupby(cells, lambda cell: (*_key(cell), cell.sizes)):
        first, *others = row
        for cell in (first, *others):
            ratio = cell.times_as_fast_as(first) if cell is not first else None
            document = asdict(cell)
            document["median_ms"] = cell.spread.median if cell.milliseconds else None
            document["times_as_fast"] = None if ratio is None else asdict(ratio)
            found.append(document)
    return found


def draw_latency(cells: Sequence[Cell], title: str, path: str | Path) -> None:
    """Draw time by batch, a line for each network and a panel for each runtime and precision, on logarithmic axes.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    check_figure(path)
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    panels = [(key, list(own)) for key, own in groupby(cells, _key)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * columns + 0.4, 2.9 * rows + 0.6), layout="constrained", facecolor="white")
        figure.suptitle(title, x=0.012, ha="left", fontsize=10, fontweight="bold")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, (key, own) in zip(grid, panels, strict=False):
            _draw_panel(axes, f"{key[0]} {key[1]} on {key[2]}", own)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        grid[0].legend(frameon=False, loc="upper left")
        save_figure(figure, path)


def _draw_panel(axes: Axes, title: str, cells: Sequence[Cell]) -> None:
    names = list(dict.fromkeys(cell.network for cell in cells))
    batches = sorted({cell.sizes.batch or 1 for cell in cells})
    for name, colour in zip(names, _COLOURS * len(names), strict=False):
        own = [cell for cell in cells if cell.network == name]
        measured = [(cell.sizes.batch or 1, cell.spread) for cell in own if cell.milliseconds]
        places, spreads = [batch for batch, _ in measured], [spread for _, spread in measured]
        axes.fill_between(
            places, [one.low for one in spreads], [one.high for one in spreads], color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(places, [one.median for one in spreads], color=colour, marker="o", markersize=3.5, label=name)
        for cell in own:
            if not cell.milliseconds:
                axes.annotate(
                    f"{cell.status}: {name}", (cell.sizes.batch or 1, 0.98), xycoords=("data", "axes fraction"),
                    rotation=90, ha="center", va="top", fontsize=6.5, color=colour,
                )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="ms a call")
    axes.set_xticks(batches, [str(batch) for batch in batches], minor=False)
    axes.minorticks_off()
    axes.set_title(title, loc="left", fontsize=8.5, color=INK, pad=3)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(length=0, pad=2, labelcolor=FAINT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(visible=True, color=BEFORE, linewidth=0.5)
    axes.set_axisbelow(True)


def draw_staircase(found: Staircase, title: str, path: str | Path) -> None:
    """Draw time by width, a panel for each kind of layer; multiples of the step are marked.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    check_figure(path)
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(found.kinds) + 0.4, 2.9), layout="constrained", facecolor="white")
        figure.suptitle(f"{title}: steps of {found.step} channels", x=0.012, ha="left", fontsize=10, fontweight="bold")
        for axes, kind in zip(figure.subplots(1, len(found.kinds), squeeze=False)[0], found.kinds, strict=True):
            times = found.milliseconds[kind.name]
            marked = [width for width in times if width % found.step == 0]
            axes.plot(list(times), list(times.values()), color=BEFORE, marker="o", markersize=3)
            axes.plot(marked, [times[width] for width in marked], color=AFTER, marker="o", markersize=4.5)
            axes.set(xlabel="width", ylabel="ms", ylim=(0, None))
            axes.set_title(f"{kind.name}, {kind.share:.0%} of the MACs", loc="left", fontsize=8.5, color=INK, pad=3)
            axes.tick_params(length=0, pad=2, labelcolor=FAINT)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.grid(visible=True, color=BEFORE, linewidth=0.5)
        save_figure(figure, path)
