"""The picture: the article's panels, both formats, the same bytes again, and a clear word where it cannot be drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from secateur.errors import ArtifactError, RuntimeMissingError
from secateur.measurement.layers import Change, LayerChange, ModelChange
from secateur.reporting.figures import check_figure, draw_widths, split_panels


def change(layers: int, prefix: str = "features.") -> ModelChange:
    rows = [
        LayerChange(f"{prefix}{i}", "Conv2d", Change(16 + i, 4 + i // 4), Change(10, 2), Change(100, 7))
        for i in range(layers)
    ]
    return ModelChange(tuple(rows), Change(3_504_872, 362_900), Change(1_670_000_000, 92_000_000))


def test_53_layers_are_split_as_in_the_article() -> None:
    panels = split_panels(change(53).layers)
    assert [(panel.first, panel.first + len(panel.layers) - 1) for panel in panels] == [(0, 15), (16, 32), (33, 52)]


@pytest.mark.parametrize(("layers", "panels"), [(1, 1), (5, 1), (21, 3), (156, 3)])
def test_every_layer_is_in_one_panel(layers: int, panels: int) -> None:
    found = split_panels(change(layers).layers)
    assert len(found) == panels
    assert tuple(layer for panel in found for layer in panel.layers) == change(layers).layers


def test_what_is_outside_the_backbone_has_a_panel_of_its_own() -> None:
    layers = change(52, "backbone.").layers + change(9, "head.").layers
    panels = split_panels(layers, "backbone")
    assert [panel.first for panel in panels] == [0, 16, 33, 52]
    assert panels[-1].layers == layers[52:]


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
@pytest.mark.parametrize("layers", [3, 53, 156])
def test_a_picture_is_drawn_the_same_twice(tmp_path: Path, suffix: str, start: bytes, layers: int) -> None:
    pytest.importorskip("matplotlib")
    draw_widths(change(layers), "A net", tmp_path / f"a{suffix}")
    draw_widths(change(layers), "A net", tmp_path / f"b{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    assert data.startswith(start)
    assert data == (tmp_path / f"b{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_other_formats_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ArtifactError, match=r"\.svg or \.png"):
        check_figure("widths.bmp")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeMissingError, match=r"secateur\[plot\]"):
        check_figure("widths.png")
