"""What a search for a time tried: a line, a table, and a panel of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from secateur.reporting.figures import AFTER, FAINT, INK
from secateur.reporting.numbers import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OTHERS = "#9AA4AE"


def latency_line(found: Mapping[str, Any]) -> str:
    """Say where a plan's candidates were measured, and what was wanted."""
    threads = f", {found['threads']} threads" if found["threads"] else ""
    full = number_of(found["full_milliseconds"])
    return (
        f"Measured on {found['on']} {found['precision']}{threads}: the model takes {full} ms, "
        f"{found['target']:.2f} of it is wanted."
    )


def latency_curve(found: Mapping[str, Any]) -> Table:
    """Tabulate the candidates of a search for a time, as a plan's recipe has them; the one that was kept is bold."""
    table = Table(box=None, pad_edge=False)
    for name in ("MACs", "importance", "time", "95 %", "ms"):
        table.add_column(name, justify="right")
    for one in sorted(found["candidates"], key=lambda one: one["macs"]):
        table.add_row(
            f"{one['macs']:.2f}x",
            f"{one['importance']:.2f}x",
            f"{one['time']:.2f}x",
            f"{one['low']:.2f}–{one['high']:.2f}",
            number_of(one["milliseconds"]),
            style="bold" if one == found["chosen"] else "",
        )
    return table


def draw_search(axes: Axes, found: Mapping[str, Any]) -> None:
    """Draw the candidates of a search into a panel, as a plan's recipe has them: time by MACs.

    What they keep of the importance is written beside them. The dashed line is where time falls as the MACs do.
    """
    candidates, target = sorted(found["candidates"], key=lambda one: one["macs"]), found["target"]
    high = 1.12 * max(target, *(one["high"] for one in candidates))
    left, right = 0.9 * candidates[0]["macs"], 1.1 * candidates[-1]["macs"]
    axes.axhline(target, color=INK, linewidth=0.8, label=f"{target:.2f}x, wanted")
    axes.plot([left, right], [left, right], color=FAINT, linewidth=0.8, linestyle="--", label="as the MACs")
    for one in candidates:
        kept = one == found["chosen"]
        colour, faint, place = (AFTER, AFTER, (5, -9)) if kept else (_OTHERS, FAINT, (5, 4))
        reach = [[max(0.0, one["time"] - one["low"])], [max(0.0, one["high"] - one["time"])]]
        point = one["macs"], one["time"]
        axes.errorbar(*point, yerr=reach, color=colour, marker="o", markersize=4, linewidth=1)
        importance = f"{one['importance']:.2f}x"
        axes.annotate(importance, point, xytext=place, textcoords="offset points", fontsize=6.8, color=faint)
    where = f"{found['on']} {found['precision']}"
    axes.set_title(f"Time on {where}, by MACs; beside it the importance that is kept", loc="left", fontsize=8.5, pad=3)
    axes.set(xlim=(left, right), ylim=(0, high), xlabel="share of the MACs")
    axes.set_ylabel("share of the time", color=FAINT)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2f}x")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2f}x")
    axes.legend(loc="lower right", ncols=2, frameon=False)
    axes.tick_params(length=0, pad=2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.yaxis.grid(True, color="#E8EBEE", linewidth=0.7)
    axes.set_axisbelow(True)
