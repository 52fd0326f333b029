"""A few good files, and files taken apart and put together again, as somebody with bad intentions would."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import secateur
from secateur.models import LeNet

DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool"}
DTYPES |= {"F8_E4M3": "float8_e4m3fn", "U8": "uint8", "U32": "uint32", "I32": "int32", "I64": "int64"}
# What JSON's writer would not write stands in the document under these names, between @ and @.
RAW = {"nan": "NaN", "infinity": "-Infinity", "huge": "1e999", "long": "9" * 4000, "longer": "9" * 5000}


class Splitting(nn.Module):
    """A split by sizes in a tuple, a grouped convolution, running statistics."""

    def __init__(self):
        super().__init__()
        self.sizes, self.width = (8, 8), 16
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.grouped, self.head = nn.Conv2d(16, 16, 3, padding=1, groups=2), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.norm(self.stem(x)).split(self.sizes, dim=1)
        x = self.grouped(torch.cat((left.relu(), right.tanh()), dim=1))
        return self.head(x.flatten(2).mean(2).view(-1, self.width))


class Attending(nn.Module):
    """Heads whose dimensions are cut, so that weights are scaled; two layers share their weight."""

    def __init__(self):
        super().__init__()
        self.heads = 2
        self.embed, self.qkv, self.proj = nn.Linear(12, 16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.first, self.second, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(self.second(self.first(x).relu()).mean(1))


@dataclass(frozen=True)
class Good:
    """A good file, the pruned model in it, and the full-size one where loading needs it."""

    name: str
    data: bytes
    small: nn.Module
    into: nn.Module | None


@cache
def good_files() -> tuple[Good, ...]:
    """Return a model of the zoo, one of somebody's own, and one with tied weights and scales; each was cut twice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (
            _good("lenet", LeNet(), torch.zeros(1, 1, 28, 28)),
            _good("splitting", Splitting(), torch.zeros(2, 3, 8, 8), min_channels=1),
            _good("attending", Attending(), torch.zeros(2, 6, 12), min_channels=1, attention="dims"),
        )


def _good(name: str, full: nn.Module, example: torch.Tensor, **options: Any) -> Good:
    once, first = secateur.prune(full.eval(), example, ratio=0.3, **options)
    small, then = secateur.prune(once, example, ratio=0.3, **options)
    assert small.state_dict().keys() == full.state_dict().keys()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "good.safetensors")
        secateur.save(place, small, then, earlier=[first])
        return Good(name, place.read_bytes(), small, None if name == "lenet" else full)


@dataclass
class Parts:
    """What a file is made of, to be changed at will."""

    header: dict[str, Any]  # tensor -> dtype, shape, data_offsets
    document: Any
    blob: bytes
    first: str = ""  # JSON to be written at the beginning of the document ...
    last: str = ""  # ... and at its end, so that names can stand there twice

    @property
    def plan(self) -> dict[str, Any]:
        """One of the plans."""
        return self.document["plans"][0]


def taken_apart(data: bytes) -> Parts:
    """Take a good file apart."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    return Parts(header, json.loads(header.pop("__metadata__")["secateur"]), data[end:])


def put_together(parts: Parts, signed: bool) -> bytes:
    """Write a file from its parts: with the checksum that they have, or with the one that is right for them."""
    if signed and isinstance(parts.document, dict):
        parts.document.pop("checksum", None)
    text = _text(parts)
    if signed:
        with _deep_stack():
            text = _signed(text, parts)
    header = _raw({"__metadata__": {"secateur": text}, **parts.header}).encode(errors="surrogatepass")
    return len(header).to_bytes(8, "little") + header + parts.blob


def restate(parts: Parts) -> None:
    """Let the document's digest be that of the first plan's fingerprint, as it is now."""
    names = further_names(parts.document["aliases"], parts.header)
    shapes = {name: entry["shape"] for name, entry in parts.header.items()}
    shapes |= {name: shapes[first] for name, first in names.items()}
    for plan in reversed(parts.document["plans"]):
        told = json.loads(_raw(plan["fingerprint"])) | {name: shape for name, (shape, _) in plan["keep"].items()}
        told = {name: told[first] for name, first in names.items() if first in told} | told
        shapes = {name: shape for name, shape in shapes.items() if name not in plan["absent"]} | told
    parts.document["fingerprint"] = _digest(_canonical(shapes))


def further_names(pairs: Any, stored: Iterable[str]) -> dict[str, str]:
    """Return the names that pairs of whole names, or of prefixes with a dot behind them, give to stored tensors."""
    return {
        alias + name[len(first) :]: name
        for alias, first in pairs
        for name in stored
        if name == first or (first.endswith(".") and name.startswith(first))
    }


def _text(parts: Parts) -> str:
    text = _raw(parts.document)
    if not text.startswith("{"):
        return text
    return "{" + ", ".join(filter(None, (parts.first, text[1:-1], parts.last))) + "}"


def _raw(value: Any) -> str:
    def written(found: re.Match[str]) -> str:
        word = found[1]
        return "[" * int(word[4:]) + "]" * int(word[4:]) if word.startswith("deep") else RAW[word]

    return re.sub(r'"@(\w+)@"', written, json.dumps(value))


def _signed(text: str, parts: Parts) -> str:
    """Return the document with the right checksum; as it is where there is none."""
    try:
        document = json.loads(text)
        document.pop("checksum", None)
        total = hashlib.sha256(_canonical(document).encode())
        for name, entry in sorted(parts.header.items()):
            begin, end = entry["data_offsets"]
            total.update(f"{name}torch.{DTYPES[entry['dtype']]}{tuple(entry['shape'])}".encode())
            total.update(parts.blob[begin:end])
        return text[:-1] + (", " if document else "") + f'"checksum": "{total.hexdigest()}"' + "}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _deep_stack() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 3000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
