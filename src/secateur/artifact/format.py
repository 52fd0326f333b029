"""The file's bytes: safetensors, with one JSON document and its checksum as metadata (docs/design.md, section 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
_PICKLES = (b"PK\x03\x04", b"\x80")


def encode(tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file; the same tensors and document always give the same bytes.

    Raises:
        ArtifactError: a tensor has no data, or a type that the format does not know.
    """
    versioned = {**document, "version": VERSION}
    try:
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
        document = json.loads(metadata)
        tensors = safetensors.torch.load(data)
        checksum = document.pop("checksum")
        version = document["version"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(name) from None
    if version != VERSION:
        raise ArtifactError(
            f"{name} has format version {version}, and this secateur reads version {VERSION}. "
            "Install the secateur that wrote it."
        )
    if checksum != _checksum(tensors, document):
        raise _damaged(name)
    return tensors, document


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, written canonically."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _refuse_pickle(data: bytes, name: str) -> None:
    if data.startswith(_PICKLES) and data[8:9] != b"{":
        raise ArtifactError(
            f"{name} is a pickle (a checkpoint of torch.save), not a file of secateur, and pickles are never executed. "
            "Name the model, and pass the checkpoint with --weights."
        )


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
