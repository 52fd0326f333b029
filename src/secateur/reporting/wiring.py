"""The picture of a graft: which layers of the host lost inputs, because the part's outputs are fewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.graph.groups import Graph, Group
from secateur.planning.plans import Plan
from secateur.reporting.figures import AFTER, FAINT, INK, STYLE, check_figure, import_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.34  # inches


@dataclass(frozen=True)
class Wire:
    """A layer outside of the part that reads channels which the part makes, and how many are left of them."""

    maker: str  # the last layer in the part that writes these channels
    made: tuple[int, int]  # its channels before and after
    reader: str
    read: tuple[int, int]  # the inputs of the reader before and after


def wires_of(graph: Graph, plan: Plan, at: str) -> list[Wire]:
    """Return the wires from a part of a model to the rest that a plan makes thinner, in the order of the run."""
    found: dict[tuple[str, str], Wire] = {}
    for group in graph.groups:
        for maker, reader in _ends(group, plan, f"{at}."):
            name = maker.removeprefix(f"{at}.").rpartition(".")[0]
            made, read = (_axis(plan, tensor, axis) for tensor, axis in ((maker, 0), (reader, 1)))
            if read[0] != read[1]:
                layer = reader.rpartition(".")[0]
                found.setdefault((name, layer), Wire(name, made, layer, read))
    return list(found.values())


def draw_graft(graph: Graph, plan: Plan, at: str, path: str | Path) -> None:
    """Draw the part's makers on the left, the host's readers on the right, and a line for every wire between them.

    Args:
        graph: of the full-size host.
        plan: the host's, as `secateur.graft` returns it.
        at: the name of the part.
        path: the picture, SVG or PNG by its suffix.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    check_figure(path)
    matplotlib = import_matplotlib()
    wires = wires_of(graph, plan, at)
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        makers, readers = ([*dict.fromkeys(ends)] for ends in _named(wires))
        figure = Figure(figsize=(8.0, 0.9 + ROW * max(len(makers), len(readers), 1)), facecolor="white")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        _draw(axes, wires, makers, readers, at, type(graph.model).__name__)
        save_figure(figure, path)


def _ends(group: Group, plan: Plan, inside: str) -> list[tuple[str, str]]:
    """Return the weight in the part that writes a group's channels last, with each outside that reads them."""
    weights = [member for member in group.members if len(plan.fingerprint[member.tensor]) > 1]
    makers = [one.tensor for one in weights if one.axis == 0 and one.tensor.startswith(inside)]
    readers = [one.tensor for one in weights if one.axis == 1 and not one.tensor.startswith(inside)]
    return [(makers[-1], reader) for reader in dict.fromkeys(readers)] if makers else []


def _axis(plan: Plan, tensor: str, axis: int) -> tuple[int, int]:
    return plan.fingerprint[tensor][axis], plan.shape_after(tensor)[axis]


def _named(wires: Sequence[Wire]) -> tuple[list[str], list[str]]:
    return [wire.maker for wire in wires], [wire.reader for wire in wires]


def _draw(axes: Axes, wires: Sequence[Wire], makers: Sequence[str], readers: Sequence[str], at: str, host: str) -> None:
    rows = max(len(makers), len(readers), 1)
    axes.set_xlim(0, 1)
    axes.set_ylim(rows + 0.7, -2.0)
    axes.axis("off")
    axes.text(0.03, -1.3, f"What the graft at {at} of {host} rewired", fontsize=11, fontweight="bold", va="center")
    axes.text(0.36, -0.55, "channels that leave the part", ha="right", color=FAINT, va="center")
    axes.text(0.64, -0.55, "inputs of what reads them", color=FAINT, va="center")
    left, right = ({name: _place(i, len(names), rows) for i, name in enumerate(names)} for names in (makers, readers))
    made, read = {wire.maker: wire.made for wire in wires}, {wire.reader: wire.read for wire in wires}
    for wire in wires:
        ends = left[wire.maker], right[wire.reader]
        axes.plot(
            [0.38, 0.62], ends, color=AFTER, linewidth=0.6 + 2.4 * wire.made[1] / max(wire.made[0], 1), alpha=0.75
        )
    for names, x, sizes, side in ((left, 0.36, made, "right"), (right, 0.64, read, "left")):
        for name, y in names.items():
            before, after = sizes[name]
            numbers = f"{before} → {after}"
            text = f"{name}   {numbers}" if side == "right" else f"{numbers}   {name}"
            axes.text(x, y, text, ha=side, va="center", color=INK)


def _place(index: int, count: int, rows: int) -> float:
    """Spread a column's names over the height of the longer one."""
    return (index + 0.5) * rows / count
