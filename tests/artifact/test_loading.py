"""What a file goes into: the full-size class, an edited one, one without data; and pickles on request alone."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import ArtifactError
from secateur.models import LeNet

EXAMPLE = torch.rand(2, 3, 8, 8)


class Net(nn.Module):
    """Its widths are arguments, as in a class that somebody edited after pruning."""

    def __init__(self, first: int = 16, second: int = 24) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first)
        self.two, self.out = nn.Conv2d(first, second, 3, padding=1), nn.Linear(second, 5)
        self.out.bias = nn.Parameter(torch.zeros(5))
        self.register_buffer("levels", torch.arange(first, dtype=torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.two(torch.relu(self.norm(self.one(x))))).mean((2, 3)))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = Net().eval()
    small, plan = secateur.prune(model, EXAMPLE, ratio=0.5, min_channels=1)
    path = tmp_path / "small.safetensors"
    secateur.save(path, small, plan, provenance={"criterion": "l1"})
    return path, small, plan


def test_the_full_size_class_is_cut_by_the_stored_plan(saved, caplog):
    path, small, _ = saved
    caplog.set_level(logging.INFO)
    again = secateur.load(path, into=Net().eval())
    assert torch.equal(again(EXAMPLE), small(EXAMPLE))
    assert "Net is the full-size model" in caplog.text


def test_an_edited_class_takes_the_weights_by_name_and_shape(saved, caplog):
    path, small, plan = saved
    caplog.set_level(logging.INFO)
    widths = plan.shape_after("one.weight")[0], plan.shape_after("two.weight")[0]
    edited = Net(*widths).eval()
    edited.levels = torch.zeros(small.levels.shape, dtype=torch.int8)
    again = secateur.load(path, into=edited)
    assert torch.equal(again(EXAMPLE), small(EXAMPLE))
    assert torch.equal(again.levels, small.levels)
    assert "as small as the model" in caplog.text
    assert not torch.equal(edited(EXAMPLE), small(EXAMPLE))  # it is a copy that was filled


def test_a_class_of_another_width_is_told_both_differences(saved):
    with pytest.raises(ArtifactError, match=r"levels has shape \(20,\).*Nor is it as small already: .*one\.weight is"):
        secateur.load(saved[0], into=Net(20))


def test_a_model_without_data_is_filled(saved):
    path, small, plan = saved
    with torch.device("meta"):
        full, edited = Net().eval(), Net(plan.shape_after("one.weight")[0], plan.shape_after("two.weight")[0]).eval()
    edited.levels = torch.empty(small.levels.shape, dtype=torch.int8, device="meta")
    for model in (full, edited):
        again = secateur.load(path, into=model, device="cpu")
        assert torch.equal(again(EXAMPLE), small(EXAMPLE))
        assert all(parameter.requires_grad for parameter in again.parameters())
        assert all(parameter.is_meta for parameter in model.parameters())


class Hidden(Net):
    """Has a table that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(3), persistent=False)


def test_a_buffer_that_no_file_holds_needs_a_model_with_data(tmp_path):
    small, plan = secateur.prune(Hidden().eval(), EXAMPLE, ratio=0.5)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    assert torch.equal(secateur.load(tmp_path / "small.safetensors", into=Hidden()).table, torch.ones(3))
    with torch.device("meta"):
        model = Hidden()
    with pytest.raises(ArtifactError, match="table is a buffer that no file holds"):
        secateur.load(tmp_path / "small.safetensors", into=model)


def test_a_pickled_model_is_read_on_request_and_said_aloud(tmp_path, caplog):
    model = LeNet().eval()
    torch.save(model, tmp_path / "whole.pt")
    with pytest.raises(ArtifactError, match=r"is a pickle.*trust=True"):
        secateur.load(tmp_path / "whole.pt")
    again = secateur.load(tmp_path / "whole.pt", trust=True)
    assert torch.equal(again.fc1.weight, model.fc1.weight)
    assert "runs whatever code it names" in caplog.text
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ArtifactError, match="not a whole model"):
        secateur.load(tmp_path / "weights.pt", trust=True)


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, marker: Any) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_pickle_is_never_run_unasked(tmp_path):
    torch.save(Bomb(tmp_path / "marker"), tmp_path / "bomb.safetensors")
    for read in (secateur.load, secateur.inspect):
        with pytest.raises(ArtifactError, match="pickle"):
            read(tmp_path / "bomb.safetensors")
    assert not (tmp_path / "marker").exists()


def test_trust_is_not_needed_for_a_safe_file(saved, caplog):
    path, small, _ = saved
    again = secateur.load(path, into=Net().eval(), trust=True)
    assert torch.equal(again(EXAMPLE), small(EXAMPLE))
    assert "pickle" not in caplog.text


class TestInspection:
    def test_it_says_what_there_is(self, saved):
        path, small, plan = saved
        found = secateur.inspect(path)
        assert found.plan == plan
        assert found.model == "a tests.artifact.test_loading.Net"
        assert found.provenance["criterion"] == "l1"
        assert found.provenance["versions"]["torch"] == torch.__version__
        assert found.proof["mask_error"] == plan.proof.mask_error
        assert found.bytes == path.stat().st_size
        assert found.tensors["levels"] == ("I8", tuple(small.levels.shape))
        assert found.elements == sum(tensor.numel() for tensor in small.state_dict().values())
        assert found.full_elements == sum(tensor.numel() for tensor in Net().state_dict().values())

    def test_no_weight_is_read(self, saved):
        path, _, plan = saved
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        assert secateur.inspect(path).plan == plan
        with pytest.raises(ArtifactError, match="checksum"):
            secateur.load(path, into=Net())

    def test_other_files_are_refused(self, tmp_path):
        for name, data in (("empty", b""), ("text", b"hello, world, how are you"), ("huge", b"\xff" * 8 + b"{")):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ArtifactError):
                secateur.inspect(tmp_path / name)
        with pytest.raises(ArtifactError, match="cannot be read"):
            secateur.inspect(tmp_path / "nowhere")
