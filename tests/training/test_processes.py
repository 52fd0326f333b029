"""Training by several processes, and by one that is killed: the same curve and weights."""

import random
import signal
import time

import pytest
import torch

from secateur.errors import TrainingError
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from tests.training.toys import Lines, Slope, finish, normed, rows, start

NORMED = """
import sys, time
import torch
from torch import nn
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from tests.training.toys import Lines, Slope, normed

folder, processes, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
recipe = Recipe(steps=24, batch=4, save_every=3, validate_every=6, warmup=2, seed=3)
found = fit(normed(), Lines(), Slope(), recipe, folder, True, processes, lambda _: time.sleep(pause))
torch.save(found.state_dict(), f"{folder}/found.pth")
"""


BLURRED = """
import sys
import cv2, numpy
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from tests.training.toys import Lines, Slope, network

class Blurred(Lines):
    def __getitem__(self, index):
        assert cv2.getNumThreads() == 1
        cv2.GaussianBlur(picture, (0, 0), 5)
        return super().__getitem__(index)

cv2.setNumThreads(2)
picture = numpy.random.rand(1000, 1000, 3)
cv2.GaussianBlur(picture, (0, 0), 5)
fit(network(), Blurred(), Slope(), Recipe(steps=4, batch=2, workers=2), sys.argv[1])
assert cv2.getNumThreads() == 2
"""


def test_killed_training_goes_on_with_the_same_curve_and_weights(tmp_path):
    (whole := tmp_path / "whole").mkdir()
    (killed := tmp_path / "killed").mkdir()
    finish(start(NORMED, whole))
    for after in sorted(random.sample(range(2, 23), 5)):
        run = start(NORMED, killed, pause=0.05)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and run.poll() is None:
            if (killed / "steps.csv").exists() and len((killed / "steps.csv").read_text().splitlines()) > after:
                break
            time.sleep(0.005)
        time.sleep(0.06 * random.random())  # a step, and what is written after it
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert run.returncode == -signal.SIGKILL
    finish(start(NORMED, killed))
    assert (killed / "steps.csv").read_bytes() == (whole / "steps.csv").read_bytes()
    assert (killed / "validation.csv").read_bytes() == (whole / "validation.csv").read_bytes()
    one, other = (torch.load(folder / "found.pth", weights_only=True) for folder in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_without_equal_parts_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="A batch of 5 has no 2 equal parts"):
        fit(normed(), Lines(), Slope(), Recipe(steps=2, batch=5), tmp_path, processes=2)
    assert not any(tmp_path.iterdir())


def test_two_processes_give_the_curve_and_norms_of_one(tmp_path):
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    finish(start(NORMED, one))
    finish(start(NORMED, two, processes=2))
    first, second = (torch.tensor([float(row[2]) for row in rows(folder)[1:]]) for folder in (one, two))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    found = [torch.load(folder / "found.pth", weights_only=True) for folder in (one, two)]
    for name in ("1.running_mean", "1.running_var", "1.weight", "1.bias", "0.weight"):
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)


def test_processes_that_make_samples_with_opencv_take_a_core_each(tmp_path):
    pytest.importorskip("cv2")
    finish(start(BLURRED, tmp_path), seconds=120)
    assert len(rows(tmp_path)) == 5
