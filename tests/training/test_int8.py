"""A network that is trained as it will be in INT8 computes what the exported file does, and loses less there."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import TrainingError
from secateur.training.int8 import AsINT8


class Small(nn.Module):
    """Convolutions, one by depth, with a norm between, a sum, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.deep, self.last = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.last((x + self.deep(x)).mean((2, 3)))


def small():
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.randn_like(parameter).mul(1.5).exp())  # weights of very different sizes
        for _ in range(20):
            model(torch.randn(8, 3, 16, 16))
    return model.eval()


def snr(found, wanted):
    return 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())


def test_it_computes_what_the_file_computes(tmp_path):
    pytest.importorskip("onnxruntime")
    from secateur.runtimes.deployment import export
    from secateur.runtimes.network import Network
    from secateur.runtimes.registry import open_network
    from secateur.runtimes.session import Options

    model, closer = small(), []
    for seed in range(5):
        x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        export(model, tmp_path / "net.onnx", x, precision="int8", samples=[[x.numpy()]] * 8)
        network = Network.of_file("net", tmp_path / "net.onnx")
        (file,) = open_network(network, "onnxruntime", Options("fp32"))(x.numpy())
        with torch.no_grad():
            plain = model(x).numpy()
            with AsINT8()(model):
                simulated = model(x).numpy()
        closer.append(snr(simulated, file) - snr(plain, file))
    assert np.median(closer) > 6  # dB


def test_what_is_kept_in_float_is_not_rounded_and_nothing_is_outside_the_context():
    model, x = small(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        plain = model(x)
        errors = []
        for kept in ((), ("first",), ("first", "deep", "last")):
            with AsINT8(kept)(model):
                errors.append(float((model(x) - plain).abs().max()))
        assert torch.equal(model(x), plain)
    assert errors[0] > 0
    assert errors[2] < errors[0]  # the sum is rounded still
    with pytest.raises(TrainingError, match=r"Small has no layer 'frist' to keep in float. Did you mean first"):
        AsINT8(["frist"])(model)
    with pytest.raises(TrainingError, match=r"no layer '' to keep in float. Known: deep, first, last, norm"):
        AsINT8([""])(model)


def test_training_in_it_wins_back_what_it_costs():
    model = small()
    data = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = copy.deepcopy(model)(data)

    def error():
        with torch.no_grad(), AsINT8()(model):
            return float((model(data) - wanted).square().mean())

    before = error()
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    for _ in range(100):
        with AsINT8()(model):
            loss = (model(data) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    assert error() < 0.8 * before


@pytest.mark.parametrize("transposed", [False, True])
def test_output_channels_have_ranges_of_their_own(transposed):
    torch.manual_seed(0)
    layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 3, 2, bias=False)
    axis = int(transposed)
    layer.weight.data.select(axis, 1).mul_(1000)
    x = torch.randn(2, 4, 6, 6)
    call = torch.conv_transpose2d if transposed else torch.conv2d
    with torch.no_grad(), AsINT8()(layer):
        found, named = layer(x), call(input=x, weight=layer.weight)
    assert torch.equal(found, named)
    with torch.no_grad():
        wanted = layer(x)
    error = (found - wanted).abs().amax((0, 2, 3)) / wanted.abs().amax((0, 2, 3))
    assert (error > 0).all()
    assert error.max() < 0.03
