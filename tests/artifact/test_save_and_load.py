"""A pruned model comes back from its file: from the zoo alone, any other from the full-size model."""

from __future__ import annotations

import copy
import json

import pytest
import safetensors.torch
import torch
from torch import nn

import secateur
from secateur.artifact.format import decode, encode
from secateur.artifact.reading import read
from secateur.errors import ArtifactError
from secateur.models import LeNet, MobileNetV2, MODNet


class Tied(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 3, padding=1)
        self.third.weight = self.second.weight
        self.out = nn.Linear(width, 5)
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, x):
        return self.out(self.third(self.second(self.first(x))).flatten(2).mean(2).view(-1, self.width))


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (LeNet(), (1, 1, 28, 28)),
        (MobileNetV2(in_channels=4, width=0.5, num_classes=10), (1, 4, 64, 64)),
        (MODNet(hr_channels=16), (1, 3, 64, 64)),
    ],
    ids=["lenet", "mobilenetv2", "modnet"],
)
def test_a_zoo_model_comes_back_from_the_file_alone(tmp_path, model, shape):
    small, plan = secateur.prune(model, torch.zeros(shape), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    state = torch.get_rng_state()
    again = secateur.load(tmp_path / "small.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(again) is type(model)
    assert not again.training
    assert same(small, again)
    assert read(tmp_path / "small.safetensors").plan == plan
    x = torch.rand(shape)
    for one, other in zip(small.eval()(x), again(x), strict=True):
        assert torch.equal(one, other)


def test_any_other_model_comes_back_from_the_full_size_one_which_stays(tmp_path):
    model = Tied()
    small, plan = secateur.prune(model, torch.zeros(2, 3, 8, 8), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    full = Tied().double()
    before = copy.deepcopy(full)
    again = secateur.load(tmp_path / "small.safetensors", into=full)
    assert same(full, before)
    assert same(small, again)
    assert again.width == 12
    assert again.training
    assert again.third.weight is again.second.weight
    with pytest.raises(ArtifactError, match=r"no code is run.*into="):
        secateur.load(tmp_path / "small.safetensors")


def test_tied_tensors_are_stored_once(tmp_path):
    model = MODNet()
    small, plan = secateur.prune(model, torch.zeros(1, 3, 64, 64), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    values = sum(tensor.numel() for tensor in {id(t): t for t in small.state_dict(keep_vars=True).values()}.values())
    assert (tmp_path / "small.safetensors").stat().st_size < 4 * values + 500_000
    again = secateur.load(tmp_path / "small.safetensors")
    assert again.backbone is again.lr_branch.backbone


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(tmp_path, dtype):
    small, plan = secateur.prune(Tied(), torch.zeros(2, 3, 8, 8), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small.to(dtype), plan)
    again = secateur.load(tmp_path / "small.safetensors", into=Tied())
    assert same(small, again)
    assert again.first.weight.dtype == dtype
    assert again.steps.dtype == torch.int64


def test_the_file_says_what_it_is_made_of(tmp_path):
    small, plan = secateur.prune(LeNet(), torch.zeros(1, 1, 28, 28), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan, provenance={"why": "a test"})
    _, document = decode((tmp_path / "small.safetensors").read_bytes(), "file")
    assert document["version"] == 1
    assert document["identity"] == {"kind": "zoo", "name": "lenet", "arguments": {}}
    assert document["plans"][0]["calls"] == [{"shapes": [[1, 1, 28, 28]], "dtypes": ["float32"]}]
    assert document["preprocessing"] == {"mean": [0.1307], "std": [0.3081]}
    assert document["provenance"].pop("versions")["torch"] == torch.__version__
    assert document["provenance"] == {"why": "a test"}
    assert document["proof"]["mask_error"] == plan.proof.mask_error
    assert len(document["fingerprint"]) == 64
    assert json.dumps(document)


def test_a_trained_model_is_saved_as_it_is(tmp_path):
    small, plan = secateur.prune(LeNet(), torch.zeros(1, 1, 28, 28), ratio=0.5)
    with torch.no_grad():
        small.fc3.bias += 1
    secateur.save(tmp_path / "small.safetensors", small, plan)
    assert same(small, secateur.load(tmp_path / "small.safetensors"))


def test_another_full_size_model_is_refused_with_the_first_difference(tmp_path):
    small, plan = secateur.prune(Tied(), torch.zeros(2, 3, 8, 8), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    with pytest.raises(ArtifactError, match=r"first\.weight has shape"):
        secateur.load(tmp_path / "small.safetensors", into=Tied(width=32))


@pytest.mark.parametrize(
    "change",
    [
        {"identity": {"kind": "zoo", "name": "lenett", "arguments": {}}},
        {"identity": {"kind": "zoo", "name": "mobilenetv2", "arguments": {"width": 1e9}}},
        {"identity": {"kind": "zoo", "name": "lenet", "arguments": {"cls": ["x"]}}},
        {"identity": {"kind": "zoo", "name": "lenet", "arguments": {"unknown": 1}}},
        {"identity": {"kind": "class", "name": "os.system"}},
        {"identity": 3},
        {"plans": []},
        {"plans": None},
        {"aliases": {"a": "b"}},
        {"fingerprint": "0" * 64},
    ],
    ids=str,
)
def test_a_file_that_lies_is_refused(tmp_path, change):
    small, plan = secateur.prune(LeNet(), torch.zeros(1, 1, 28, 28), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    tensors, document = decode((tmp_path / "small.safetensors").read_bytes(), "file")
    document.pop("version")
    (tmp_path / "lie.safetensors").write_bytes(encode(tensors, {**document, **change}))
    with pytest.raises(ArtifactError):
        secateur.load(tmp_path / "lie.safetensors")


def test_what_is_no_tensor_with_data_is_named(tmp_path):
    small, plan = secateur.prune(LeNet(), torch.zeros(1, 1, 28, 28), ratio=0.5)
    with pytest.raises(ArtifactError, match=r"conv1\.weight has no data"):
        secateur.save(tmp_path / "small.safetensors", small.to("meta"), plan)
    assert not list(tmp_path.iterdir())


def test_a_header_of_any_length_is_read():
    lengths = set()
    for padding in range(0, 256, 8):  # one of these headers begins as a pickle does
        data = encode({"weight": torch.ones(2)}, {"note": "x" * padding})
        lengths.add(data[0])
        assert decode(data, "file")[0]["weight"].tolist() == [1.0, 1.0]
    assert 0x80 in lengths


def test_the_plan_adds_little_to_the_weights(tmp_path):
    torch.manual_seed(0)
    small, plan = secateur.prune(MODNet().eval(), torch.zeros(1, 3, 64, 64), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    distinct = {id(tensor): (name, tensor) for name, tensor in reversed(small.state_dict(keep_vars=True).items())}
    plain = len(safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in distinct.values()}))
    assert (tmp_path / "small.safetensors").stat().st_size < plain + 64_000
    assert read(tmp_path / "small.safetensors").plan == plan


class SharedParts(nn.Module):
    """One block under two names, and one weight of another that is tied alone."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.again, self.more = self.block, nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 8, 1)
        self.last.weight = self.more.weight

    def forward(self, x):
        return self.last(self.more(self.again(x)))


def test_names_of_one_tensor_are_stored_as_pairs_of_prefixes(tmp_path):
    model, picture = SharedParts().eval(), torch.rand(1, 3, 8, 8)
    small, plan = secateur.prune(model, picture, ratio=0.5, min_channels=1)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    _, document = decode((tmp_path / "small.safetensors").read_bytes(), "file")
    assert document["aliases"] == [["again.", "block."], ["last.weight", "more.weight"]]
    assert not any(name.startswith(("again.", "last.weight")) for name in document["plans"][0]["keep"])
    again = secateur.load(tmp_path / "small.safetensors", into=SharedParts()).eval()
    assert same(small, again)
    assert again.last.weight is again.more.weight
    assert again.again is again.block
    assert read(tmp_path / "small.safetensors").plan == plan


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ([["x.", "nothing."]], "no stored tensor is called"),
        ([["x"]], "lacks what a file"),
        ({"x": "y"}, "lacks what a file"),
        ([[f"{n}.", "conv1."] for n in range(2_000)], "far more names than tensors"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(tmp_path, aliases, message):
    small, plan = secateur.prune(LeNet(), torch.zeros(1, 1, 28, 28), ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    tensors, document = decode((tmp_path / "small.safetensors").read_bytes(), "file")
    (tmp_path / "bad.safetensors").write_bytes(encode(tensors, {**document, "aliases": aliases}))
    with pytest.raises(ArtifactError, match=message):
        read(tmp_path / "bad.safetensors")
