"""Small things to train, by this process or by others that are started for it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn


class Lines(torch.utils.data.Dataset):
    """Points in the plane and what they are mapped to, by number."""

    def __getitem__(self, index):
        point = torch.randn(2, generator=torch.Generator().manual_seed(index))
        return {"point": point, "value": point[:1] * 2 - point[1:] * 0.5}


class Slope:
    """Squared error, and the same on points that are not trained on."""

    def losses(self, model, batch):
        return {"error": (model(batch["point"]) - batch["value"]).square().mean()}

    def validate(self, model):
        assert not model.training
        points = torch.linspace(-1, 1, 32).view(16, 2)
        with torch.no_grad():
            return {"error": float((model(points) - points[:, :1] * 2 + points[:, 1:] * 0.5).square().mean())}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))


def normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


def start(script, folder, processes=1, pause=0.0):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}/src:{root}", "OMP_NUM_THREADS": "1"}
    (folder / "run.py").write_text(script)
    command = [sys.executable, str(folder / "run.py"), str(folder), str(processes), str(pause)]
    return subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.PIPE, text=True)


def finish(run, seconds=None):
    told = run.communicate(timeout=seconds)[1]
    assert run.returncode == 0, told


def rows(folder, name="steps.csv"):
    with (folder / name).open() as file:
        return list(csv.reader(file))
