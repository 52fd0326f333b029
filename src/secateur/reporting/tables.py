"""Tables for people: what `analyze`, `prune` and `demo` show, built with rich and printed by the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from secateur.graph.groups import Graph
from secateur.measurement.branches import BranchCost, total_cost
from secateur.measurement.layers import Change, LayerChange, ModelChange
from secateur.measurement.prunable import Coverage, GroupShare
from secateur.measurement.statistics import Spread
from secateur.reporting.numbers import bar, short_count
from secateur.surgery.proof import Proof


def branch_table(branches: Sequence[BranchCost], title: str, inference: Sequence[BranchCost] = ()) -> Table:
    """Tabulate branches in both countings; with `inference`, the MACs of that graph stand beside the traced one's."""
    table = _table(title)
    table.add_column("branch")
    table.add_column("params\nconv + linear", justify="right")
    table.add_column("params\neverything", justify="right")
    traced = "training graph" if inference else "conv + linear"
    table.add_column(f"MACs\n{traced}", justify="right")
    if inference:
        table.add_column("MACs\ninference graph", justify="right")
    table.add_column("MACs\neverything", justify="right")
    table.add_column("share of MACs", no_wrap=True)
    total = total_cost(branches)
    inferred = [*inference, total_cost(inference)] if inference else [None] * (len(branches) + 1)
    for branch, other in zip([*branches, total], inferred, strict=True):
        counts = [branch.params, branch.all_params, branch.macs, *([other.macs] if other else []), branch.all_macs]
        if branch is total:
            table.add_section()
        table.add_row(branch.name, *map(short_count, counts), _bar(branch.macs, total.macs))
    return table


def narrow_branch_table(branches: Sequence[BranchCost], title: str) -> Table:
    """Tabulate branches by their convolutions and linear layers alone, for a narrow terminal."""
    table = _table(f"{title} (convolutions and linear layers)")
    table.add_column("branch", overflow="fold")
    table.add_column("params", justify="right")
    table.add_column("MACs", justify="right")
    table.add_column("share of MACs", no_wrap=True)
    total = total_cost(branches)
    for branch in branches:
        table.add_row(branch.name, *map(short_count, (branch.params, branch.macs)), _bar(branch.macs, total.macs))
    table.add_section()
    table.add_row(total.name, *map(short_count, (total.params, total.macs)), _bar(total.macs, total.macs))
    return table


def group_table(shares: Sequence[GroupShare], title: str = "Coupled groups: these channels go together") -> Table:
    """Tabulate the groups of coupled channels, alike ones in one line."""
    table = _table(title)
    table.add_column("group", overflow="fold")
    table.add_column("channels", justify="right")
    table.add_column("layers", justify="right")
    table.add_column("params", justify="right")
    table.add_column("MACs", justify="right")
    noted = any(share.statistics for share in shares)
    if noted:
        table.add_column("note")
    for share in shares:
        note = ["statistics across channels" if share.statistics else ""] if noted else []
        size = f"{share.groups} x {share.size}" if share.groups > 1 else str(share.size)
        table.add_row(share.name, size, str(len(share.layers)), *map(short_count, (share.params, share.macs)), *note)
    return table


def layer_table(change: ModelChange, title: str) -> Table:
    """Tabulate every convolution and linear layer before and after, with a bar for the channels that are left."""
    table = _table(title)
    table.add_column("", justify="right", style="dim")
    table.add_column("layer", overflow="fold")
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("kept", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    for number, layer in enumerate(change.layers):
        kept = _bar(layer.channels.after, layer.channels.before)
        table.add_row(str(number), layer.name, _arrow(layer.channels, plain=True), kept, *_costs(layer))
    table.add_section()
    table.add_row("", "everything", "", "", *_costs(change))
    return table


def narrow_layer_table(change: ModelChange, title: str) -> Table:
    """Tabulate the same with the shares of parameters and MACs that are left, for a narrow terminal."""
    table = _table(title)
    table.add_column("", justify="right", style="dim")
    table.add_column("layer", overflow="fold")
    table.add_column("channels", justify="right", no_wrap=True)
    for name in ("kept", "params", "MACs"):
        table.add_column(name, no_wrap=True, justify="left" if name == "kept" else "right")
    for number, layer in enumerate(change.layers):
        kept = _bar(layer.channels.after, layer.channels.before, width=8)
        shares = (f"{layer.params.share:.0%}", f"{layer.macs.share:.0%}")
        table.add_row(str(number), layer.name, _arrow(layer.channels, plain=True), kept, *shares)
    return table


def timing_table(timings: Mapping[str, Spread], title: str) -> Table:
    """Tabulate times: the median, and the 10th and 90th percentile; the speed-up is against the first line."""
    table = _table(title)
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("10 % – 90 %", justify="right")
    table.add_column("rounds", justify="right")
    table.add_column("speed-up", justify="right")
    first = next(iter(timings.values()))
    for name, timing in timings.items():
        spread = f"{timing.low:.1f} – {timing.high:.1f} ms"
        speedup = f"{first.median / timing.median:.2f}x"
        table.add_row(name, f"{timing.median:.1f} ms", spread, str(timing.rounds), speedup)
    return table


def accuracy_table(scores: Mapping[str, tuple[int, float]], title: str) -> Table:
    """Tabulate parameters and accuracy of models, by name."""
    table = _table(title)
    table.add_column("")
    table.add_column("params", justify="right")
    table.add_column("accuracy", justify="right")
    for name, (params, score) in scores.items():
        table.add_row(name, short_count(params), f"{score:.1%}")
    return table


def coverage_line(graph: Graph, share: Coverage) -> str:
    """Say in one line how much of the model can be cut at all."""
    return (
        f"{len(graph.groups)} coupled groups; up to {share.params:.1%} of the parameters and {share.macs:.1%} "
        "of the MACs may be cut."
    )


def proof_line(proof: Proof) -> str:
    """Say in one line what was proved, and how exact it came out."""
    return f"Proof: {proof}."


def total_line(change: ModelChange) -> str:
    """Say in one line what became of parameters and MACs."""
    return (
        f"Parameters {_arrow(change.params)} ({change.params.share:.1%}), "
        f"MACs {_arrow(change.macs)} ({change.macs.share:.1%})."
    )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def _bar(part: int, whole: int, width: int = 12) -> str:
    share = part / whole if whole else 0.0
    return f"{bar(share, width)} {share:4.0%}"


def _costs(change: ModelChange | LayerChange) -> tuple[str, str]:
    return _arrow(change.params), _arrow(change.macs)


def _arrow(change: Change, plain: bool = False) -> str:
    write = str if plain else short_count
    if change.before == change.after:
        return write(change.before)
    return f"{write(change.before)} → {write(change.after)}"
