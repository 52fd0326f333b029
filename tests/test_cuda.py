"""The same on a GPU: skipped where there is none."""

import subprocess
import sys

import pytest
import torch

import secateur
from secateur.models import LeNet
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.models.modnet import MODNet
from secateur.runtimes.packages import is_installed
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
FABRIC = is_installed("lightning_fabric") or is_installed("lightning")
MODELS = [(LeNet, (2, 1, 28, 28)), (MobileNetV2, (2, 3, 64, 64)), (MODNet, (1, 3, 64, 64))]


def run(*words):
    return subprocess.run([sys.executable, "-m", "secateur.cli", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("kind", "shape"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_model_on_the_gpu_is_cut_there_as_it_is_on_the_cpu(kind, shape):
    torch.manual_seed(0)
    model, example = kind().eval(), torch.randn(shape)
    expected, plan = secateur.prune(model, example, ratio=0.5)
    found, same = secateur.prune(model.cuda(), example.cuda(), ratio=0.5)
    assert same.keep == plan.keep
    assert {value.device.type for value in found.state_dict().values()} == {"cuda"}
    for name, value in found.state_dict().items():
        assert torch.equal(value.cpu(), expected.state_dict()[name]), name


def test_what_pictures_say_is_computed_on_the_gpu():
    torch.manual_seed(0)
    model = MobileNetV2().cuda().eval()
    batches = [torch.randn(4, 3, 64, 64).cuda() for _ in range(3)]
    small, _ = secateur.prune(model, batches[0], macs="0.5x", calibrate=batches)
    plain, _ = secateur.prune(model, batches[0], macs="0.5x")
    with torch.no_grad():
        wanted = model(batches[0])
        errors = [float((one(batches[0]) - wanted).square().mean()) for one in (small, plain)]
    assert next(small.parameters()).is_cuda
    assert errors[0] < errors[1]


@pytest.mark.slow
def test_time_is_measured_on_the_gpu():
    torch.manual_seed(0)
    model, example = MobileNetV2().cuda().eval(), torch.randn(8, 3, 128, 128).cuda()
    small, _ = secateur.prune(model, example, latency="0.9x", on="torch", device="cuda")
    assert small(example).shape == (8, 1000)


def test_the_command_times_a_network_on_the_gpu():
    words = ["--on", "torch", "--device", "cuda", "--precision", "fp32,fp16", "--size", "64x64", "--seconds", "0.3"]
    done = run("bench", "modnet-small", *words)
    assert done.returncode == 0, done.stderr
    assert "cuda" in done.stdout


class Halves:
    """Points and half of them."""

    def __getitem__(self, index):
        point = torch.randn(2, generator=torch.Generator().manual_seed(index))
        return {"point": point, "half": point / 2}

    def losses(self, model, batch):
        return {"error": (model(batch["point"]) - batch["half"]).square().mean()}

    def validate(self, model):
        device = next(model.parameters()).device
        return {"error": float(self.losses(model, {k: v[None].to(device) for k, v in self[99].items()})["error"])}


@pytest.mark.skipif(not FABRIC, reason="Lightning Fabric is not installed")
def test_a_network_is_trained_on_the_gpu_and_comes_back(tmp_path):
    model = torch.nn.Linear(2, 2)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = fit(model, Halves(), Halves(), Recipe(steps=6, batch=4, warmup=1, validate_every=3), tmp_path)
    assert not next(found.parameters()).is_cuda
    assert any(not torch.equal(value, start[name]) for name, value in found.state_dict().items())
