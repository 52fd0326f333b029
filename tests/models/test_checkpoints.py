from __future__ import annotations

import os
import pickle
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from secateur.errors import ArtifactError
from secateur.models import LeNet, MobileNetV2, MODNet, load_checkpoint
from tests.models.published import as_torchvision_nests


class Twin(nn.Module):
    """A module under two names, as MODNet's backbone."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.branch = nn.ModuleDict({"body": self.body, "head": nn.Linear(4, 2)})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def randomized(model):
    with torch.no_grad():
        for value in model.state_dict(keep_vars=True).values():
            value.copy_(torch.randint(1, 99, value.shape))
    return model


def same(one, other):
    return all(torch.equal(one.state_dict()[key], value) for key, value in other.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("left_out", ["nothing", "body.", "branch.body."])
def test_a_module_under_two_names_is_filled_from_either_or_both(path, prefix, left_out):
    source, model = randomized(Twin()), Twin()
    state = {prefix + key: value for key, value in source.state_dict().items() if not key.startswith(left_out)}
    torch.save(state, path)
    report = load_checkpoint(model, path)
    assert report.complete
    assert len(report.loaded) == 9
    assert same(model, source)


def test_the_published_form_of_modnet_is_read(path):
    source, model = randomized(MODNet()), MODNet()
    torch.save({f"module.{key}": value for key, value in source.state_dict().items()}, path)
    report = load_checkpoint(model, path)
    assert report.complete
    assert len(report.loaded) == 439
    assert report.notes == ("Every key of the file begins with 'module.', which was left out.",)
    assert same(model, source)


def test_a_model_inside_data_parallel_is_filled_too(path):
    source = randomized(LeNet())
    torch.save(source.state_dict(), path)
    model = nn.DataParallel(LeNet())
    assert load_checkpoint(model, path).complete
    assert same(model.module, source)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "whatever"])
def test_a_state_dict_one_level_deep_is_found(path, key):
    source, model = randomized(LeNet()), LeNet()
    optimizer = {"state": {0: {"step": torch.tensor(1)}}, "param_groups": []}
    torch.save({"epoch": 3, "optimizer": optimizer, key: source.state_dict(), "loss": torch.tensor(0.5)}, path)
    assert load_checkpoint(model, path).complete
    assert same(model, source)


def test_safetensors_are_read(tmp_path):
    source, model = randomized(LeNet()), LeNet()
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    assert load_checkpoint(model, str(tmp_path / "weights.safetensors")).complete
    assert same(model, source)


def test_another_nesting_that_the_class_declares_is_understood(path):
    source, model = randomized(MobileNetV2(num_classes=5)), MobileNetV2(num_classes=5)
    torch.save({as_torchvision_nests(key): value for key, value in source.state_dict().items()}, path)
    report = load_checkpoint(model, path)
    assert report.complete
    assert report.notes == ("The keys are nested as those of torchvision.",)
    assert same(model, source)


def test_what_a_trainer_keeps_beside_and_around_the_network_is_left_out(path):
    source = LeNet()
    around = {f"model.{key}": value for key, value in source.state_dict().items()}
    averaged = torch.optim.swa_utils.AveragedModel(source).state_dict()
    for state, note in ((averaged, "n_averaged"), ({"state_dict": around}, "'model.'")):
        torch.save(state, path)
        model = LeNet()
        report = load_checkpoint(model, path)
        assert report.complete
        assert any(note in one for one in report.notes)
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), source.parameters(), strict=True))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_another_nesting_is_understood_inside_a_larger_model(path, prefix):
    source = randomized(nn.ModuleDict({"net": MobileNetV2(num_classes=5), "head": nn.Linear(5, 2)}))
    model = nn.ModuleDict({"net": MobileNetV2(num_classes=5), "head": nn.Linear(5, 2)})
    renamed = {
        f"{prefix}net.{as_torchvision_nests(key.removeprefix('net.'))}"
        if key.startswith("net.")
        else prefix + key: value
        for key, value in source.state_dict().items()
    }
    torch.save(renamed, path)
    assert load_checkpoint(nn.DataParallel(model), path).complete
    assert same(model, source)


def test_filling_keeps_the_models_own_tensors_dtype_and_frozen_state(path):
    model = LeNet().half()
    model.conv1.weight.requires_grad_(False)
    before = list(model.parameters())
    source = randomized(LeNet())
    torch.save(source.state_dict(), path)
    report = load_checkpoint(model, path)
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    assert {value.dtype for value in model.parameters()} == {torch.float16}
    assert [value.requires_grad for value in model.parameters()] == [False] + [True] * 9
    assert report.notes == ("10 tensors were converted from torch.float32 to torch.float16.",)
    assert same(model.float(), source)


def test_counters_of_batch_norms_may_be_absent(path):
    source, model = randomized(Twin()), Twin()
    state = {key: value for key, value in source.state_dict().items() if "num_batches" not in key}
    torch.save(state, path)
    report = load_checkpoint(model, path)
    assert report.complete
    assert report.notes == ("1 counters of batch norms are not in the file and stay as they are.",)


def altered(model):
    """Return the model's state dict with one tensor missing, one unexpected and one of another shape."""
    state = dict(model.state_dict())
    del state["fc2.bias"]
    state["fc9.bias"] = torch.zeros(3)
    state["fc3.weight"] = torch.zeros(7, 84)
    return state


def test_what_does_not_fit_is_named_and_the_model_left_alone(path):
    model = randomized(LeNet())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(altered(LeNet()), path)
    with pytest.raises(ArtifactError) as raised:
        load_checkpoint(model, path)
    assert str(raised.value) == (
        f"{path} does not fit LeNet: of 10 tensors 8 fit; 1 missing (fc2.bias), 1 unexpected (fc9.bias), 1 of another "
        "shape (fc3.weight: (7, 84) in the file, (10, 84) in the model). "
        "Build the model with the arguments it was saved with, or load what fits with strict=False."
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_fits_is_loaded_on_request_and_the_rest_reported(path):
    source, model = randomized(LeNet()), LeNet()
    torch.save({f"module.{key}": value for key, value in altered(source).items()}, path)
    report = load_checkpoint(model, path, strict=False)
    assert not report.complete
    assert report.missing == ("fc2.bias",)
    assert report.unexpected == ("module.fc9.bias",)
    assert [str(one) for one in report.mismatched] == ["fc3.weight: (7, 84) in the file, (10, 84) in the model"]
    assert len(report.loaded) == 8
    assert all(torch.equal(model.state_dict()[name], source.state_dict()[name]) for name in report.loaded)


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_of_another_architecture_is_refused(path, strict):
    torch.save(MobileNetV2().state_dict(), path)
    with pytest.raises(
        ArtifactError, match=r"of 10 tensors 0 fit; 10 missing \(.*, \.\.\.\), 314 unexpected.*another arch"
    ):
        load_checkpoint(LeNet(), path, strict=strict)


def test_one_tensor_that_fits_by_chance_does_not_make_a_checkpoint_fit(path):
    torch.save({"classifier.bias": torch.zeros(1000), **LeNet().state_dict(), "fc4.bias": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match="another architecture"):
        load_checkpoint(MobileNetV2(), path, strict=False)


def test_two_names_of_one_tensor_must_agree(path):
    state = {key: value.clone() for key, value in Twin().state_dict().items()}
    state["body.0.bias"] += 1
    torch.save(state, path)
    with pytest.raises(ArtifactError, match=r"contradicts itself: body\.0\.bias and branch\.body\.0\.bias"):
        load_checkpoint(Twin(), path)


def test_a_model_without_memory_is_refused(path):
    torch.save(LeNet().state_dict(), path)
    with pytest.raises(ArtifactError, match="meta device"):
        load_checkpoint(LeNet().to("meta"), path)


class Code:
    """Unpickles by running a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write_pickle(content, path, protocol):
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("write", [torch.save, partial(write_pickle, protocol=2), partial(write_pickle, protocol=5)])
@pytest.mark.parametrize("wrapped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path, path, write, wrapped):
    code = Code(f"touch {tmp_path / 'ran'}")
    write({**LeNet().state_dict(), "code": code} if wrapped else code, path)
    with pytest.raises(ArtifactError, match=r"was not opened: it is a pickle that .* Save the weights alone"):
        load_checkpoint(LeNet(), path)
    assert not (tmp_path / "ran").exists()


def test_a_refused_pickle_names_what_it_asks_for(path):
    torch.save({"code": Code("true")}, path)
    with pytest.raises(ArtifactError, match=rf"asks for {os.name}\.system"):
        load_checkpoint(LeNet(), path)


def test_a_pickled_model_is_refused(path):
    torch.save(LeNet(), path)
    with pytest.raises(ArtifactError, match=r"asks for secateur\.models\.lenet\.LeNet.*Save the weights alone"):
        load_checkpoint(LeNet(), path)


def valid_bytes(suffix, tmp_path):
    path = tmp_path / f"valid{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(LeNet().state_dict(), path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"<!DOCTYPE html>",
        lambda content: b"hello world",
        lambda content: content[: len(content) // 2],
        lambda content: content[:9] + bytes(40) + content[49:],
    ],
)
def test_a_damaged_file_is_an_error_with_a_remedy(tmp_path, suffix, damage):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(damage(valid_bytes(suffix, tmp_path)))
    with pytest.raises(ArtifactError, match=r"is damaged, or no checkpoint.*again") as raised:
        load_checkpoint(LeNet(), path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.zeros(3), {1: torch.zeros(3)}])
def test_a_file_without_named_tensors_is_an_error(path, content):
    torch.save(content, path)
    with pytest.raises(ArtifactError, match="holds no tensors by name"):
        load_checkpoint(LeNet(), path)


def test_a_directory_and_an_absent_file_are_errors(tmp_path):
    with pytest.raises(ArtifactError, match="is a directory"):
        load_checkpoint(LeNet(), tmp_path)
    with pytest.raises(ArtifactError, match="There is no file"):
        load_checkpoint(LeNet(), tmp_path / "absent.pth")
