"""What layers take at several widths, and what of it falls with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.measurement import tables
from secateur.measurement.tables import savings_of, table_of
from secateur.runtimes.session import Options


@pytest.mark.parametrize(
    ("points", "saved"),
    [
        ([[100, 6.0], [25, 3.0]], 4.0),  # two that are there whatever is cut
        ([[100, 6.0], [50, 3.0]], 6.0),  # in proportion
        ([[100, 6.0], [50, 1.0]], 5.2),  # a part below zero makes no sense: in proportion, by least squares
        ([[100, 1.0], [50, 1.5]], 0.0),  # no cut saves anything
        ([[100, 3.0]], 3.0),
        ([[0, 3.0]], 0.0),
    ],
)
def test_a_time_has_a_part_that_falls_with_the_macs_and_one_that_stays(points, saved):
    assert savings_of({"layer": points})["layer"] == pytest.approx(saved)


def test_layers_are_measured_at_several_widths_and_once_for_all(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 1)).eval()
    example = torch.zeros(1, 3, 64, 64)
    found = table_of(model, example, "onnxruntime", Options(threads=1))
    assert set(found) == {"0", "2", "4"}
    macs = [count for count, _ in found["2"]]
    assert macs == pytest.approx([macs[0] * share**2 for share in tables.SHARES])
    assert all(milliseconds > 0 for points in found.values() for _, milliseconds in points)
    assert 0 <= savings_of(found)["2"] <= 2 * found["2"][0][1]
    monkeypatch.setattr(tables, "profile", lambda *given: pytest.fail("it was measured before"))
    assert table_of(model, example, "onnxruntime", Options(threads=1)) == found
