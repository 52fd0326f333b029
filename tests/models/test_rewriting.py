from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

import secateur
from secateur.errors import TraceError
from secateur.models import MobileNetV2, MODNet
from secateur.models.modnet import Conv2dIBNormRelu, FusedIBNorm, HalfSafeIBNorm, IBNorm
from secateur.models.rewriting.adjacency import BATCH_NORMS, foldable
from secateur.models.rewriting.half_precision import HalfSafeInstanceNorm2d, half_safe_deviation, half_safe_mean
from secateur.models.rewriting.registry import REWRITES, register
from secateur.models.rewriting.rewriting import rewritten
from tests import torchvision_operators

EXACT = 1e-12  # relative, in float64


def lived_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give norms statistics and parameters as after training: fresh ones, which do nothing, would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            for tensor, low in ((module.running_mean, -1.0), (module.running_var, 0.5), (module.bias, -1.0)):
                if tensor is not None:
                    tensor.data.uniform_(low, 1.5, generator=generator)
            if module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
    return model


def difference(model: nn.Module, other: nn.Module, *args: object) -> float:
    """Return the largest difference of two models' outputs, relative to the largest output."""
    with torch.no_grad():
        expected, got = model(*args), other(*args)
    pairs = list(zip(tensors(expected), tensors(got), strict=True))
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)


def tensors(value: object) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def norms_of(model: nn.Module) -> int:
    return sum(type(module) in BATCH_NORMS for module in model.modules())


class Net(nn.Module):
    """A convolution and a norm, and whatever a test does with them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class OutputUsedTwice(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class OutputReturned(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y), y


class OutputKept(Net):
    def forward(self, x):
        self.seen = self.conv(x)
        return self.norm(self.seen)


class ViewOfOutputUsed(Net):
    def forward(self, x):
        y = self.conv(x)
        corner = y[:, :, 0, 0]
        return self.norm(y) + corner[:, :, None, None]


class ViewNormalised(Net):
    def forward(self, x):
        return self.norm(self.conv(x)[:, :, 1:])


class ChangedBetween(Net):
    def forward(self, x):
        return self.norm(self.conv(x).relu_())


class AddedBetween(Net):
    def forward(self, x):
        return self.norm(self.conv(x) + x.mean())


class NormUsedTwice(Net):
    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.norm(self.other(y))


class NormOfOneOutputTwice(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y).relu_() + self.norm(y)


class SharedConv(Net):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) + self.second(self.conv(x.flip(-1)))


class ConvAloneAsWell(Net):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.conv(x.flip(-1))


class PreActivation(Net):
    def forward(self, x):
        return self.other(F.relu(self.norm(torch.cat((x, x[:, :1]), 1))))


class WeightReadOutside(Net):
    def forward(self, x):
        return self.norm(self.conv(x)) + F.conv2d(x, self.conv.weight, padding=1)


class StatisticsReadOutside(Net):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm.running_mean.sum()


class NormIsCalledByKeyword(Net):
    def forward(self, x):
        return self.norm(input=self.conv(x))


class TrainingInForward(Net):
    def forward(self, x):
        self.norm.train()
        y = self.norm(self.conv(x))
        self.norm.eval()
        return y


class ConvThatDoesMore(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).abs()


class NormThatDoesMore(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).abs()


def without_statistics() -> Net:
    net = Net()
    net.norm = nn.BatchNorm2d(4, track_running_stats=False)
    return net


def subclassed_conv() -> Net:
    net = Net()
    net.conv = ConvThatDoesMore(3, 4, 3)
    return net


def subclassed_norm() -> Net:
    net = Net()
    net.norm = NormThatDoesMore(4)
    return net


def flattened_between() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.BatchNorm1d(4))


def activated_between() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))


def hooked() -> Net:
    net = Net()
    net.conv.register_forward_hook(lambda module, args, y: y.abs())
    return net


def hooked_norm() -> Net:
    net = Net()
    net.norm.register_forward_pre_hook(lambda module, args: (args[0].abs(),))
    return net


def patched() -> Net:
    net = Net()
    net.conv.forward = lambda x: x[:, :1].expand(-1, 4, -1, -1)
    return net


def parametrized() -> Net:
    net = Net()
    parametrizations.weight_norm(net.conv)
    assert parametrize.is_parametrized(net.conv)
    return net


class TiedWeights(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.other.weight = self.conv.weight

    def forward(self, x):
        return self.other(self.norm(self.conv(torch.cat((x, x[:, :1]), 1))))


LEFT_ALONE = [
    OutputUsedTwice,
    OutputReturned,
    OutputKept,
    ViewOfOutputUsed,
    ViewNormalised,
    ChangedBetween,
    AddedBetween,
    NormUsedTwice,
    NormOfOneOutputTwice,
    SharedConv,
    ConvAloneAsWell,
    PreActivation,
    WeightReadOutside,
    StatisticsReadOutside,
    NormIsCalledByKeyword,
    TrainingInForward,
    TiedWeights,
    hooked,
    hooked_norm,
    patched,
    parametrized,
    without_statistics,
    subclassed_conv,
    subclassed_norm,
    flattened_between,
    activated_between,
]


@pytest.mark.parametrize("build", LEFT_ALONE, ids=lambda build: build.__name__)
def test_what_is_not_surely_a_pair_is_left_alone(build):
    model, x = lived_in(build()).double().eval(), torch.randn(2, 3, 8, 10, dtype=torch.float64)
    assert foldable(model, x) == []
    assert norms_of(rewritten(model, x)) == norms_of(model)
    assert difference(model, rewritten(model, x), x) == 0


class Tied(nn.Module):
    """One block under two names and in a list of its own, and called by each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.block = nn.Sequential(self.conv, self.norm)
        self.listed = [self.conv, self.norm]

    def forward(self, x):
        x = self.block(self.norm(self.conv(x)))
        for module in self.listed:
            x = module(x)
        return x


class NormOfOneUseOnly(nn.Module):
    """Whoever holds the norm in a plain list must hold the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.plain = [self.norm]

    def forward(self, x):
        return self.plain[0](self.conv(x))


class Counting(nn.Module):
    """Changes with every call: the watched call must leave no trace in the result."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layers(x) * self.calls


def pair(layer: nn.Module, norm: nn.Module, *more: nn.Module) -> nn.Module:
    return nn.Sequential(layer, norm, *more)


FOLDED = {
    "plain": (Net, (2, 3, 8, 8)),
    "without bias": (lambda: pair(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 3, 8, 8)),
    "then dropout": (lambda: pair(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(True)), (2, 3, 8, 8)),
    "without affine": (lambda: pair(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), (2, 3, 8, 8)),
    "reflecting": (lambda: pair(nn.Conv2d(3, 4, 3, 2, 1, padding_mode="reflect"), nn.BatchNorm2d(4)), (2, 3, 8, 8)),
    "grouped": (lambda: pair(nn.Conv2d(6, 8, 3, groups=2), nn.BatchNorm2d(8)), (2, 6, 8, 8)),
    "depthwise": (lambda: pair(nn.Conv2d(6, 12, 3, groups=6), nn.BatchNorm2d(12)), (2, 6, 8, 8)),
    "transposed": (lambda: pair(nn.ConvTranspose2d(6, 4, 3, 2, output_padding=1), nn.BatchNorm2d(4)), (2, 6, 5, 5)),
    "transposed, grouped": (lambda: pair(nn.ConvTranspose2d(6, 8, 3, groups=2), nn.BatchNorm2d(8)), (2, 6, 5, 5)),
    "one dimension": (lambda: pair(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 9)),
    "three dimensions": (lambda: pair(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)), (2, 3, 5, 5, 5)),
    "transposed, one dimension": (lambda: pair(nn.ConvTranspose1d(6, 4, 3), nn.BatchNorm1d(4)), (2, 6, 9)),
    "transposed, three dimensions": (lambda: pair(nn.ConvTranspose3d(4, 6, 2), nn.BatchNorm3d(6)), (1, 4, 4, 4, 4)),
    "linear": (lambda: pair(nn.Linear(5, 7), nn.BatchNorm1d(7)), (3, 5)),
    "synchronised": (lambda: pair(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), (2, 3, 8, 8)),
    "tied": (Tied, (2, 3, 8, 8)),
    "norm in a plain list": (NormOfOneUseOnly, (2, 3, 8, 8)),
    "counting": (Counting, (2, 3, 8, 8)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_norm_is_folded_into_the_layer_that_alone_feeds_it(name):
    build, shape = FOLDED[name]
    model, x = lived_in(build()).double().eval(), torch.randn(shape, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = rewritten(model, x)
    assert norms_of(folded) == 0
    assert norms_of(model) == 1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert difference(model, folded, x) < EXACT
    assert difference(model, folded, torch.randn(shape, dtype=torch.float64)) < EXACT


@pytest.mark.parametrize(("layer", "shape"), [(nn.Linear(6, 5), (2, 5, 6)), (nn.Conv1d(3, 5, 3), (3, 7))])
def test_a_norm_of_another_axis_than_the_layers_channels_is_left_alone(layer, shape):
    model, x = lived_in(nn.Sequential(layer, nn.BatchNorm1d(5))).double().eval(), torch.randn(shape).double()
    assert foldable(model, x) == []
    assert difference(model, rewritten(model, x), x) == 0


def test_the_result_is_for_inference_and_the_original_untouched():
    model = lived_in(Net()).train()
    folded = rewritten(model, torch.randn(2, 3, 8, 8))
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert type(folded) is Net
    assert type(folded.norm) is nn.Identity


def test_folding_keeps_the_dtype():
    folded = rewritten(lived_in(Net()).half(), torch.randn(2, 3, 8, 8).half())
    assert folded.conv.weight.dtype == folded.conv.bias.dtype == torch.float16


def test_a_model_that_does_not_run_says_so():
    with pytest.raises(TraceError, match="does not run on the example"):
        rewritten(Net(), torch.randn(1, 5, 8, 8))


def test_every_call_of_the_example_counts():
    class TwoWays(Net):
        def forward(self, x, bare=False):
            return self.conv(x) if bare else self.norm(self.conv(x))

    x = torch.randn(1, 3, 8, 8)
    assert foldable(TwoWays(), x) == [("conv", "norm")]
    assert foldable(TwoWays(), [(x,), (x, True)]) == []


def test_a_registered_rewrite_replaces_a_module_under_all_its_names():
    class Doubled(nn.Module):
        def forward(self, x):
            return x + x

    class Twice(nn.Module):
        def forward(self, x):
            return 2 * x

    register(Doubled)(lambda module: Twice())
    try:
        shared, guarded = Doubled(), Doubled()
        guarded.register_forward_hook(lambda module, args, y: y + 1)
        model = nn.Sequential(shared, nn.Sequential(shared), guarded)
        new = rewritten(model, torch.ones(2))
        assert type(new[0]) is Twice
        assert new[0] is new[1][0]
        assert type(new[2]) is Doubled
        assert type(rewritten(shared, torch.ones(2))) is Twice
        assert torch.equal(new(torch.ones(2)), model(torch.ones(2)))
    finally:
        del REWRITES[Doubled]


def modnet(pruned: bool) -> nn.Module:
    torch.manual_seed(0)
    model = MODNet()
    if pruned:
        model, _ = secateur.prune(model, torch.zeros(1, 3, 64, 64), ratio=0.5)
    return lived_in(model).eval()


@pytest.mark.parametrize("half_safe", [False, True])
@pytest.mark.parametrize("pruned", [False, True])
def test_modnet_is_exact_and_has_no_batch_norm_left(pruned, half_safe):
    model = modnet(pruned).double()
    new = rewritten(model, torch.zeros(1, 3, 64, 64, dtype=torch.float64), half_safe)
    x = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    assert difference(model, new, x) < EXACT
    assert difference(model, new, x, True) < EXACT
    assert norms_of(new) == 0
    kind = HalfSafeIBNorm if half_safe else FusedIBNorm
    assert sum(type(module) is kind for module in new.modules()) == 17
    assert not any(isinstance(module, IBNorm) for module in new.modules())
    assert new.backbone is new.lr_branch.backbone


@pytest.mark.parametrize("half_safe", [False, True])
@pytest.mark.parametrize(("batch", "instance"), [(3, 5), (5, 0), (7, 1), (1, 2)])
def test_ibnorm_of_any_widths_is_exact(batch, instance, half_safe):
    block = Conv2dIBNormRelu(3, batch + instance, 3)
    norm = block.layers[1]
    norm.bnorm_channels, norm.bnorm, norm.inorm = batch, nn.BatchNorm2d(batch), nn.InstanceNorm2d(instance)
    block = lived_in(block).double().eval()
    new = rewritten(block, torch.zeros(1, 3, 8, 8, dtype=torch.float64), half_safe)
    assert isinstance(new[1], FusedIBNorm)
    assert difference(block, new, torch.randn(2, 3, 9, 8, dtype=torch.float64)) < EXACT


@pytest.mark.parametrize("change", ["hook", "affine", "no statistics"])
def test_an_ibnorm_that_somebody_changed_is_left_alone(change):
    block = Conv2dIBNormRelu(3, 8, 3)
    norm = block.layers[1]
    if change == "hook":
        norm.inorm.register_forward_hook(lambda module, args, y: y.abs())
    elif change == "affine":
        norm.inorm = nn.InstanceNorm2d(4, affine=True)
    else:
        norm.bnorm = nn.BatchNorm2d(4, track_running_stats=False)
    assert type(rewritten(block, torch.randn(1, 3, 8, 8))) is Conv2dIBNormRelu


def test_mobilenetv2_is_exact_and_has_no_norm_left():
    model = lived_in(MobileNetV2(width=0.5, num_classes=10)).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    new = rewritten(model, x)
    assert norms_of(new) == 0
    assert difference(model, new, x) < EXACT


OTHERS = {  # how many norms are left
    "torchvision.models:resnet18": 0,
    "torchvision.models:mobilenet_v3_small": 0,
    "torchvision.models:densenet121": 62,
    "timm.models:mobilenetv3_small_050": None,
    "timm.models:resnet10t": None,
    "timm.models:regnetx_002": None,
    "timm.models:repvgg_a0": None,
}


@pytest.mark.parametrize("address", OTHERS)
def test_models_of_others_are_exact(address):
    torchvision_operators.declare()
    package, _, name = address.partition(":")
    pytest.importorskip(package)
    torch.manual_seed(0)
    model = lived_in(getattr(importlib.import_module(package), name)()).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    new = rewritten(model, x)
    assert difference(model, new, x) < EXACT
    if OTHERS[address] is not None:
        assert norms_of(new) == OTHERS[address]


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norms_are_made_half_safe_only_when_asked(affine):
    model = lived_in(nn.Sequential(nn.InstanceNorm2d(4, affine=affine))).double()
    x = 5 + 3 * torch.randn(2, 4, 9, 7, dtype=torch.float64)
    assert type(rewritten(model, x)[0]) is nn.InstanceNorm2d
    safe = rewritten(model, x, half_safe=True)
    assert type(safe[0]) is HalfSafeInstanceNorm2d
    assert difference(model, safe, x) < EXACT
    assert difference(model, safe, 1e-9 * x) < 1e-6  # the deviation is eps's


def test_instance_norm_with_running_statistics_is_left_alone():
    model = nn.Sequential(nn.InstanceNorm2d(4, track_running_stats=True))
    assert type(rewritten(model, torch.randn(1, 4, 8, 8), half_safe=True)[0]) is nn.InstanceNorm2d


@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 100.0, 4000.0])
def test_half_safe_statistics_are_right_where_plain_ones_overflow(magnitude, monkeypatch):
    x = (magnitude * torch.randn(1, 2, 512, 512).clamp(-4, 4)).half()
    expected = (x.double().var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    sums = []
    mean = torch.Tensor.mean

    def watched_mean(values, dim, keepdim=False):
        sums.append(values.double().abs().sum(dim).max().item())
        return mean(values, dim, keepdim=keepdim)

    monkeypatch.setattr(torch.Tensor, "mean", watched_mean)
    centred = x - half_safe_mean(x)
    deviation = half_safe_deviation(centred, 1e-5)
    assert max(sums) < torch.finfo(torch.float16).max
    assert ((deviation.double() - expected) / expected).abs().max() < 2e-3
    assert (x.double().square().sum((2, 3)) > torch.finfo(torch.float16).max).all() == (magnitude > 0.1)


@pytest.mark.parametrize("build", [lambda: nn.InstanceNorm2d(4), lambda: Conv2dIBNormRelu(4, 8, 1)], ids=["IN", "IBN"])
def test_half_safe_norms_are_near_in_half_precision_at_512(build):
    model = lived_in(build()).eval()
    x = 30 * torch.randn(1, 4, 512, 512).half()  # the sum of squares is two thousand times float16's largest number
    half = rewritten(model.half(), x, half_safe=True)
    with torch.no_grad():
        expected, got = model.double()(x.double()), half(x).double()
    assert got.isfinite().all()
    assert (expected - got).abs().mean() < 2e-3
    assert (expected - got).abs().max() < 2e-3 * expected.abs().max()


def half_precision_pair() -> tuple[nn.Module, nn.Module, torch.Tensor]:
    model = Matte(modnet(pruned=True)).eval()
    half = rewritten(model, torch.zeros(1, 3, 64, 64), half_safe=True).half()
    return model, half, torch.rand(1, 3, 512, 512) * 2 - 1


@pytest.mark.slow
def test_modnet_in_half_precision_is_as_near_as_float16_allows_at_512():
    model, half, x = half_precision_pair()
    with torch.no_grad():
        expected, got = model(x), half(x.half()).float()
        plain = model.half()(x.half()).float()  # torch sums in float32 on the CPU, other machines do not
    assert got.isfinite().all()
    assert (expected - got).abs().mean() < 2e-3
    assert (expected - got).abs().mean() < 1.1 * (expected - plain).abs().mean()


class Matte(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x, inference=True)[2]


class TwoNorms(nn.Module):
    """All that is rewritten; two alike, because exporters merge equal constants, which a runtime may take amiss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Conv2dIBNormRelu(3, 8, 3),
            Conv2dIBNormRelu(8, 8, 3),
            nn.Conv2d(8, 4, 3),
            nn.BatchNorm2d(4),
            nn.InstanceNorm2d(4),
        )

    def forward(self, x):
        return self.layers(x)


DYNAMIC = {0: "n", 2: "h", 3: "w"}


def exported(model: nn.Module, x: torch.Tensor, file: str, dynamo: bool) -> None:
    if dynamo:
        shapes = (dict.fromkeys(DYNAMIC, torch.export.Dim.DYNAMIC),)
        torch.onnx.export(model, (x,), file, dynamo=True, input_names=["input"], dynamic_shapes=shapes, verbose=False)
    else:
        axes = {"input": DYNAMIC, "output": DYNAMIC}
        names = {"input_names": ["input"], "output_names": ["output"]}
        torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17, dynamic_axes=axes, **names)


def run_in_onnxruntime(file: str, x: torch.Tensor) -> torch.Tensor:
    session = pytest.importorskip("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


@pytest.mark.filterwarnings("ignore")  # exporters warn of what is their own affair
@pytest.mark.parametrize("half_safe", [False, True])
@pytest.mark.parametrize("dynamo", [False, True])
def test_rewritten_models_run_in_onnxruntime_at_any_size(dynamo, half_safe, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = TwoNorms().eval()  # fresh, so that the constants of the two are equal
    new = rewritten(model, torch.zeros(1, 3, 16, 16), half_safe)
    exported(new, torch.randn(2, 3, 24, 16), str(tmp_path / "model.onnx"), dynamo)
    x = torch.randn(3, 3, 32, 40)
    with torch.no_grad():
        assert (run_in_onnxruntime(str(tmp_path / "model.onnx"), x) - model(x)).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("half_safe", [False, True])
def test_rewritten_models_run_in_openvino_at_any_size(half_safe):
    openvino = pytest.importorskip("openvino")
    model = lived_in(TwoNorms()).eval()
    new = rewritten(model, torch.zeros(1, 3, 16, 16), half_safe)
    converted = openvino.convert_model(new, example_input=torch.randn(1, 3, 16, 16), input=[-1, 3, -1, -1])
    compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = torch.randn(2, 3, 32, 24)
    with torch.no_grad():
        assert (torch.from_numpy(compiled(x.numpy())[0]) - model(x)).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_modnet_in_half_precision_runs_in_onnxruntime_at_512(tmp_path):
    pytest.importorskip("onnx")
    model, half, x = half_precision_pair()
    exported(half, torch.rand(1, 3, 64, 64).half(), str(tmp_path / "model.onnx"), dynamo=False)
    got = run_in_onnxruntime(str(tmp_path / "model.onnx"), x.half()).float()
    with torch.no_grad():
        expected = model(x)
    assert got.isfinite().all()
    assert (expected - got).abs().mean() < 2e-3
