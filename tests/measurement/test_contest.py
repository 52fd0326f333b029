"""Networks in processes of their own take turns; what does not fit is OOM, what fails is told, the rest goes on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.errors import MeasurementError, RuntimeUnfitError
from secateur.measurement.contest import OPENINGS, ROUNDS, contest
from secateur.models import LeNet
from secateur.runtimes.network import Network
from secateur.runtimes.session import Options
from secateur.runtimes.shapes import Sizes

DIGITS = torch.zeros(1, 1, 28, 28)


def lenet(name):
    return Network.of_model(name, LeNet().eval(), DIGITS)


def test_turns_are_taken_and_details_told():
    heard = []
    first, other = contest([lenet("a"), lenet("b")], "torch", Options(threads=1), Sizes(2), 0, heard.append)
    assert (first.network, other.network, first.sizes.batch) == ("a", "b", 2)
    assert [len(one) for one in first.milliseconds] == [ROUNDS] * OPENINGS == [len(one) for one in other.milliseconds]
    assert first.load_ms > 0
    assert first.first_ms > 0
    assert first.peak_bytes > 50e6
    assert first.throughput == pytest.approx(2e3 / first.spread.median)
    ratio = other.times_as_fast_as(first)
    assert ratio.low <= ratio.value <= ratio.high
    assert {"a alone", "opening b"} <= set(heard)


def test_what_does_not_fit_into_memory_is_oom_and_the_others_are_measured():
    class_of = Network.of_model("large", nn.Conv2d(1, 4096, 1), DIGITS)
    small, large = contest([lenet("small"), class_of], "torch", Options(threads=1), Sizes(4096), 0)
    assert small.milliseconds
    assert (large.status, large.milliseconds) == ("OOM", ())
    assert large.times_as_fast_as(small) is None


def test_a_network_that_fails_says_why():
    closed = Network.of_model("closed", nn.Flatten(), DIGITS)
    closed.form.model = nn.Linear(3, 3)
    fine, failed = contest([lenet("fine"), closed], "torch", Options(threads=1), Sizes(1), 0)
    assert fine.milliseconds
    assert failed.status == "failed"
    assert "RuntimeError" in failed.why


def test_a_model_that_cannot_be_sent_says_what_would_help():
    network = lenet("lenet")
    network.form.model.hook = lambda: None
    (cell,) = contest([network], "torch", Options(), Sizes(1), 0)
    assert cell.status == "failed"
    assert "measure its exported file" in cell.why


def test_what_makes_no_sense_is_refused():
    with pytest.raises(MeasurementError, match="none twice"):
        contest([lenet("a"), lenet("a")], "torch", Options(), Sizes(1))
    with pytest.raises(RuntimeUnfitError, match="no runtime"):
        contest([lenet("a")], "tourch", Options(), Sizes(1))
