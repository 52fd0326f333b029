"""The step of a runtime is found from times by width, for the kinds of layer that a model has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.errors import MeasurementError
from secateur.measurement.staircase import WIDTHS, Kind, kinds_of, probe, step_of
from secateur.models import MobileNetV2
from secateur.runtimes.session import Options

CONV = Kind("conv 3x3", 3, False, 64, 1.0)


def times(step, waste=0.0):
    """Return times of a runtime that computes `step` channels at once."""
    return {"conv 3x3": {width: (-(-width // step) * step) ** 2 * (1 + waste * (width % 3)) for width in WIDTHS}}


@pytest.mark.parametrize("step", [1, 4, 8, 16])
def test_the_step_is_that_of_the_vectors(step):
    assert step_of([CONV], times(step)) == step
    assert step_of([CONV], times(step, waste=0.01)) in (step, max(step // 2, 1))


def test_kinds_are_those_that_take_most_of_the_macs():
    found = kinds_of(MobileNetV2().eval(), torch.zeros(1, 3, 128, 128))
    assert [kind.name for kind in found] == ["conv 1x1", "depthwise 3x3", "conv 3x3"]
    assert 0.8 < found[0].share < 1
    assert 0.9 < sum(kind.share for kind in found) <= 1
    assert [kind.name for kind in kinds_of(nn.Linear(4, 4), torch.zeros(1, 4))] == ["linear"]
    with pytest.raises(MeasurementError, match=r"neither 2-d convolutions nor linear layers.*--round-to 8"):
        kinds_of(nn.ReLU(), torch.zeros(1, 4))


def test_what_was_measured_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    model, example, widths = nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 16, 16), (16, 32)
    first = probe(model, example, "torch", Options(threads=1), widths)
    assert first.milliseconds["conv 3x3"].keys() == {16, 32}
    heard = []
    again = probe(model, example, "torch", Options(threads=1), widths, heard.append)
    assert (again.milliseconds, heard) == (first.milliseconds, [])
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    probe(model, example, "torch", Options(threads=1), widths, heard.append)
    assert heard
