"""The page and the picture of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateur.artifact.atomic import write_atomically
from secateur.reporting.figures import STYLE, import_matplotlib, save_figure
from secateur.runtimes.machine import this_machine

Records = Sequence[dict[str, Any]]

HEAD = """# Pruned without labels

Written by `python benchmarks/recover.py`; do not edit. Measured on {machine}.

Scores are the share of test pictures that are right, in percent. No label and no gradient is used to prune or to
compensate, except where it says so. Seconds (s) of `secateur, defaults` were measured with nothing else running, those
of the others on a machine with other work beside it.
"""
WITHOUT_PICTURES = ("l1", "l2", "fpgm", "lamp", "bn_scale", "random")
T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}  # Student's t, by degrees of freedom


def write(records: Records, folder: Path) -> None:
    """Write docs/recovery.md and docs/recovery.png."""
    parts = [HEAD.format(machine=this_machine()), _imagenet(records), _criteria(records), _curves(records)]
    parts += [_quality(records), _modnet(records)]
    write_atomically(folder / "recovery.md", "\n".join(part for part in parts if part).encode())
    if any(record["part"] == "curves" for record in records):
        draw(records, folder / "recovery.png")


def _of(records: Records, **key: Any) -> list[dict[str, Any]]:
    return [record for record in records if key.items() <= record.items()]


def _mean(values: Sequence[float]) -> str:
    """Return a mean with its 95 % interval over draws."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return f"{mean:.1f} ± {T95[len(values) - 1] * deviation / math.sqrt(len(values)):.1f}"


def _score(rows: Records) -> str:
    return _mean([row["score"] for row in rows]) if rows else ""


def _averages(rows: Records, *names: str) -> dict[Any, float]:
    """Return the mean score over draws, by one key or several."""
    scores: dict[Any, list[float]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        scores.setdefault(key if len(names) > 1 else key[0], []).append(row["score"])
    return {key: sum(own) / len(own) for key, own in scores.items()}


def _imagenet(records: Records) -> str:
    rows = _of(records, part="imagenet")
    if not rows:
        return ""
    full = {row["seed"]: row["score"] for row in rows if row["way"] == "full"}
    budgets = sorted({row["budget"] for row in rows if "budget" in row}, reverse=True)
    lines = [
        "## MobileNetV2 on ImageNet\n",
        (
            f"torchvision's weights; 192 pictures to calibrate on, 308 of other classes to test on, {len(full)} draws "
            f"(mean and 95 % interval over them). The full model: {_mean(list(full.values()))}. **Lost**: points below "
            "the full model on the same pictures. The peer's `MetaPruner` steps until the MACs are met; its Taylor "
            "importance has the gradient of the cross-entropy with the model's own answers.\n"
        ),
        "| way | " + " | ".join(f"{b:g}x MACs: right | lost | s" for b in budgets) + " |",
        "|---|" + "---:|---:|---:|" * len(budgets),
    ]
    ways = dict.fromkeys(row["way"] for row in rows if row["way"] != "full")
    for way in sorted(ways, key=lambda way: not way.startswith("secateur")):
        cells = []
        for budget in budgets:
            own = [row for row in rows if row["way"] == way and row.get("budget") == budget]
            lost = [full[row["seed"]] - row["score"] for row in own]
            seconds = f"{sum(row['seconds'] for row in own) / len(own):.0f}" if own else ""
            cells += [_mean([row["score"] for row in own]), _mean(lost), seconds] if own else ["", "", ""]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _on_mimicking(rows, budgets)]) + "\n"


def _on_mimicking(rows: Records, budgets: Sequence[float]) -> str:
    gained = []
    for budget in budgets:
        without, with_it = (
            {row["seed"]: row["score"] for row in _of(rows, way=way, budget=budget)}
            for way in ("secateur, defaults", "secateur, defaults and 60 steps of mimicking")
        )
        seeds = without.keys() & with_it.keys()
        if seeds:
            gained.append(f"{_mean([with_it[seed] - without[seed] for seed in seeds])} at {budget:g}x")
    return (
        f"Mimicking adds {', '.join(gained)}. The weights that it begins with are the least-squares answer of every "
        "layer already, so what is left to learn from the same 192 pictures is little, and a held-out part keeps only "
        "what helps on others. It pays where groups lose the same share by L1 (see the curves below)."
    )


def _criteria(records: Records) -> str:
    rows = _of(records, part="criteria")
    if not rows:
        return ""
    budgets = sorted({row["budget"] for row in rows}, reverse=True)
    columns = [("group", "none", "cut"), ("group", "ridge", "ridge"), ("loss", "ridge", "by loss, ridge")]
    lines = [
        "## Criteria\n",
        (
            f"The same network, {len({row['seed'] for row in rows})} draws (mean and 95 % interval): each criterion "
            "with every group losing the same share, as it was cut and compensated; and with groups ranked by what the "
            'outputs lose with a quarter of each (`ranking="loss"`), compensated. One point is three pictures.\n'
        ),
        "| criterion | " + " | ".join(f"{b:g}x {c[2]}" for b in budgets for c in columns) + " |",
        "|---|" + "---:|" * (len(budgets) * 3),
    ]
    for criterion in dict.fromkeys(row["criterion"] for row in rows if "criterion" in row):
        cells = []
        for budget in budgets:
            for ranking, way, _ in columns:
                cells.append(_score(_of(rows, criterion=criterion, budget=budget, ranking=ranking, way=way)))
        lines.append(f"| {criterion} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _on_defaults(rows, budgets), "", *_peers(rows, budgets)]) + "\n"


def _peers(rows: Records, budgets: Sequence[float]) -> list[str]:
    """Write the table of the peer's criteria."""
    columns = [("none", "cut"), ("statistics", "statistics anew")]
    lines = [
        "Torch-Pruning's criteria, by its `MetaPruner`, the norms' statistics estimated again on the same pictures:\n",
        "| importance | " + " | ".join(f"{b:g}x {c[1]}" for b in budgets for c in columns) + " |",
        "|---|" + "---:|" * (len(budgets) * 2),
    ]
    for peer in dict.fromkeys(row["peer"] for row in rows if "peer" in row):
        cells = [_score(_of(rows, peer=peer, budget=budget, way=way)) for budget in budgets for way, _ in columns]
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return lines


def _on_defaults(rows: Records, budgets: Sequence[float]) -> str:
    """Say what the table says of the defaults of `prune`."""
    blind, seeing = [], []
    for budget in budgets:
        own = [row for row in _of(rows, budget=budget) if "criterion" in row]
        cut = _averages(_of(own, way="none"), "criterion")
        best = max(WITHOUT_PICTURES, key=cut.__getitem__)
        blind.append(f"{cut[best]:.1f} by {best} at {budget:g}x (l1: {cut['l1']:.1f})")
        ridge = _averages(_of(own, way="ridge"), "criterion", "ranking")
        first, second = sorted(ridge, key=ridge.__getitem__, reverse=True)[:2]
        told = [f"{ridge[one]:.1f} by {one[0]}, ranked by {one[1]}" for one in (first, second)]
        seeing.append(f"{told[0]}, then {told[1]}, at {budget:g}x")
    return (
        f"The best with pictures: {'; '.join(seeing)}. `prune` with `calibrate` takes obs, and ranks by loss. The best "
        f"without: {'; '.join(blind)}. Next to nothing is left by any of them, and no order holds from one budget to "
        "the next, so without pictures `prune` takes the plain l1."
    )


def _curves(records: Records) -> str:
    rows = _of(records, part="curves")
    if not rows:
        return ""
    lines = ["## By ratio\n", "![Right answers by ratio](recovery.png)\n"]
    for subject in dict.fromkeys(row["subject"] for row in rows):
        own = [row for row in rows if row["subject"] == subject and row["way"] != "full"]
        ratios = sorted({row["ratio"] for row in own})
        full = _of(rows, subject=subject, way="full")
        lines += [
            (
                f"**{subject}**, trained here; the full model: {full[0]['score']:.1f}. `+ 1`: trained on for one "
                f"epoch. {len({row['seed'] for row in own})} draws of 192 pictures (mean and 95 % interval). "
                "Torch-Pruning: GroupMagnitude, in steps to the MACs that l1 has at that ratio.\n"
            ),
            "| way | " + " | ".join(f"{ratio:g}" for ratio in ratios) + " |",
            "|---|" + "---:|" * len(ratios),
        ]
        for criterion, way, epochs in dict.fromkeys((row["criterion"], row["way"], row["epochs"]) for row in own):
            cells = [_score(_of(own, criterion=criterion, way=way, epochs=epochs, ratio=one)) for one in ratios]
            lines.append(f"| {_name(criterion, way, epochs)} | " + " | ".join(cells) + " |")
        lines += ["", _on_training(own), ""]
    return "\n".join(lines)


def _on_training(rows: Records) -> str:
    """Say where a compensated network that is trained on is ahead of one that was cut by L1 and trained as long."""
    trained = [row for row in rows if row["epochs"]]
    plain = {(row["ratio"], row["seed"]): row["score"] for row in _of(trained, criterion="l1", way="none")}
    told = []
    for criterion, way in (("l1", "ridge"), ("l1", "mimicking"), ("obs", "ridge"), ("Torch-Pruning", "none")):
        gained: dict[float, list[float]] = {}
        for row in _of(trained, criterion=criterion, way=way):
            gained.setdefault(row["ratio"], []).append(row["score"] - plain[row["ratio"], row["seed"]])
        points = ", ".join(f"{_mean(own)} at {ratio:g}" for ratio, own in sorted(gained.items()))
        told.append(f"{criterion}, {way}: {points}")
    return f"Points gained over l1, none, both trained on for one epoch: {'; '.join(told)}."


def _name(criterion: str, way: str, epochs: int) -> str:
    return f"{criterion}, {way}{f' + {epochs}' if epochs else ''}"


def _quality(records: Records) -> str:
    rows = _of(records, part="quality")
    if not rows:
        return ""
    lines = [
        "## To a quality\n",
        '`quality="-1%"`: searched on one half of the test pictures, judged on the other.\n',
        "| network | MACs | full, searched | small, searched | full, judged | small, judged |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [*row["searched"], *row["judged"]]
        lines.append(f"| {row['subject']} | {row['macs']:.2f}x | " + " | ".join(f"{one:.1f}" for one in cells) + " |")
    return "\n".join(lines) + "\n"


def _modnet(records: Records) -> str:
    rows = _of(records, part="modnet")
    if not rows:
        return ""
    steps = {name: value for name, value in rows[0].items() if name not in ("part", "macs")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in steps.items())
    return (
        f"## MODNet\n\nA quarter of the MACs, 48 portraits at 256x256, ImageNet's backbone and random branches: "
        f"relative error of its outputs on held-out portraits after each step: {shown}.\n"
    )


def draw(records: Records, path: Path) -> None:
    """Draw right answers by ratio, a panel a network."""
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    rows = _of(records, part="curves")
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6 * len(subjects), 4.2), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(subjects), squeeze=False)[0]
        for panel, subject in zip(panels, subjects, strict=True):
            own = [row for row in rows if row["subject"] == subject and row["way"] != "full"]
            panel.axhline(_of(rows, subject=subject, way="full")[0]["score"], color="#6B7580", linewidth=0.8)
            ways = list(dict.fromkeys((row["criterion"], row["way"], row["epochs"]) for row in own))
            colours = matplotlib.colormaps["turbo"](
                [0.05 + 0.9 * at / max(len(ways) - 1, 1) for at in range(len(ways))]
            )
            for way, colour in zip(ways, colours, strict=True):
                of_way = [row for row in own if way == (row["criterion"], row["way"], row["epochs"])]
                points = sorted(_averages(of_way, "ratio").items())
                style = "--" if way[2] else "-"
                panel.plot(
                    *zip(*points, strict=True), style, color=colour, marker="o", markersize=2.5, label=_name(*way)
                )
            panel.set_title(subject, loc="left", fontweight="bold", fontsize=9)
            panel.set_xlabel("share of every group cut")
            panel.set_ylabel("test pictures right, %")
            panel.spines[["top", "right"]].set_visible(False)
        figure.legend(*panels[-1].get_legend_handles_labels(), frameon=False, fontsize=7, loc="outside right upper")
        save_figure(figure, path)
