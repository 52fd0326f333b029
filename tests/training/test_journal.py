"""TensorBoard's events say what the tables of a run say, also of one that was stopped and went on."""

from __future__ import annotations

import struct

import pytest

from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from tests.training.toys import Lines, Slope, finish, network, rows, start

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")

SCRIPT = """
import sys
from contextlib import suppress
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from tests.training.toys import Lines, Slope, network

recipe = Recipe(steps=12, batch=4, save_every=3, validate_every=3, warmup=2)


def stop(stand):
    if stand.step == int(sys.argv[2]):
        raise KeyboardInterrupt


with suppress(KeyboardInterrupt):
    fit(network(), Lines(), Slope(), recipe, sys.argv[1], resume=True, on_step=stop)
"""


def events_of(path):
    """Return the events of a file of TensorBoard's: records of a length, its checksum, the event and its checksum."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event()
        event.ParseFromString(data[12 : 12 + length])
        found.append(event)
        data = data[16 + length :]
    return found


def curves_of(folder):
    """Return the points that TensorBoard shows, by the curve's name; those from a restart's step on it takes out."""
    curves = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        for event in events_of(path):
            if event.session_log.status == event.session_log.START:
                for points in curves.values():
                    points[:] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def table_of(folder, name, column):
    head, *body = rows(folder, name)
    return [(int(row[0]), pytest.approx(float(row[head.index(column)]), rel=1e-6)) for row in body]


def run(folder, *stops):
    """Train, stopped after these steps and resumed, each time by a process of its own."""
    for last in (*stops, 12):
        finish(start(SCRIPT, folder, last))


def test_events_hold_the_rate_every_loss_and_every_validation(tmp_path):
    run(tmp_path)
    curves = curves_of(tmp_path)
    assert set(curves) == {"loss/rate", "loss/total", "loss/error", "validation/error"}
    for curve, points in curves.items():
        kind, column = curve.split("/")
        assert points == table_of(tmp_path, {"loss": "steps.csv", "validation": "validation.csv"}[kind], column)
    assert [step for step, _ in curves["loss/total"]] == list(range(1, 13))
    assert [step for step, _ in curves["validation/error"]] == [3, 6, 9, 12]


def test_the_curves_of_a_run_that_was_stopped_and_went_on_are_whole(tmp_path):
    run(tmp_path, 6)
    curves = curves_of(tmp_path)
    assert curves["loss/total"] == table_of(tmp_path, "steps.csv", "total")
    assert curves["validation/error"] == table_of(tmp_path, "validation.csv", "error")


def test_events_are_on_the_disk_when_training_is_done(tmp_path):
    fit(network(), Lines(), Slope(), Recipe(steps=12, batch=4, validate_every=3), tmp_path)
    assert curves_of(tmp_path)["loss/total"] == table_of(tmp_path, "steps.csv", "total")
