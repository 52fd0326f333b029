"""Where the time goes: every runtime's operations are put to the model's own layers, with their MACs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.errors import MeasurementError
from secateur.measurement.profiling import REST, profile
from secateur.models import MobileNetV2, MODNet
from secateur.runtimes.network import Network
from secateur.runtimes.registry import RUNTIMES, presence_of
from secateur.runtimes.session import Options
from secateur.runtimes.shapes import Sizes

TELLING = [name for name, one in RUNTIMES.items() if one.profile is not None and not presence_of(name).remedy]


class Reused(nn.Module):
    """Its wide convolution runs in a module that is not called itself."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"wide": nn.Conv2d(3, 64, 11, padding=5), "narrow": nn.Conv2d(64, 2, 1)})

    def forward(self, x):
        return self.body["narrow"](self.body["wide"](x).abs())


@pytest.mark.parametrize("runtime", TELLING)
def test_the_longest_layer_is_the_one_with_the_work(runtime):
    network = Network.of_model("net", Reused().eval(), torch.zeros(1, 3, 96, 96))
    found = profile(network, runtime, Options(threads=1), Sizes(2, 128, 128))
    longest = max(found.layers, key=lambda layer: layer.milliseconds)
    assert longest.layer == "body.wide"
    assert longest.macs == 2 * 128 * 128 * 3 * 64 * 121
    assert found.milliseconds == pytest.approx(sum(found.kinds.values()))


@pytest.mark.parametrize("runtime", TELLING)
@pytest.mark.parametrize("model", [MobileNetV2(), MODNet()], ids=["mobilenetv2", "modnet"])
def test_layers_are_named_as_the_model_names_them_and_keep_their_macs(model, runtime):
    network = Network.of_model("net", model.eval(), torch.zeros(1, 3, 64, 64))
    found = profile(network, runtime, Options(threads=1), Sizes())
    names = {name for name, _ in model.named_modules()} | {REST, type(model).__name__}
    assert {layer.layer for layer in found.layers} <= names
    counted = {layer.layer: layer.macs for layer in found.layers if layer.macs}
    every = sum(counted.values())
    assert counted.get(REST, 0) < 0.1 * every  # some runtimes give the last operation the name of the output
    assert every == pytest.approx(sum(layer.macs or 0 for layer in found.layers))


def test_what_does_not_tell_says_which_do():
    network = Network.of_model("net", Reused().eval(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(MeasurementError, match=r"torch-compile does not tell .* These do: torch, .*openvino"):
        profile(network, "torch-compile", Options(), Sizes())
