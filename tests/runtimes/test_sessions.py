"""A network gives the same outputs in every runtime, by name; what a runtime lacks is said in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import ArtifactError, ExportError, RuntimeMissingError, RuntimeUnfitError
from secateur.models import LeNet, MODNet
from secateur.models.modnet import Conv2dIBNormRelu
from secateur.runtimes import packages
from secateur.runtimes.exporting import export_onnx
from secateur.runtimes.forms import inference_form
from secateur.runtimes.network import Network
from secateur.runtimes.quantizing import quantized_ir
from secateur.runtimes.registry import RUNTIMES, open_network, presence_of
from secateur.runtimes.session import Options
from secateur.runtimes.shapes import Sizes

INSTALLED = [name for name in RUNTIMES if not presence_of(name).remedy and name != "torch-compile"]


class Pair(nn.Module):
    """Takes a picture and a vector, and returns a dict with a tensor and a list."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(5, 8), nn.BatchNorm2d(8)

    def forward(self, picture, vector, flag=True):
        x = self.norm(self.conv(picture) + self.fc(vector)[:, :, None, None])
        return {"map": torch.sigmoid(x), "more": [x.mean((2, 3)), None], "nothing": None}


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return Pair().eval(), (torch.rand(2, 3, 32, 32), torch.rand(2, 5))


@pytest.mark.parametrize("runtime", INSTALLED)
def test_outputs_agree_with_the_model_by_name_and_at_other_sizes(pair, runtime):
    model, example = pair
    network = Network.of_model("pair", model, example)
    session = open_network(network, runtime, Options(threads=1))
    assert session.inputs == ("picture", "vector")
    assert session.outputs == ("map", "more")
    inputs = network.inputs(Sizes(3, 64, 96), seed=5)
    with torch.inference_mode():
        expected = model(*inputs)
    found = session(*(one.numpy() for one in inputs))
    for one, other in zip(found, (expected["map"], expected["more"][0]), strict=True):
        assert one.shape == tuple(other.shape)
        np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=2e-5)
    fixed = open_network(network, runtime, Options(threads=1), tuple(one.shape for one in inputs))
    for one, other in zip(fixed(*(one.numpy() for one in inputs)), found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)


class Scaled(nn.Module):
    """Enlarges its picture before it works on it."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.conv = scale, nn.Conv2d(3, 4, 3)

    def forward(self, x, points=None):
        x = self.conv(nn.functional.interpolate(x, scale_factor=self.scale))
        return x if points is None else x + points.mean()


def test_networks_that_take_different_time_are_told_apart():
    x = torch.zeros(1, 3, 8, 8)
    once, again, larger = (Network.of_model("net", Scaled(scale), x) for scale in (2, 2, 8))
    assert once.identity == again.identity != larger.identity


def test_the_batch_is_that_of_the_inputs_that_have_it():
    network = Network.of_model("net", Scaled(2), (torch.zeros(1, 3, 16, 16), torch.zeros(40, 3)))
    shapes = [tuple(one.shape) for one in network.inputs(Sizes(4, 32, 32))]
    assert shapes == [(4, 3, 32, 32), (40, 3)]
    assert Sizes(4).of([(40, 3), (1, 3, 16, 16), (1, 5)]) == ((40, 3), (4, 3, 16, 16), (4, 5))


@pytest.mark.parametrize("runtime", INSTALLED)
def test_every_precision_that_a_runtime_names_works(runtime):
    torch.manual_seed(0)
    model = LeNet().eval()
    network = Network.of_model("lenet", model, torch.zeros(1, 1, 28, 28))
    inputs = network.inputs(Sizes(4))
    with torch.inference_mode():
        expected = model(*inputs).numpy()
    for device, precisions in presence_of(runtime).devices:
        for precision in precisions:
            (found,) = open_network(network, runtime, Options(precision, device))(inputs[0].numpy())
            assert found.dtype == np.float32
            loose = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2, "int8": 5e-2}[precision]
            np.testing.assert_allclose(found, expected, rtol=0, atol=loose, err_msg=f"{runtime} {precision}")


def test_in_int8_statistics_over_the_picture_stay_in_float(capsys):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    torch.manual_seed(0)
    block = nn.Sequential(Conv2dIBNormRelu(3, 16, 3), Conv2dIBNormRelu(16, 8, 3)).eval()
    network = Network.of_model("blocks", block, torch.zeros(1, 3, 32, 32))
    quantised = quantized_ir(network.fused.path, network.calibration())
    assert not capsys.readouterr().out
    kinds = [node.get_type_name() for node in quantised.get_ordered_ops()]
    means = [node for node in quantised.get_ordered_ops() if node.get_type_name() == "ReduceMean"]
    assert len(means) == 4  # two moments for each norm
    assert kinds.count("FakeQuantize") == 2  # the inputs of both convolutions
    for mean in means:
        assert mean.input_value(0).get_node().get_type_name() != "FakeQuantize"


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_files_from_before_scales_by_channel_are_quantised_too(opset, tmp_path):
    pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    file = foreign_file(tmp_path / "old.onnx", "FLOAT", opset, weight)
    network = Network.of_file("old", file)
    inputs = [one.numpy() for one in network.inputs(Sizes(1, 16, 16))]
    shapes = [one.shape for one in inputs]
    expected, found = (
        open_network(network, "onnxruntime", Options(precision), shapes)(*inputs)[0] for precision in ("fp32", "int8")
    )
    assert 0 < np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)  # means of ranges cut single ones


@pytest.mark.parametrize("kind", ["STRING", "BFLOAT16"])
def test_inputs_for_which_no_values_can_be_made_are_told_by_name(kind, tmp_path):
    file = foreign_file(tmp_path / "words.onnx", kind)
    with pytest.raises(ArtifactError, match=r"words.onnx has an input 'x' of a kind that .* Export it with inputs of"):
        Network.of_file("words", file).inputs(Sizes(1, 16, 16))


def foreign_file(path, kind, opset=17, weight=None):
    """Write an ONNX file of one convolution, or of nothing to do, for pictures with three channels of any size."""
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper, getattr(onnx.TensorProto, kind)
    ends = [make.make_tensor_value_info(name, kind, ("n", None, "h", "w")) for name in "xy"]
    ends[0].type.tensor_type.shape.dim[1].dim_value = 3
    node = make.make_node("Identity", ["x"], ["y"]) if weight is None else make.make_node("Conv", ["x", "w"], ["y"])
    weights = [] if weight is None else [onnx.numpy_helper.from_array(weight, "w")]
    graph = make.make_graph([node], "foreign", ends[:1], ends[1:], weights)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=7), path)
    return path


@pytest.mark.slow
def test_a_compiled_model_agrees(pair):
    model, example = pair
    session = open_network(Network.of_model("pair", model, example), "torch-compile")
    found = session(*(one.numpy() for one in example))
    np.testing.assert_allclose(found[0], model(*example)["map"].detach().numpy(), rtol=0, atol=1e-5)


def test_a_model_of_the_zoo_leaves_out_what_only_training_needs():
    form = inference_form(MODNet().eval(), torch.zeros(1, 3, 64, 64))
    assert form.inputs, form.outputs == (("input",), ("output",))
    with torch.inference_mode():
        (matte,) = form(torch.zeros(1, 3, 64, 64))
    assert matte.shape == (1, 1, 64, 64)


def test_an_exported_file_is_a_network_too(pair, tmp_path):
    pytest.importorskip("onnxruntime")
    model, example = pair
    network = Network.of_model("pair", model, example)
    file = Network.of_file("file", network.exported.path)
    inputs = network.inputs(Sizes(2, 32, 32))
    with pytest.raises(RuntimeUnfitError, match="leaves the size of pictures open"):
        file.inputs(Sizes(2))
    given = [one.numpy() for one in inputs]
    for one, other in zip(
        open_network(file, "onnxruntime")(*given), open_network(network, "onnxruntime")(*given), strict=True
    ):
        assert np.array_equal(one, other)
    with pytest.raises(RuntimeUnfitError, match="which PyTorch does not run"):
        open_network(file, "torch")
    fixed = export_onnx(inference_form(model, example), example, tmp_path / "fixed.onnx", free=())
    with pytest.raises(RuntimeUnfitError, match="is fixed to inputs of 2x3x32x32, not 4x3x32x32"):
        Network.of_file("fixed", fixed.path).inputs(Sizes(4))


def test_an_ir_of_openvino_is_a_network_too(pair, tmp_path):
    openvino = pytest.importorskip("openvino")
    model, example = pair
    network = Network.of_model("pair", model, example)
    openvino.save_model(openvino.Core().read_model(str(network.exported.path)), str(tmp_path / "net.xml"))
    ir = Network.of_file("ir", tmp_path / "net.xml")
    given = [one.numpy() for one in ir.inputs(Sizes(1, 32, 32))]
    found = open_network(ir, "openvino")(*given)
    with torch.inference_mode():
        expected = model(*map(torch.from_numpy, given))["map"].numpy()
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-2)  # weights are saved in half precision
    with pytest.raises(RuntimeUnfitError, match="OpenVINO alone opens"):
        open_network(ir, "onnxruntime")


class OwnSizes(nn.Module):
    """Takes 16 x 16 alone."""

    def forward(self, x):
        if x.shape[2:] != (16, 16):
            raise ValueError("16 x 16 is wanted")
        return x.mean((2, 3))


def test_only_sizes_that_the_model_takes_are_free(tmp_path):
    form, example = inference_form(OwnSizes(), torch.zeros(1, 3, 16, 16)), (torch.zeros(1, 3, 16, 16),)
    assert export_onnx(form, example, tmp_path / "a.onnx").free == ("batch",)
    with pytest.raises(RuntimeUnfitError, match="does not take 1x3x48x16: 16 x 16 is wanted"):
        export_onnx(form, example, tmp_path / "b.onnx", free=("height",))


class Unknown(nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x)


def test_an_operation_that_a_runtime_lacks_is_named_with_the_layer_that_calls_it(tmp_path, capfd):
    pytest.importorskip("onnx")
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Unknown()), nn.Linear(3, 3))
    form, example = inference_form(model, torch.zeros(1, 3)), (torch.zeros(1, 3),)
    with pytest.raises(ExportError, match=r"opset 17 for the operation special_airy_ai, which 1\.1 calls"):
        export_onnx(form, example, tmp_path / "a.onnx")
    assert "Torch IR graph" not in capfd.readouterr().out


def unknown():
    return Network.of_model("unknown", Unknown(), torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (lambda net: open_network(net, "openvno"), RuntimeUnfitError, "'openvno'. Did you mean openvino"),
        (lambda net: open_network(net, "torch", Options("fp23")), RuntimeUnfitError, "precision='fp23' is not known"),
        (lambda net: open_network(net, "torch", Options(device="tpu")), RuntimeUnfitError, "no device 'tpu'"),
        (lambda net: open_network(net, "onnxruntime", Options("bf16")), RuntimeUnfitError, "does not compute in bf16"),
        (lambda net: open_network(net, "torch")(), RuntimeUnfitError, "takes input, and 0 arrays"),
        (lambda net: net.inputs(Sizes(0)), RuntimeUnfitError, "A batch of 0 makes no sense"),
        (lambda net: Network.of_file("x", "nowhere.onnx"), ArtifactError, "nowhere.onnx is not there"),
        (lambda net: open_network(unknown(), "onnxruntime"), ExportError, "airy_ai"),
        (lambda net: Network.of_model("m", LeNet(), [torch.zeros(1, 1, 28, 28)] * 2), RuntimeUnfitError, "one call"),
        (lambda net: Network.of_model("m", LeNet(), ({"x": torch.zeros(1)},)), RuntimeUnfitError, "lists or dicts"),
    ],
)  # fmt: skip
def test_what_does_not_work_is_said_in_one_line(what, error, message):
    pytest.importorskip("onnxruntime")
    network = Network.of_model("lenet", LeNet().eval(), torch.zeros(1, 1, 28, 28))
    with pytest.raises(error, match=message):
        what(network)


def test_a_damaged_file_is_refused(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no onnx")
    with pytest.raises(ArtifactError, match="is no ONNX file"):
        Network.of_file("bad", tmp_path / "bad.onnx")


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(
        packages.importlib, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name=name))
    )
    with pytest.raises(RuntimeMissingError, match=r"pip install 'secateur\[openvino\]'"):
        packages.require("openvino")
