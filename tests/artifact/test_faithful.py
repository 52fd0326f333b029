"""What is saved comes back as it was, or is refused: wrong models, ties, state beside tensors, dtypes, calls."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import secateur
from secateur.artifact.reading import read
from secateur.errors import ArtifactError, CutError, TraceError
from secateur.graph.calls import calls_of, zeros_for

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
