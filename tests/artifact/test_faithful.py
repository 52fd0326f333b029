"""What is saved comes back as it was, or is refused: wrong models, ties, state beside tensors, dtypes, calls."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import secateur
from secateur.artifact.conversion import convert
from secateur.artifact.reading import read
from secateur.errors import ArtifactError, CutError, TraceError
from secateur.graph.calls import calls_of, zeros_for
from secateur.models import MobileNetV2

X = torch.rand(1, 3, 8, 8)


class Pair(nn.Module):
    """Two convolutions of equal shape, with one weight or two."""

    def __init__(self, tie: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.d, self.c = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
        if tie:
            self.d.weight = self.b.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.d(torch.relu(self.b(torch.relu(self.a(x)))))))


def pruned(model: nn.Module, example: object = X):
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return secateur.prune(model.eval(), example, ratio=0.5, min_channels=1)


def test_a_model_that_the_plan_did_not_make_is_not_saved(tmp_path):
    model = Pair(False)
    small, plan = pruned(model)
    file = tmp_path / "wrong.safetensors"
    with pytest.raises(ArtifactError, match=r"a.weight of Pair has shape \(16, .* plan leaves \(8,"):
        secateur.save(file, model, plan)
    with pytest.raises(ArtifactError, match=r"does not know module.a.weight of DataParallel. Save model.module"):
        secateur.save(file, nn.DataParallel(small), plan)
    with pytest.raises(ArtifactError, match=r"not Plan, Pair. Write save\(path, model, plan\)"):
        secateur.save(file, plan, small)
    for known in (float("nan"), object()):
        with pytest.raises(ArtifactError, match="provenance is no JSON"):
            secateur.save(file, small, plan, provenance={"accuracy": known})
    assert not file.exists()


def test_two_tensors_do_not_become_one(tmp_path):
    small, plan = pruned(Pair(False))
    secateur.save(tmp_path / "two.safetensors", small, plan)
    with pytest.raises(ArtifactError, match=r"b.weight and d.weight are one tensor in .* and two in the "):
        secateur.load(tmp_path / "two.safetensors", into=Pair(True))
    with pytest.raises(CutError, match=r"b.weight and d.weight are one tensor in Pair, and two in the plan"):
        secateur.cut(Pair(True), plan)


def test_one_tensor_that_goes_into_two_is_not_shared(tmp_path):
    tied = Pair(True)
    small, plan = pruned(tied)
    secateur.save(tmp_path / "one.safetensors", small, plan)
    widths = [plan.shape_after(f"{name}.weight")[0] for name in "abd"]
    edited = Pair(False)
    edited.a, edited.b = nn.Conv2d(3, widths[0], 3, padding=1), nn.Conv2d(widths[0], widths[1], 3, padding=1)
    edited.d, edited.c = nn.Conv2d(widths[1], widths[2], 3, padding=1), nn.Conv2d(widths[2], 4, 1)
    again = secateur.load(tmp_path / "one.safetensors", into=edited.eval())
    assert torch.equal(again(X), small(X))
    assert again.b.weight.data_ptr() != again.d.weight.data_ptr()


class Kept(nn.Module):
    """Keeps a number beside its tensors, and a table that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.most = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), 1.0
        self.register_buffer("grid", torch.linspace(0, 1, 6), persistent=False)

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.most)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.most = float(state)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.a(x) + self.grid)) * self.most


def test_what_modules_keep_beside_tensors_comes_back(tmp_path):
    model = Kept()
    model.most = 3.0
    small, plan = pruned(model)
    secateur.save(tmp_path / "kept.safetensors", small, plan)
    again = secateur.load(tmp_path / "kept.safetensors", into=Kept().eval())
    assert again.most == 3.0
    assert torch.equal(again(X), small(X))


def test_what_no_file_holds_follows_the_dtype_of_the_others(tmp_path):
    small, plan = pruned(Kept())
    secateur.save(tmp_path / "half.safetensors", small.bfloat16(), plan)
    again = secateur.load(tmp_path / "half.safetensors", into=Kept().eval())
    assert again.grid.dtype == torch.bfloat16
    assert torch.equal(again(X.bfloat16()), small(X.bfloat16()))


class Asks(nn.Module):
    """Takes tensors by name, and other values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(9, 4, 1)

    def forward(self, picture: torch.Tensor, trimap: torch.Tensor, scale: float, refine: bool = False) -> torch.Tensor:
        assert refine
        return self.c(torch.cat([torch.relu(self.a(picture)), trimap], 1)) * scale


def test_how_a_model_is_called_is_in_its_file(tmp_path):
    example = {"trimap": torch.rand(1, 1, 6, 6), "picture": X, "scale": 2.0, "refine": True}
    model = Asks()
    small, plan = pruned(model, example)
    secateur.save(tmp_path / "asks.safetensors", small, plan)
    calls = zeros_for(read(tmp_path / "asks.safetensors").plan.calls)
    (call,) = calls_of(calls)
    assert {name: getattr(value, "shape", value) for name, value in call.kwargs.items()} == {
        "trimap": (1, 1, 6, 6), "picture": (1, 3, 8, 8), "scale": 2.0, "refine": True,
    }  # fmt: skip
    assert secateur.verify(model, small, plan, calls).values
    assert secateur.Plan.from_json(plan.to_json()) == plan


def test_what_cannot_be_written_down_is_asked_for():
    class Sizes:
        pass

    call = calls_of(({"one": [X, (X,)]}, Sizes()))[0]
    shapes = secateur.trace(Passing(), call).calls
    with pytest.raises(TraceError, match=r"called with a Sizes, which is in no file"):
        zeros_for(shapes)
    nested = secateur.trace(Passing(), ({"one": [X, (X,)]}, None)).calls
    (again,) = zeros_for(nested)
    assert again.args[0]["one"][1][0].shape == X.shape
    for broken in ('{"args": [{"tensor": 7}], "kwargs": {"dict": {}}}', "[", '{"args": 3, "kwargs": {"dict": {}}}'):
        with pytest.raises(TraceError, match="makes no sense"):
            zeros_for([type(nested[0])(nested[0].shapes, nested[0].dtypes, broken)])
    assert json.loads(nested[0].arguments)["args"][0]["dict"]["one"]["list"][1] == {"tuple": [{"tensor": 1}]}


class Passing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, given: dict, other: object) -> torch.Tensor:
        return self.c(torch.relu(self.a(given["one"][0] + given["one"][1][0])))


def quick(**changes: object) -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2(width=0.35, num_classes=10, **changes).eval()


def test_a_network_of_the_zoo_with_other_layers_goes_by_its_class(tmp_path):
    picture = torch.rand(1, 3, 32, 32)
    for name in ("head", "activation"):
        model = quick()
        if name == "head":
            model.classifier = nn.Linear(model.classifier.in_features, 7)
        else:
            for module in model.modules():
                for key, child in module.named_children():
                    if isinstance(child, nn.ReLU6):
                        setattr(module, key, nn.SiLU())
        small, plan = secateur.prune(model, picture, ratio=0.5, min_channels=1)
        secateur.save(tmp_path / "own.safetensors", small, plan)
        with pytest.raises(ArtifactError, match=r"holds a secateur.models.*MobileNetV2, .* Pass the full-size model"):
            secateur.load(tmp_path / "own.safetensors")
        again = secateur.load(tmp_path / "own.safetensors", into=model)
        assert torch.equal(again(picture), small(picture))


def test_modes_of_training_do_not_make_a_network_another(tmp_path):
    model = quick()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01
    small, plan = secateur.prune(model.train(), torch.rand(2, 3, 32, 32), ratio=0.5, min_channels=1)
    secateur.save(tmp_path / "own.safetensors", small, plan)
    assert type(secateur.load(tmp_path / "own.safetensors")) is MobileNetV2


def test_what_is_known_of_a_file_survives_its_conversion(tmp_path):
    small, plan = pruned(Pair(False))
    source, target = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    known = {"mean": [0.5], "std": [0.25]}
    secateur.save(source, small, plan, preprocessing=known, provenance={"who": "me"})
    convert(source, target, model=Pair(False))
    before, after = read(source), read(target)
    assert after.preprocessing == known
    assert after.proof == before.proof
    assert (after.provenance["who"], after.provenance["converted"]) == ("me", "one.safetensors")
    for words in ({"plan": tmp_path / "none.json"}, {"whole": True}):
        with pytest.raises(ArtifactError, match=r"has a plan of its own|holds no whole model"):
            convert(source, tmp_path / "three.safetensors", model=Pair(False), **words)


def test_a_cut_in_place_is_whole_or_not_at_all():
    model = Pair(False)
    _, plan = pruned(model)
    (model(X).sum()).backward()
    missing = type(plan)(**{**vars(plan), "attributes": {"a.nonsense": 3}})
    with pytest.raises(CutError, match=r"no integer a.nonsense"):
        secateur.cut(model, missing, inplace=True)
    assert model.a.weight.shape == (16, 3, 3, 3)
    secateur.cut(model, plan, inplace=True)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_with_masked_weights_tell_their_new_sizes():
    model = Pair(False)
    nn.utils.prune.random_unstructured(model.b, "weight", 0.3)
    small, plan = secateur.prune(model.eval(), X, ratio=0.5, min_channels=1)
    assert (small.b.in_channels, small.b.out_channels) == (8, 8) == tuple(plan.shape_after("b.weight_orig")[1::-1])


def test_wrong_arguments_are_told(tmp_path):
    small, plan = pruned(Pair(False))
    secateur.save(tmp_path / "small.safetensors", small, plan)
    torch.save(small, tmp_path / "whole.pth")
    with pytest.raises(ArtifactError, match=r"is no module. Pass one that is built: into=MyModel\(\)"):
        secateur.load(tmp_path / "small.safetensors", into=Pair)
    with pytest.raises(ArtifactError, match=r"goes into no other. Leave into out"):
        secateur.load(tmp_path / "whole.pth", into=Pair(False), trust=True)
