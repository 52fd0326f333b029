"""What is exported computes what the model does, at other sizes too, and says what it is; or nothing is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import ArtifactError, ExportError, RuntimeUnfitError, SecateurError
from secateur.models import LeNet, MobileNetV2, MODNet
from secateur.runtimes.deployment import export
from secateur.runtimes.network import Network
from secateur.runtimes.registry import open_network
from secateur.runtimes.session import Options
from tests.artifact.reloading import OTHERS, PICTURES, build

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")

ALL = ("batch", "height", "width")
QUICK = (
    "torchvision/resnet18",
    "torchvision/shufflenet_v2_x1_0",
    "timm/mobilenetv4_conv_small_035",
    "timm/vit_tiny_patch16_224",
)


def halved(name):
    model, example = (build(name), torch.zeros(PICTURES)) if "/" in name else ZOO[name]
    torch.manual_seed(0)
    plan = secateur.plan(secateur.trace(model, example), model, ratio=0.5)
    return secateur.cut(model, plan), example


ZOO = {
    "lenet": (LeNet().eval(), torch.zeros(1, 1, 28, 28)),
    "mobilenetv2": (MobileNetV2().eval(), torch.zeros(1, 3, 64, 64)),
    "modnet": (MODNet().eval(), torch.zeros(1, 3, 64, 64)),
}
SIZES = {"lenet": ("batch",), "mobilenetv2": ALL, "modnet": ALL}


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("name", ["lenet", "mobilenetv2", "modnet"])
def test_a_pruned_model_of_the_zoo_comes_out_with_free_sizes(name, suffix, tmp_path):
    model, example = halved(name)
    deployed = export(model, tmp_path / f"net{suffix}", example)
    assert (deployed.inputs, deployed.outputs, deployed.free) == (("input",), ("output",), SIZES[name])
    # At random inputs of the example's size, of a larger batch, and of larger pictures; zeros are nobody's picture.
    assert len(deployed.gaps) == (3 if "height" in deployed.free else 2)
    assert deployed.worst.error < 1e-4
    assert {path.suffix for path in tmp_path.iterdir()} == ({".onnx"} if suffix == ".onnx" else {".xml", ".bin"})


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS if name not in QUICK)]
)
def test_other_makers_models_agree_with_pytorch_in_both_formats(name, tmp_path):
    pytest.importorskip(name.partition("/")[0])
    model, example = halved(name)
    for suffix in (".onnx", ".xml"):
        assert export(model, tmp_path / f"net{suffix}", example).worst.error < 1e-4


def test_half_precision_halves_the_file(tmp_path):
    model, example = halved("mobilenetv2")
    for suffix in (".onnx", ".xml"):
        full = export(model, tmp_path / f"full{suffix}", example, free=())
        half = export(model, tmp_path / f"half{suffix}", example, precision="fp16", free=())
        assert size(half.path) < 0.6 * size(full.path)
        assert 0 < half.worst.error < 1e-2
    for name in ("full", "half"):
        onnx.checker.check_model(onnx.load(tmp_path / f"{name}.onnx"), full_check=True)


def size(path):
    return path.with_suffix(".bin" if path.suffix == ".xml" else ".onnx").stat().st_size


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_int8_is_calibrated_and_its_gap_is_told(suffix, tmp_path):
    model, example = ZOO["lenet"]
    samples = [[np.random.default_rng(seed).normal(size=(1, 1, 28, 28)).astype(np.float32)] for seed in range(16)]
    deployed = export(model, tmp_path / f"int8{suffix}", example, precision="int8", samples=samples)
    assert 1e-3 < deployed.worst.error < 0.3
    assert deployed.worst.snr > 15
    assert [gap.pictures for gap in deployed.gaps] == [0, 0, 16]
    assert size(deployed.path) < 0.5 * size(export(model, tmp_path / f"full{suffix}", example).path)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_sums_of_8_bits_do_not_overflow_on_any_processor(suffix, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    model[0].weight.data.abs_().add_(0.1)  # nearly all of the range at once, as bright inputs have it
    samples = [[np.random.default_rng(seed).uniform(0.7, 1, (1, 64, 12, 12)).astype(np.float32)] for seed in range(8)]
    deployed = export(model, tmp_path / f"net{suffix}", torch.ones(1, 64, 12, 12), precision="int8", samples=samples)
    assert deployed.gaps[-1].snr > 25


class Beside(nn.Module):
    """Convolves a picture beside features that are far larger, and read by weights that are far smaller."""

    def __init__(self):
        super().__init__()
        self.features, self.both = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(11, 4, 3, padding=1)
        self.features.weight.data *= 60
        self.both.weight.data[:, 3:] /= 60

    def forward(self, picture):
        return self.both(torch.cat([picture, self.features(picture).relu()], 1))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_what_is_read_side_by_side_in_int8_is_brought_to_one_range(suffix, tmp_path):
    torch.manual_seed(0)
    samples = [[np.random.default_rng(seed).uniform(-1, 1, (1, 3, 24, 24)).astype(np.float32)] for seed in range(8)]
    example = torch.zeros(1, 3, 24, 24)
    deployed = export(Beside().eval(), tmp_path / f"net{suffix}", example, precision="int8", samples=samples)
    assert deployed.gaps[-1].snr > 30


def test_in_int8_means_stay_where_weights_are_rounded(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 16, 1), nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 4, 1)).eval()
    model[0].weight.data[:, 0] *= 40  # what it has to hold leaves few levels for the others
    samples = [[np.random.default_rng(seed).uniform(0.5, 1, (1, 64, 9, 9)).astype(np.float32)] for seed in range(8)]
    for sample in samples:
        sample[0][:, 0] = 0
    found, wanted = in_int8(model, samples, tmp_path / "net.onnx", np.concatenate([sample[0] for sample in samples]))
    assert np.abs((found - wanted).mean((0, 2, 3))).max() < 0.2 * wanted.std((0, 2, 3)).mean()


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_in_int8_outputs_are_not_cut_off_where_few_samples_reach(suffix, tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False)).eval()
    model[0].weight.data.fill_(1)
    few, most = (np.array([1, one], np.float32).reshape(1, 2, 1, 1).repeat(4, 2).repeat(4, 3) for one in (1, -0.9))
    found, wanted = in_int8(model, [[few], *[[most]] * 15], tmp_path / f"net{suffix}", few)
    assert found.max() > 0.9 * wanted.max()


def in_int8(model, samples, path, x):
    """Return what a model computes in INT8 and in PyTorch."""
    export(model, path, torch.ones(1, *x.shape[1:]), precision="int8", samples=samples)
    (found,) = open_network(Network.of_file("net", path), "onnxruntime" if path.suffix == ".onnx" else "openvino")(x)
    with torch.no_grad():
        return found, model(torch.from_numpy(x)).numpy()


def test_an_example_that_says_something_is_compared_too(tmp_path):
    model, example = ZOO["lenet"]
    flat, told = (export(model, tmp_path / "net.onnx", one).gaps for one in (example, torch.rand(example.shape)))
    assert len(told) == len(flat) + 1
    assert told[0].sizes == ((1, 1, 28, 28),)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_layers_are_kept_in_float_by_their_names(suffix, tmp_path):
    model, example = ZOO["lenet"]
    samples = [[np.random.default_rng(seed).normal(size=(1, 1, 28, 28)).astype(np.float32)] for seed in range(8)]

    def snr(keep):
        made = export(model, tmp_path / f"net{suffix}", example, precision="int8", samples=samples, keep_float=keep)
        return made.gaps[-1].snr

    assert snr(["conv1", "conv2", "fc1", "fc2", "fc3"]) > 60 > snr(["conv1"]) > 15
    with pytest.raises(ExportError, match=r"neither a layer nor a node 'conv3' to keep in float. Did you mean conv"):
        snr(["conv3"])


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize(
    ("room", "message"), [(100_000, r"network.onnx cannot be written in .*TMPDIR"), (260_000, r"cannot be written")]
)
def test_a_full_disk_leaves_no_half_file(suffix, room, message, tmp_path):
    """Stands for a full disk: no file may grow beyond so many bytes."""
    resource = pytest.importorskip("resource")
    model, example = LeNet().eval(), torch.zeros(1, 1, 28, 28)
    written = export(model, tmp_path / f"net{suffix}", example).path
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    heavy = {"heavy": "x" * 200_000} if room > 200_000 else {}  # so that the file grows after it was exported
    had = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, had[1]))
    try:
        with pytest.raises(SecateurError, match=message):
            export(model, written, example, metadata=heavy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, had)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_file_says_what_it_is(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, example = ZOO["lenet"]
    export(
        model,
        tmp_path / "net.onnx",
        example,
        metadata={"secateur.model": "LeNet", "secateur.preprocessing": {"mean": [0.5]}},
    )
    found = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "net.onnx")).metadata_props}
    assert found["secateur.model"] == "LeNet"
    assert json.loads(found["secateur.preprocessing"]) == {"mean": [0.5]}
    openvino = pytest.importorskip("openvino")
    export(model, tmp_path / "net.xml", example, metadata={"secateur.model": "LeNet"})
    assert (
        openvino.Core().read_model(str(tmp_path / "net.xml")).get_rt_info(["secateur", "model"]).astype(str) == "LeNet"
    )


class Baked(nn.Module):
    """Its code turns a size into a number that no file can follow."""

    def forward(self, x):
        return x * float(int(x.shape[2]) + 1)


def test_a_file_that_computes_something_else_is_not_written_unless_asked_for(tmp_path, caplog):
    example, free = torch.zeros(1, 3, 32, 32), ("batch", "height")
    with pytest.raises(ExportError, match=r"gives another output than PyTorch for inputs of 3x3x64x32.*--force"):
        export(Baked(), tmp_path / "net.onnx", example, free=free)
    assert not list(tmp_path.iterdir())
    assert export(Baked(), tmp_path / "forced.onnx", example, free=free, force=True).worst.error > 0.1
    assert "written all the same" in caplog.text


def test_of_itself_it_frees_only_sizes_that_the_file_can_follow(tmp_path):
    deployed = export(Baked(), tmp_path / "net.onnx", torch.zeros(1, 3, 32, 32))
    assert deployed.free == ("batch",)
    assert deployed.worst.error < 1e-6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": "net.pb"}, RuntimeUnfitError, "neither .onnx nor .xml"),
        ({"precision": "bf16"}, RuntimeUnfitError, "not in bf16"),
        ({"precision": "int8"}, ExportError, "at least 8 .* there are 0"),
        ({"keep_float": ["conv1"]}, RuntimeUnfitError, "Only INT8 leaves layers in float"),
        ({"free": ("height",)}, RuntimeUnfitError, "LeNet does not take 1x1x60x28"),
        ({"path": "nowhere/net.onnx"}, ArtifactError, "nowhere"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_written(options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        export(LeNet().eval(), **{"path": "net.onnx", "example": torch.zeros(1, 1, 28, 28), **options})
    assert not list(tmp_path.iterdir())


class Masked(nn.Module):
    """Takes a mask, without which nothing comes out; and says so under the name of an input."""

    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 4, 3, padding=1), 0

    def forward(self, x, mask):
        self.calls += 1
        y = self.conv(x)
        return {"x": y * mask, "mask": {"b": y}, "mask_b": -y}


def test_masks_are_drawn_from_the_example_names_are_apart_and_the_model_is_left_alone(tmp_path):
    model, mask = Masked().eval(), torch.rand(2, 1, 8, 8) > 0.5
    deployed = export(model, tmp_path / "net.onnx", (torch.randn(2, 3, 8, 8), mask), free=())
    assert model.calls == 0
    assert deployed.inputs == ("x", "mask")
    assert deployed.outputs == ("x_1", "mask_b", "mask_b_1")
    assert all(np.isfinite(gap.snr) or gap.error == 0 for gap in deployed.gaps)
    assert any(gap.snr < 200 for gap in deployed.gaps if gap.output == "x_1")


class Whole(nn.Module):
    """Its code turns the batch into a number."""

    def forward(self, x):
        return x.reshape(int(x.shape[0]), 3, 64).mean(2)


def test_a_batch_that_the_code_makes_a_number_is_not_free(tmp_path):
    for suffix in (".onnx", ".xml"):
        assert export(Whole(), tmp_path / f"net{suffix}", torch.rand(2, 3, 8, 8)).free == ()


def test_attention_of_torchs_own_layers_comes_out_with_a_free_batch(tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    deployed = export(layer.eval(), tmp_path / "layer.onnx", torch.zeros(1, 5, 16))
    assert "batch" in deployed.free
    assert deployed.worst.error < 1e-4
    assert torch.backends.mha.get_fastpath_enabled()


class Bounded(nn.Module):
    """Takes pictures of 0 to 1 alone."""

    def forward(self, x):
        if float(x.min()) < 0 or float(x.max()) > 1:
            raise ValueError("pictures are 0 to 1")
        return x * 2


class Gamma(nn.Module):
    """Is no number below zero."""

    def forward(self, x):
        return x.pow(1 / 2.2)


class Alone(nn.Module):
    """Takes one picture of any size at once."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x).reshape(1, 4, x.shape[2], x.shape[3])


@pytest.mark.parametrize("kind", [Bounded, Gamma, Alone])
def test_models_that_refuse_some_inputs_are_exported(kind, tmp_path):
    made = export(kind().eval(), tmp_path / "net.onnx", torch.zeros(1, 3, 32, 32))
    assert made.worst.error < 1e-5


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize(
    ("sample", "free", "message"),
    [
        (np.zeros((1, 3, 24, 24)), None, r"takes float32 of 4 dimensions, and .* has float64 of 4"),
        (np.zeros((3, 24, 24), np.float32), None, r"has float32 of 3 dimensions"),
        (np.zeros((1, 3, 24, 24), np.float32), (), r"fixed to 2, and a sample to calibrate on has 1. Leave the batch"),
    ],
)
def test_samples_that_do_not_fit_are_told(sample, free, message, suffix, tmp_path):
    words = {"precision": "int8", "samples": [[sample]] * 8, "free": free}
    with pytest.raises(ExportError, match=message):
        export(Beside().eval(), tmp_path / f"net{suffix}", torch.zeros(2, 3, 24, 24), **words)


class Twice(nn.Module):
    """Reads the picture beside features two times over."""

    def __init__(self):
        super().__init__()
        self.one, self.two = Beside(), Beside()

    def forward(self, x):
        return self.one(x) + self.two(x)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_operations_without_names_are_brought_to_one_range_too(runtime, tmp_path):
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    model, x = Twice().eval(), torch.rand(1, 3, 24, 24) * 2 - 1
    file = export(model, tmp_path / "net.onnx", x, free=()).path
    bare = onnx.load(str(file))
    for node in bare.graph.node:
        node.name = ""
    onnx.save(bare, str(file))
    network = Network.of_file("net", file)
    network.samples = [[np.random.default_rng(seed).uniform(-1, 1, x.shape).astype(np.float32)] for seed in range(8)]
    (found,) = open_network(network, runtime, Options("int8"))(x.numpy())
    with torch.inference_mode():
        expected = model(x).numpy()
    assert np.std(found - expected) < 0.03 * np.std(expected)
