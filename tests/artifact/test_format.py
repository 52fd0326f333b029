"""The bytes of a file: deterministic, checked, never executed."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from secateur.artifact.format import decode, encode
from secateur.errors import ArtifactError

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4).t(),
    "scalar": torch.tensor(5),
    "empty": torch.zeros(0, 3),
    "half": torch.ones(2, dtype=torch.float16),
    "brain": torch.ones(2, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
}
DOCUMENT = {"plan": {"keep": [1, 2]}, "name": "größer"}


def test_what_goes_in_comes_out() -> None:
    tensors, document = decode(encode(TENSORS, DOCUMENT), "file")
    assert document == {**DOCUMENT, "version": 1}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_same_contents_give_the_same_bytes() -> None:
    shuffled = dict(random.Random(0).sample(list(TENSORS.items()), len(TENSORS)))
    assert encode(TENSORS, DOCUMENT) == encode(shuffled, DOCUMENT)


def test_every_truncation_is_noticed() -> None:
    data = encode(TENSORS, DOCUMENT)
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            decode(data[:length], "file")


def test_every_flipped_bit_is_noticed() -> None:
    data = encode(TENSORS, DOCUMENT)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ArtifactError):
            decode(bytes(damaged), "file")


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (trap,)  # type: ignore[return-value]

    torch.save({"weight": Bomb()}, tmp_path / "bomb.pt")
    for data in ((tmp_path / "bomb.pt").read_bytes(), pickle.dumps(Bomb())):
        with pytest.raises(ArtifactError, match="pickles are never executed"):
            decode(data, "bomb.pt")
    assert not trap.exists()


def test_someone_elses_safetensors_is_told_apart() -> None:
    with pytest.raises(ArtifactError, match="secateur did not write it"):
        decode(safetensors.torch.save({"a": torch.ones(1)}), "file")


def test_a_later_version_is_told_apart() -> None:
    data = encode(TENSORS, DOCUMENT).replace(b'\\"version\\":1', b'\\"version\\":2')
    with pytest.raises(ArtifactError, match="version 2"):
        decode(data, "file")


def test_a_tensor_without_data_cannot_be_saved() -> None:
    with pytest.raises(ArtifactError, match="cannot be saved"):
        encode({"a": torch.ones(2, device="meta")}, {})
