"""What models' mattes are worth, side by side: tables, JSON, and a contact sheet of the worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from secateur.matting.evaluating import Evaluation, Matter, compare, read_truth, worst
from secateur.matting.metrics import BAND, METRICS, Score
from secateur.measurement.statistics import Comparison, Estimate
from secateur.reporting.numbers import number_of
from secateur.reporting.sheets import Tile, difference, draw_sheet, grey, small

WORST = 10


@dataclass(frozen=True)
class Compared:
    """Several models on one data set; they are compared by one of the metrics.

    Attributes:
        title: the data set's.
        metric: the one that they are compared by.
        models: the evaluations, by model.
    """

    title: str
    metric: str
    models: Mapping[str, Evaluation]

    def worst(self) -> list[int]:
        """Return the places of the portraits on which the worst of the models is farthest off."""
        return worst(list(self.models.values()), self.metric, WORST)

    def to_first(self, model: str) -> tuple[Comparison | None, Comparison | None]:
        """Return how a model differs from the first one: over everything, and on the boundary."""
        return compare(next(iter(self.models.values())), self.models[model], self.metric)


def score_table(compared: Compared) -> Table:
    """Return a row for each model over the whole picture, and one over the boundary, with the ratio to the first."""
    first, *others = compared.models
    means = {name: one.means for name, one in compared.models.items()}
    metrics = [name for name in means[first] if not math.isnan(means[first][name].whole)]
    table = Table(title=compared.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("pixels")
    for title in metrics:
        table.add_column(title, justify="right")
    if others:
        table.add_column(f"{compared.metric} to the first", justify="right")
        table.add_column("95 %", justify="right")
    for name in compared.models:
        ratios = [None if one is None else one.ratio for one in compared.to_first(name)]
        for place, pixels in enumerate(Score._fields):
            shown = (_number(means[name][title][place]) for title in metrics)
            ratio = ("", "") if name == first else _ratio(ratios[place])
            table.add_row(Text("" if place else name), pixels, *shown, *(ratio if others else ()))
        table.add_section()
    return table


def worst_table(compared: Compared) -> Table:
    """Return the portraits on which the worst of the models is farthest off, with what each model has there."""
    table = Table(
        title=f"The worst, by {compared.metric}", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.add_column("", overflow="fold")
    for name in compared.models:
        table.add_column(Text(name), justify="right")
    names = [one.name for one in next(iter(compared.models.values())).judged]
    for place in compared.worst():
        shown = (_number(one.values(compared.metric)[place, 0]) for one in compared.models.values())
        table.add_row(Text(names[place]), *shown)
    return table


def convention_line(metrics: Sequence[str]) -> str:
    """Say what the metrics compute."""
    return "; ".join([*(f"{name}: {METRICS[name].convention}" for name in metrics), BAND])


def convention_json(metrics: Sequence[str]) -> dict[str, str]:
    """Return the same for machines."""
    return {**{name: METRICS[name].convention for name in metrics}, "boundary": BAND}


def evaluation_json(compared: Compared) -> dict[str, Any]:
    """Return a data set's scores for machines; what is not known is null."""
    models = []
    for number, (name, evaluation) in enumerate(compared.models.items()):
        pictures = [{"name": one.name, **_scores(one.scores)} for one in evaluation.judged]
        found: dict[str, Any] = {"model": name, "mean": _scores(evaluation.means), "pictures": pictures}
        if number:
            parts = zip(Score._fields, compared.to_first(name), strict=True)
            found["to_first"] = {part: _comparison(one) for part, one in parts}
        models.append(found)
    names = [one.name for one in next(iter(compared.models.values())).judged]
    return {
        "data": compared.title,
        "metric": compared.metric,
        "models": models,
        "worst": [names[place] for place in compared.worst()],
    }


def draw_worst(found: Sequence[Compared], matters: Mapping[str, Matter], path: str | Path) -> None:
    """Draw the worst portraits of some data sets: the picture, the true matte, each model's, and how it is off.

    Args:
        found: the data sets.
        matters: the models, by the names that they have in `found`.
        path: the picture, SVG or PNG by its suffix.

    Raises:
        ArtifactError: the file cannot be written.
        RuntimeMissingError: matplotlib is not installed.
    """
    places = [(compared, place) for compared in found for place in compared.worst()]

    def farthest(of: tuple[Compared, int]) -> float:
        compared, place = of
        return max(one.values(compared.metric)[place, 0] for one in compared.models.values())

    shown = sorted(places, key=farthest, reverse=True)[:WORST]
    rows = [_row(compared, place, matters) for compared, place in shown]
    title = f"The worst {len(rows)} by {found[0].metric}; errors: red too much, blue too little, square root"
    draw_sheet(rows, title, path)


def _row(compared: Compared, place: int, matters: Mapping[str, Matter]) -> list[Tile]:
    worst_model = max(compared.models, key=lambda name: compared.models[name].values(compared.metric)[place, 0])
    judged = compared.models[worst_model].judged[place]
    picture, truth = read_truth(judged.shown)
    tiles = [Tile(small(picture), judged.shown.name), Tile(small(grey(truth)), "true matte")]
    for name, matte_of in matters.items():
        found = matte_of(picture)
        value = compared.models[name].values(compared.metric)[place, 0]
        tiles += [
            Tile(small(grey(found)), f"{name}: {compared.metric} {_number(value)}"),
            Tile(small(difference(found, truth)), "errors"),
        ]
    return tiles


def _number(value: float) -> str:
    return "" if math.isnan(value) else number_of(float(value))


def _ratio(ratio: Estimate | None) -> tuple[str, str]:
    if ratio is None:
        return "", ""
    return f"{number_of(ratio.value)}x", f"{number_of(ratio.low)}–{number_of(ratio.high)}"


def _scores(scores: Mapping[str, Score]) -> dict[str, dict[str, float | None]]:
    return {
        name: {part: _known(value) for part, value in zip(Score._fields, score, strict=True)}
        for name, score in scores.items()
    }


def _comparison(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {what: {part: _known(value) for part, value in vars(one).items()} for what, one in vars(found).items()}


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
