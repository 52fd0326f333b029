"""The promises, on the networks they are made for: MODNet, its backbone, and the trained backbone on real pictures."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import secateur
from secateur.models import MobileNetV2, MODNet, load_checkpoint
from secateur.models.registry import zoo_entry
from tests.oracle import randomized, silenced, sliced, tensors_of

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
NETWORKS = {"modnet": MODNet, "backbone": MobileNetV2}
BUDGETS: dict[str, dict[str, Any]] = {"half the channels": {"ratio": 0.5}, "a quarter of the MACs": {"macs": "0.24x"}}
LARGE, OBLONG = (512, 512), (320, 416)

every_network = pytest.mark.parametrize("name", NETWORKS)
every_budget = pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)


def picture(size: tuple[int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return noise around a level of its own in each channel."""
    generator = torch.Generator().manual_seed(size[1])
    noise, level = (torch.randn(1, 3, *shape, dtype=torch.float64, generator=generator) for shape in (size, (1, 1)))
    return (noise + level).to(dtype)


def parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def counted_macs(model: nn.Module, side: int = 512) -> float:
    """Return the multiply-accumulates of convolutions and linear layers, by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).eval().to("meta")(torch.zeros(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 2


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    torch.manual_seed(11)
    return {name: build().eval() for name, build in NETWORKS.items()}


@pytest.fixture(scope="module")
def graphs(networks: dict[str, nn.Module]) -> dict[str, secateur.Graph]:
    return {name: secateur.trace(model, torch.zeros(1, 3, *LARGE)) for name, model in networks.items()}


@pytest.fixture(scope="module")
def random_networks(networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks in float64, every number of them random."""
    return {name: randomized(model, torch.zeros(1, 3, 160, 224)) for name, model in networks.items()}


@pytest.fixture(scope="module")
def trained(data: Path) -> MobileNetV2:
    model = MobileNetV2().eval()
    assert load_checkpoint(model, data / "pretrained/mobilenet_v2-b0353104.pth").complete
    return model


def read_photographs(data: Path, start: int, step: int) -> torch.Tensor:
    image = pytest.importorskip("PIL.Image")
    paths = sorted((data / "imagenet_samples").glob("*.jpg"))[start::step]
    if not paths:
        pytest.skip(f"no pictures in {data / 'imagenet_samples'}")
    pixels = torch.stack([torch.from_numpy(np.array(image.open(path).convert("RGB"))) for path in paths])
    return zoo_entry("mobilenetv2").prepared(pixels.permute(0, 3, 1, 2)[:, :, 16:240, 16:240] / 255)


@pytest.fixture(scope="module")
def photographs(data: Path) -> torch.Tensor:
    """Every twentieth of the optional pictures, as the trained network wants them."""
    return read_photographs(data, 0, 20)


def test_the_trained_network_goes_on_knowing_what_others_forget(data, trained, photographs):
    """Without labels: its own answers on 25 pictures, calibrated on 32 pictures of other classes."""
    pictures, example = read_photographs(data, 7, 15)[:32], torch.zeros(1, 3, 224, 224)
    hidden = {f"features.{block}.conv.0": 0.1 for block in range(2, 18)}
    budget = {"ratio": {**hidden, "*": 0}}
    plain, _ = secateur.prune(trained, example, **budget)
    small, plan = secateur.prune(trained, example, **budget, calibrate=list(pictures.split(8)))
    with torch.no_grad():
        answers, forgotten, kept = (model(photographs).argmax(1) for model in (trained, plain, small))
    assert (kept == answers).float().mean() > 0.7 > (forgotten == answers).float().mean()
    errors = list(plan.recipe["compensation"]["errors"].values())
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("ranking", ["group", "global"])
def test_the_trained_network_equals_its_masked_self_on_photographs(trained, photographs, ranking):
    small, plan = secateur.prune(trained, torch.zeros(1, 3, 224, 224), macs="0.5x", ranking=ranking)
    assert 0.495 < counted_macs(small, 224) / counted_macs(trained, 224) <= 0.5
    with torch.no_grad():
        found = small(photographs)
        references = {"mask": secateur.mask(trained, plan)(photographs), "oracle": silenced(trained, plan)(photographs)}
    for name, expected in references.items():
        span = expected.amax(1) - expected.amin(1)
        difference = (found - expected).abs().amax(1)
        assert (difference / span).max() < 1e-5, name
        assert difference.max() / expected.std(0).mean() < 1e-3, f"{name}: beside what tells pictures apart"
        first, second = expected.topk(2).values.T
        clear = (first - second) / span > 1e-5
        assert clear.sum() > len(clear) / 2
        assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear]), name


@pytest.mark.parametrize("size", [LARGE, OBLONG], ids=["512x512", "320x416"])
@every_budget
@every_network
def test_pruned_networks_equal_their_masked_selves(networks, graphs, random_networks, name, budget, size):
    plan = secateur.plan(graphs[name], networks[name], **budget)
    full, image = random_networks[name], picture(size, torch.float64)
    with torch.no_grad():
        expected, found = tensors_of(silenced(full, plan)(image)), tensors_of(secateur.cut(full, plan)(image))
    assert len(found) == len(expected) == {"modnet": 3, "backbone": 1}[name]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float64
        assert one.shape == other.shape
        assert other.std() > 1e-3, "the output is dead and hides any error"
        assert (one - other).abs().max() / other.std() < 1e-9


@every_budget
def test_all_branches_of_modnet_lose_channels(networks, graphs, budget):
    small = secateur.cut(networks["modnet"], secateur.plan(graphs["modnet"], networks["modnet"], **budget))
    for branch in ("backbone", "lr_branch", "hr_branch", "f_branch"):
        full = dict(networks["modnet"].get_submodule(branch).named_modules())
        layers = [name for name, layer in full.items() if isinstance(layer, nn.Conv2d) and layer.out_channels > 1]
        cut = dict(small.get_submodule(branch).named_modules())
        whole = [name for name in layers if cut[name].out_channels >= full[name].out_channels]
        assert not whole, f"{branch}: {whole} lost nothing"


@every_network
def test_a_cap_on_macs_is_met_within_a_hundredth_from_below(networks, graphs, name):
    small = secateur.cut(networks[name], secateur.plan(graphs[name], networks[name], macs="0.24x"))
    assert 0.99 * 0.24 <= counted_macs(small) / counted_macs(networks[name]) <= 0.24


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 20))])
def test_four_fifths_of_the_backbone_go_and_the_rest_is_proved(seed):
    torch.manual_seed(seed)
    model = MobileNetV2()
    small, plan = secateur.prune(model, torch.zeros(1, 3, *LARGE), ratio=0.8, min_channels=1)
    assert plan.proof.mask_error < 1e-9
    assert small.features[0][0].out_channels >= 6
    assert min(layer.out_channels for layer in small.modules() if isinstance(layer, nn.Conv2d)) > 0
    assert 362_000 <= parameters(small) <= 363_000
    assert parameters(small.classifier) == 257_000
    for full, cut in zip(model.modules(), small.modules(), strict=True):
        if isinstance(full, nn.Conv2d):
            assert cut.out_channels == full.out_channels - full.out_channels * 8 // 10
    assert 88e6 <= counted_macs(small) <= 95e6
    assert small(picture((64, 96))).shape == (1, 1000)


def test_the_articles_two_caps_are_held_and_the_result_is_proved(networks):
    caps: dict[str, Any] = {"macs": "41.54M", "params": "309.76k", "min_channels": 4}
    small, plan = secateur.prune(networks["backbone"], torch.zeros(1, 3, *LARGE), **caps)
    assert plan.proof.mask_error < 1e-9
    assert small.features[0][0].out_channels >= 6
    assert counted_macs(small) <= 41.54e6
    assert parameters(small) <= 309_760


def test_the_command_line_counts_modnets_branches_as_the_article_does(tmp_path):
    command = [sys.executable, "-m", "secateur.cli", "analyze", "modnet", "--input", "1x3x512x512", "--json"]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    found = {branch["name"]: (branch["params"], branch["macs"]) for branch in json.loads(result.stdout)["branches"]}
    assert list(found) == ["lr", "hr", "fusion"]
    assert found["lr"] == pytest.approx((6.158e6, 5.026e9), rel=0.002)
    assert found["hr"] == pytest.approx((0.2449e6, 10.138e9), rel=0.002)
    assert found["fusion"] == pytest.approx((0.0492e6, 2.953e9), rel=0.002)


class Recorder:
    """A hook that changes nothing and is told apart by identity."""

    def __call__(self, *_: Any) -> None:
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return self


def working_model() -> tuple[MobileNetV2, Recorder]:
    """Return a model amid somebody's training: modes mixed, layers frozen, hooks set, gradients there."""
    torch.manual_seed(5)
    model, hook = MobileNetV2(num_classes=10).train(), Recorder()
    model.features[0].eval()
    model.features[:3].requires_grad_(False)
    model(picture((64, 64))).sum().backward()
    model.classifier.register_forward_hook(hook)
    model.features[4].register_forward_pre_hook(hook)
    model.features[5].register_full_backward_hook(hook)
    return model, hook


def everything(model: nn.Module) -> list[Any]:
    """Return all that a pruner might disturb in a model, and the state of the dice."""
    modules = [
        (
            path,
            module.training,
            sorted(vars(module)),
            sorted(module._parameters),
            sorted(module._buffers),
            hooks(module),
        )
        for path, module in model.named_modules()
    ]
    tensors = [
        (name, id(tensor), type(tensor), tensor.dtype, tensor.device, tensor.requires_grad, tensor.detach().clone())
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    ]
    numbers = [(*head, value.numpy().tobytes()) for *head, value in tensors]
    gradients = [None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes()) for p in model.parameters()]
    dice = (torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(np.random.get_state()))  # noqa: NPY002
    return [modules, numbers, gradients, dice]


def hooks(module: nn.Module) -> list[Any]:
    """Return what is hooked to a module."""
    kinds = (module._forward_pre_hooks, module._forward_hooks, module._backward_hooks)
    return [hook for kind in kinds for hook in kind.values()]


def test_pruning_a_model_in_training_leaves_it_as_it_was():
    model, _ = working_model()
    before = everything(model)
    zeros = torch.zeros(2, 3, 64, 64)
    small, plan = secateur.prune(model, zeros, ratio=0.5)
    assert everything(model) == before
    assert not zeros.any()
    assert plan.proof.mask_error < 1e-9
    assert small.features[0][0].out_channels == 16


@pytest.mark.parametrize("budget", [{"macs": "0.0001x"}, {"ratio": 0.5, "criterion": "l11"}, {}])
def test_a_refused_budget_leaves_the_model_as_it_was(budget):
    model, _ = working_model()
    before = everything(model)
    with pytest.raises(secateur.PlanError):
        secateur.prune(model, torch.zeros(2, 3, 64, 64), **budget)
    assert everything(model) == before


def test_what_is_left_of_a_model_in_training_is_still_in_training():
    model, hook = working_model()
    small, _ = secateur.prune(model, torch.zeros(2, 3, 64, 64), ratio=0.5)
    full, cut = dict(model.named_modules()), dict(small.named_modules())
    assert {path: module.training for path, module in cut.items()} == {p: module.training for p, module in full.items()}
    assert {path: hooks(module) for path, module in cut.items()} == {p: hooks(module) for p, module in full.items()}
    assert [found for module in cut.values() for found in hooks(module)] == [hook] * 3
    for name, tensor in [*small.named_parameters(), *small.named_buffers()]:
        source = {**dict(model.named_parameters()), **dict(model.named_buffers())}[name]
        assert (type(tensor), tensor.dtype, tensor.device) == (type(source), source.dtype, source.device)
        assert tensor.requires_grad == source.requires_grad, name
        assert tensor.is_leaf
        assert tensor.data_ptr() != source.data_ptr()
    small(picture((64, 64))).sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in small.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_plan_applies_to_a_coarser_checkpoint_of_the_model(networks, graphs, dtype):
    plan = secateur.plan(graphs["backbone"], networks["backbone"], ratio=0.5)
    torch.manual_seed(12)
    other = MobileNetV2().to(dtype).eval()
    small = secateur.cut(other, plan)
    full = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    for name, tensor in [*small.named_parameters(), *small.named_buffers()]:
        assert tensor.dtype == full[name].dtype, name
        assert torch.equal(tensor.detach(), sliced(full[name].detach(), plan.keep.get(name, {}))), name
    assert small.classifier.weight.dtype == dtype
    assert small(picture((64, 64), dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_any_precision_are_pruned_and_proved_in_double(dtype):
    torch.manual_seed(13)
    model = MobileNetV2(num_classes=10).to(dtype)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 64, 64, dtype=dtype), ratio=0.5)
    assert plan.proof.mask_error < 1e-9
    assert {parameter.dtype for parameter in [*model.parameters(), *small.parameters()]} == {dtype}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@every_network
def test_a_model_without_data_is_traced_planned_and_cut(name, device):
    with torch.device("meta"):
        model = NETWORKS[name]()
    graph = secateur.trace(model, torch.zeros(1, 3, *LARGE, device=device))
    plan = secateur.plan(graph, model, macs="0.24x", criterion="random")
    small = secateur.cut(model, plan)
    assert type(small) is type(model)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *small.parameters(), *small.buffers()])
    assert counted_macs(small) <= 0.24 * counted_macs(model)
    proof = secateur.verify(model, small, plan, torch.zeros(1, 3, *LARGE, device=device))
    assert proof.structure
    assert proof.mask_error is None
    assert "no data" in str(proof)


@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_the_same_seed_gives_the_same_plan_and_bytes(tmp_path, criterion):
    torch.manual_seed(14)
    model, written = MobileNetV2(num_classes=10), []
    for number in range(2):
        torch.manual_seed(number)  # the dice of whoever calls do not matter
        small, plan = secateur.prune(
            copy.deepcopy(model), torch.zeros(1, 3, 64, 64), macs="0.5x", criterion=criterion, seed=3
        )
        place = tmp_path / f"{number}.safetensors"
        secateur.save(place, small, plan)
        written.append((plan, plan.to_json(), place.read_bytes()))
    assert written[0] == written[1]


def test_another_process_with_another_hash_seed_writes_the_same_bytes(tmp_path):
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, place in enumerate(files):
        command = [
            sys.executable,
            "-m",
            "secateur.cli",
            "prune",
            "mobilenetv2",
            "-o",
            place.name,
            "--macs",
            "0.5x",
            "-q",
        ]
        environment = {**ENVIRONMENT, "PYTHONHASHSEED": str(seed)}
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert files[0].read_bytes() == files[1].read_bytes()
