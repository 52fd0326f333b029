"""Where the time goes: every runtime's operations are put to the model's own layers, with their MACs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.errors import MeasurementError
from secateur.graph.tracing import trace
from secateur.measurement.profiling import REST, LayerTime, Profile, profile, times_of
from secateur.models import MobileNetV2, MODNet
from secateur.runtimes.network import Network
from secateur.runtimes.paths import ITSELF, module_of
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


class Activated(nn.Module):
    """Its activations are functions, and a convolution is its end: runtimes fuse these."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("runtime", TELLING)
def test_convolutions_with_something_fused_into_them_keep_their_names(runtime):
    network = Network.of_model("net", Activated().eval(), torch.zeros(1, 3, 64, 64))
    assert set(times_of(profile(network, runtime, Options(threads=1), Sizes()))) == {"first", "second"}


@pytest.mark.parametrize("runtime", TELLING)
@pytest.mark.parametrize("model", [MobileNetV2(), MODNet()], ids=["mobilenetv2", "modnet"])
def test_layers_are_named_as_the_model_names_them_and_keep_their_macs(model, runtime):
    network = Network.of_model("net", model.eval(), torch.zeros(1, 3, 64, 64))
    found = profile(network, runtime, Options(threads=1), Sizes())
    assert {row.layer for row in found.layers} <= {name for name, _ in model.named_modules()} | {REST, ITSELF}
    macs = dict.fromkeys((row.layer for row in found.layers), 0.0) | {row.layer: row.macs for row in found.layers}
    costs = trace(
        model, (torch.zeros(1, 3, 64, 64), True) if isinstance(model, MODNet) else torch.zeros(1, 3, 64, 64)
    ).costs
    assert sum(macs.values()) == pytest.approx(costs.macs())
    assert macs.get(REST, 0) < 0.1 * costs.macs()  # some runtimes give the last operation the name of the output


@pytest.mark.parametrize("runtime", TELLING)
def test_nearly_all_layers_that_compute_get_a_time_of_their_own(runtime):
    model = MobileNetV2().eval()
    found = profile(Network.of_model("net", model, torch.zeros(1, 3, 64, 64)), runtime, Options(threads=1), Sizes())
    times = times_of(found)
    layers = {cost.layer for cost in trace(model, torch.zeros(1, 3, 64, 64)).costs.by_layer() if cost.macs}
    assert set(times) <= layers
    assert len(times) >= len(layers) - 1
    between = sum(row.milliseconds for row in found.layers if row.layer == REST)
    assert sum(times.values()) == pytest.approx(found.milliseconds - between)


def test_what_does_not_tell_says_which_do():
    network = Network.of_model("net", Reused().eval(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(MeasurementError, match=r"torch-compile does not tell .* These do: torch, .*openvino"):
        profile(network, "torch-compile", Options(), Sizes())


def test_what_is_done_around_layers_is_added_to_the_nearest():
    rows = {
        "body.conv": (4.0, {"body.conv": 30.0, "body.fused": 10.0}), "body.norm": (1.0, {}),
        "head": (3.0, {"head": 5.0}),
        ITSELF: (0.7, {}), REST: (9.0, {}),
    }  # fmt: skip
    found = Profile("net", tuple(LayerTime(name, ("op",), *row) for name, row in rows.items()), {"op": 17.7})
    body, head = 5.0 + 0.7 * 4 / 7, 3.0 + 0.7 * 3 / 7
    assert times_of(found) == pytest.approx({"body.conv": 0.75 * body, "body.fused": 0.25 * body, "head": head})


def test_of_several_modules_that_answer_to_a_name_none_is_taken():
    twins = nn.ModuleDict({one: nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1)}) for one in ("a", "b")})
    single = nn.ModuleDict({"a": nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1)})})
    assert module_of("/model/conv/Conv", twins) == ITSELF
    assert module_of("/model/conv/Conv", single) == "a.conv"
    assert module_of("/model/b/conv/Conv", twins) == "b.conv"
    assert module_of("Reorder_12", twins) == ""


def test_networks_are_told_apart_by_code_and_hyperparameters_not_by_weights():
    def identity(model, size=32):
        return Network.of_model("net", model.eval(), torch.zeros(1, 3, size, size)).identity

    assert identity(nn.Sequential(nn.Conv2d(3, 4, 3))) == identity(nn.Sequential(nn.Conv2d(3, 4, 3)))
    different = [
        identity(nn.Sequential(nn.Conv2d(3, 4, 3))), identity(nn.Sequential(nn.Conv2d(3, 4, 3)), 64),
        identity(nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2))), identity(Through(torch.relu)), identity(Sigmoid()),
        identity(Relu()),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


class Through(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.conv, self.activation = nn.Conv2d(3, 4, 3), activation

    def forward(self, x):
        return self.activation(self.conv(x))


class Relu(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3)

    def forward(self, x):
        return super().forward(x).relu()


class Sigmoid(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3)

    def forward(self, x):
        return super().forward(x).sigmoid()
