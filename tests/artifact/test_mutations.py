"""Whatever was done to a file: it gives the good model, the one that it was signed for, or an `ArtifactError`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur
from secateur.artifact.inspection import inspect
from secateur.errors import ArtifactError
from secateur.graph.groups import Axis
from secateur.models import MobileNetV2
from tests.artifact.good_files import Good, Parts, good_files, put_together, taken_apart
from tests.artifact.judging import FINE, judge
from tests.artifact.mutations import MARKER, Mutated, Payload, mutated

COUNT, AT_ONCE = 500, 50


@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
def test_a_mutated_file_gives_no_wrong_model_and_no_other_error(first: int, tmp_path: Path) -> None:
    found = {seed: judge(mutated(seed), tmp_path) for seed in range(first, first + AT_ONCE)}
    assert {seed: verdict for seed, verdict in found.items() if verdict.outcome not in FINE} == {}


@pytest.mark.parametrize("good", good_files(), ids=lambda good: good.name)
def test_a_file_taken_apart_and_put_together_is_still_good(good: Good, tmp_path: Path) -> None:
    untouched = Mutated(0, good, "nothing", put_together(taken_apart(good.data), signed=True))
    assert judge(untouched, tmp_path).outcome == "the good model"


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (lambda parts: parts.document["provenance"], "loss", "@nan@"),
        (lambda parts: parts.document["provenance"], "loss", "@huge@"),
        (lambda parts: parts.document["provenance"], "loss", "@deep150@"),
        (lambda parts: parts.document, "version", "@deep150@"),
        (lambda parts: parts.document, "version", True),
        (lambda parts: parts.plan["attributes"], "nothing.width", 1),
        (lambda parts: parts.plan["attributes"], "training", 1),
        (lambda parts: parts.plan["attributes"], "qkv._backward_hooks", 1),
        (lambda parts: parts.plan["attributes"], "heads[1]", 1),
        (lambda parts: parts.plan["attributes"], "heads[0][1]", 1),
        (lambda parts: parts.plan["scales"], "qkv.weight", [[1e300, None]]),
        (lambda parts: parts.header["head.bias"], "dtype", "I32"),
        (lambda parts: parts.header["head.bias"], "shape", [0, 2**63]),
    ],
)
def test_a_signed_lie_is_refused(
    tmp_path: Path, where: Callable[[Parts], dict[str, Any]], name: str, value: Any
) -> None:
    good, place = good_files()[2], tmp_path / "small.safetensors"
    parts = taken_apart(good.data)
    where(parts)[name] = value
    place.write_bytes(put_together(parts, signed=True))
    with pytest.raises(ArtifactError):
        secateur.load(place, good.into)


@pytest.mark.parametrize("arguments", [[1], None, "x"])
def test_arguments_that_are_none_are_refused(tmp_path: Path, arguments: Any) -> None:
    parts, place = taken_apart(good_files()[0].data), tmp_path / "small.safetensors"
    parts.document["identity"]["arguments"] = arguments
    place.write_bytes(put_together(parts, signed=True))
    with pytest.raises(ArtifactError, match="makes no sense"):
        secateur.load(place)


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL], ids=str)
def test_no_pickle_is_opened(tmp_path: Path, protocol: int) -> None:
    assert_refused_unopened(tmp_path, pickle.dumps(Payload(), protocol))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_checkpoint_is_opened(tmp_path: Path, zipped: bool) -> None:
    torch.save(Payload(), tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    assert_refused_unopened(tmp_path, (tmp_path / "whole.pt").read_bytes())
    torch.load(tmp_path / "whole.pt", weights_only=False)
    assert MARKER.exists()  # so it was a trap
    MARKER.unlink()


def assert_refused_unopened(folder: Path, data: bytes) -> None:
    place = folder / "small.safetensors"
    place.write_bytes(data)
    for read in (secateur.load, inspect):
        with pytest.raises(ArtifactError):
            read(place)
    assert not MARKER.exists()


def test_the_full_size_of_a_model_takes_no_memory(tmp_path: Path) -> None:
    place = tmp_path / "small.safetensors"
    full: dict[str, Any] = {"width": 0.1, "num_classes": 10**12}
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in MobileNetV2(**full).state_dict().items()}
    keep: dict[str, dict[Axis, tuple[int, ...]]] = {
        name: {0: (3, 10**9)} for name in ("classifier.weight", "classifier.bias")
    }
    small = MobileNetV2(width=0.1, num_classes=2)
    small.arguments = full
    secateur.save(place, small, secateur.Plan(keep=keep, fingerprint=shapes))
    again = secateur.load(place).get_submodule("classifier")
    assert torch.equal(again.get_parameter("weight"), small.get_parameter("classifier.weight"))
    assert vars(again)["out_features"] == 2
