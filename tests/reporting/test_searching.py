"""What a search for a time tried is in the picture: every candidate with what it keeps, and what was wanted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from secateur.measurement.layers import Change, LayerChange, ModelChange
from secateur.reporting.figures import draw_widths
from secateur.reporting.searching import draw_search

CANDIDATES = [
    {"macs": 0.50, "importance": 0.93, "time": 0.66, "low": 0.64, "high": 0.68, "milliseconds": 180.0},
    {"macs": 0.26, "importance": 0.79, "time": 0.497, "low": 0.49, "high": 0.51, "milliseconds": 137.0},
    {"macs": 0.33, "importance": 0.84, "time": 0.55, "low": 0.54, "high": 0.57, "milliseconds": 150.0},
]
FOUND = {"on": "openvino", "precision": "int8", "target": 0.5, "candidates": CANDIDATES, "chosen": CANDIDATES[1]}


def test_every_candidate_stands_where_it_was_measured() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    axes = figures.Figure().subplots()
    draw_search(axes, FOUND)
    drawn = [tuple(float(x) for x in text.xy) for text in axes.texts]
    assert sorted(drawn) == sorted((one["macs"], one["time"]) for one in CANDIDATES)
    assert [text.get_text() for text in axes.texts] == ["0.79x", "0.84x", "0.93x"]
    assert len({text.get_color() for text in axes.texts}) == 2  # the one that was kept is told from the others
    assert "openvino int8" in axes.get_title(loc="left")
    assert "0.50x, wanted" in [text.get_text() for text in axes.get_legend().get_texts()]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert all(left < x < right and low < y < high for x, y in drawn)


def test_the_panel_stands_under_those_of_the_layers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    layers = (LayerChange("0", "Conv2d", Change(16, 4), Change(10, 2), Change(100, 7)),)
    change = ModelChange(layers, Change(10, 2), Change(100, 7))
    draw_widths(change, "A net", tmp_path / "alone.png")
    draw_widths(change, "A net", tmp_path / "searched.png", below=partial(draw_search, found=FOUND))
    with image.open(tmp_path / "alone.png") as alone, image.open(tmp_path / "searched.png") as searched:
        assert searched.width == alone.width
        assert searched.height > 1.5 * alone.height
