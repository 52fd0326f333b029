"""The file's bytes: safetensors, with one JSON document and its checksum as metadata (docs/design.md, section 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from secateur.errors import ArtifactError

VERSION = 1
# One key only: safetensors writes several in an order that changes from run to run.
_KEY = "secateur"
# torch.save's zip, and a bare pickle; a safetensors file may begin so, too (with the length of its header), but then
# the header follows in the ninth byte.
PICKLES = (b"PK\x03\x04", b"\x80")
_DEEPEST = 100  # levels of the document, far fewer than would fill the stack of what walks it
# What parsers and tensors raise at bytes that somebody made up; running out of stack is a RuntimeError.
_SENSELESS = (
    safetensors.SafetensorError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)


def encode(tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file; the same tensors and document always give the same bytes.

    Raises:
        ArtifactError: a tensor has no data, or a type that the format does not know.
    """
    versioned = {**document, "version": VERSION}
    try:
        _check_depth(versioned)
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
        signed = {**versioned, "checksum": _checksum(whole, versioned)}
        return safetensors.torch.save(whole, metadata={_KEY: _canonical(signed)})
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"The model cannot be saved: {error}. Give its tensors data of an ordinary dtype."
        ) from error


def decode(data: bytes, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the bytes of a file back into tensors and document; nothing in them is ever executed.

    Raises:
        ArtifactError: the bytes are no file of ours, or are not whole; names the remedy.
    """
    _refuse_pickle(data, name)
    metadata = _metadata(data, name)
    try:
        document = _document(metadata, name)
        tensors = safetensors.torch.load(data)
        whole = document.pop("checksum") == _checksum(tensors, document)
    except _SENSELESS:
        raise _damaged(name) from None
    if not whole:
        raise _damaged(name)
    return tensors, document


def read_header(path: str | Path) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]], int]:
    """Return a file's document, the dtype and shape of each of its tensors, and its size in bytes.

    Nothing is computed from the tensors: the checksum is not checked.

    Raises:
        ArtifactError: the file cannot be read, is no file of ours, or its header is damaged.
    """
    start, size = opened(path, 9)
    length = int.from_bytes(start[:8], "little")
    data, _ = opened(path, 8 + min(length, size))
    _refuse_pickle(data, str(path))
    try:
        document = _document(_metadata(data, str(path)), str(path))
        header = json.loads(data[8 : 8 + length])
        del header["__metadata__"]
        tensors = {name: (str(one["dtype"]), tuple(map(int, one["shape"]))) for name, one in header.items()}
    except _SENSELESS:
        raise _damaged(str(path)) from None
    return document, tensors, size


def opened(path: str | Path, most: int = -1) -> tuple[bytes, int]:
    """Return the first bytes of a file, all if `most` is left out, and the file's size.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(most), Path(path).stat().st_size
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArtifactError(f"{path} cannot be read: {why}. Check the path.") from None


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, written canonically."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _refuse_pickle(data: bytes, name: str) -> None:
    if data.startswith(PICKLES) and data[8:9] != b"{":
        raise ArtifactError(
            f"{name} is a pickle (a checkpoint of torch.save), not a file of secateur, and pickles are never executed. "
            "Name the model, and pass the checkpoint with --weights; a whole model that you wrote yourself can be read "
            "with trust=True."
        )


def _document(text: str, name: str) -> dict[str, Any]:
    document = json.loads(text)
    version = document["version"]
    if type(version) is not int:
        raise TypeError("a version is a whole number")
    if version != VERSION:
        raise ArtifactError(
            f"{name} has format version {version}, and this secateur reads version {VERSION}. "
            "Install the secateur that wrote it."
        )
    _check_depth(document)
    return document


def _check_depth(value: Any, levels: int = _DEEPEST) -> None:
    if levels == 0:
        raise ValueError(f"what is told about it is nested deeper than {_DEEPEST} levels")
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list | tuple):
            _check_depth(one, levels - 1)


def _metadata(data: bytes, name: str) -> str:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or data[8:9] != b"{" or size > len(data) - 8:
        raise ArtifactError(
            f"{name} is no file of secateur, or only the beginning of one. Copy it again, or prune the model again."
        )
    try:
        found = json.loads(data[8 : 8 + size]).get("__metadata__", {}).get(_KEY)
    except (ValueError, AttributeError, RecursionError):
        raise _damaged(name) from None
    if not isinstance(found, str):
        raise ArtifactError(
            f"{name} is a safetensors file, but secateur did not write it: there is no plan in it. "
            "Name the model, and pass the file with --weights."
        )
    return found


def _checksum(tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> str:
    total = hashlib.sha256(_canonical(document).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _damaged(name: str) -> ArtifactError:
    return ArtifactError(f"{name} is damaged: its contents do not match its checksum. Copy it again, or prune again.")
