"""Files that are almost good: every seed is a good file that one of many mutations went over."""

from __future__ import annotations

import io
import os
import pickle
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.artifact.bombs import BOMBS, OF_THE_ZOO
from tests.artifact.good_files import Good, Parts, good_files, put_together, restate, taken_apart
from tests.artifact.lies import LIES

# What a pickle among the files would create, were it ever opened as one.
MARKER = Path(tempfile.gettempdir(), f"secateur-opened-a-pickle-{os.getpid()}")


@dataclass(frozen=True)
class Mutated:
    """A mutated file; where somebody signed it anew, another model may come out of it."""

    seed: int
    good: Good
    how: str
    data: bytes | None  # None: a folder lies there
    signed: bool = False


class Payload:
    """Creates the marker when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (MARKER,)


def mutated(seed: int) -> Mutated:
    """Return the file of a seed; seeds in a row go through all mutations."""
    draw, how = random.Random(seed), ORDER[seed % len(ORDER)]
    good = good_files()[0] if how in OF_THE_ZOO else draw.choice(good_files())
    if how in DAMAGES:
        return Mutated(seed, good, how, DAMAGES[how](draw, good.data))
    parts = taken_apart(good.data)
    (LIES if how in LIES else BOMBS)[how](draw, parts)
    return _written(draw, Mutated(seed, good, how, None), parts)


def _written(draw: random.Random, one: Mutated, parts: Parts) -> Mutated:
    """Write the parts of a lie, mostly so that nothing but their sense tells that they were changed."""
    signed = draw.random() < 0.7
    if draw.random() < 0.8:
        with suppress(LookupError, TypeError, ValueError, AttributeError, RecursionError):
            restate(parts)
    return replace(one, data=put_together(parts, signed), signed=signed)


def _truncated(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.choice([draw.randrange(len(data)), draw.randrange(16), _header_end(data), len(data) - 1])]


def _flipped(draw: random.Random, data: bytes, start: int, end: int) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 20])):
        changed[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _flipped_header(draw: random.Random, data: bytes) -> bytes:
    return _flipped(draw, data, 0, _header_end(data))


def _flipped_length(draw: random.Random, data: bytes) -> bytes:
    return _flipped(draw, data, 0, 8)


def _flipped_weights(draw: random.Random, data: bytes) -> bytes:
    return _flipped(draw, data, _header_end(data), len(data))


def _removed(draw: random.Random, data: bytes) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + data[place + draw.choice([1, 4, 8, 100]) :]


def _inserted(draw: random.Random, data: bytes) -> bytes:
    place = draw.choice([0, 8, _header_end(data), draw.randrange(len(data)), len(data)])
    return data[:place] + draw.randbytes(draw.choice([1, 4, 8, 100])) + data[place:]


def _moved(draw: random.Random, data: bytes) -> bytes:
    a, b, c = sorted(draw.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _blanked(draw: random.Random, data: bytes) -> bytes:
    place, length = draw.randrange(len(data)), draw.choice([1, 8, 500])
    return (data[:place] + draw.choice([b"\0", b"\xff", b" ", b"["]) * length + data[place + length :])[: len(data)]


def _length(draw: random.Random, data: bytes) -> bytes:
    lengths = [0, 1, 2, len(data), len(data) - 8, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
    end = _header_end(data) - 8
    return draw.choice([*lengths, end - 1, end + 1, end + 8]).to_bytes(8, "little") + data[8:]


def _other_header(draw: random.Random, data: bytes) -> bytes:
    texts = ["{}", "[]", "{", "null", '{"__metadata__": {}}', '{"__metadata__": null}', '{"__metadata__": []}']
    texts += ['{"__metadata__": {"secateur": 3}}', '{"__metadata__": {"secateur": "{}"}}', '{"a": ' + "[" * 10_000]
    texts += ['{"__metadata__": {"secateur": "' + "[" * 10_000 + '"}}', '{"a": ' * 10_000, "{" + " " * 100_000]
    texts += ['{"a": ' + "[" * 10_000 + "]" * 10_000 + "}", '{"a": ' + "9" * 5000 + "}", "{\ud800}", '{"a": NaN}']
    header = draw.choice(texts).encode(draw.choice(["utf-8", "utf-8", "utf-16-le"]), errors="surrogatepass")
    return len(header).to_bytes(8, "little") + header + draw.choice([b"", data[_header_end(data) :]])


def _emptied(draw: random.Random, data: bytes) -> bytes:
    return draw.choice([b"", b"\0", b"{}", b"\0" * 8, b"\0" * len(data), draw.randbytes(200)])


def _folder(draw: random.Random, data: bytes) -> None:
    return None


def _pickle(draw: random.Random, data: bytes) -> bytes:
    target = io.BytesIO()
    torch.save({"weight": Payload()}, target, _use_new_zipfile_serialization=draw.random() < 0.5)
    bare = pickle.dumps(Payload(), protocol=draw.randrange(6))
    return draw.choice([target.getvalue(), bare, bare[:8].ljust(8) + b"{" + bare, bare + data, data + bare])


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


DAMAGES: dict[str, Callable[[random.Random, bytes], bytes | None]] = {
    "truncated": _truncated,
    "bits of the header flipped": _flipped_header,
    "bits of the header's length flipped": _flipped_length,
    "bits of the weights flipped": _flipped_weights,
    "bytes removed": _removed,
    "bytes inserted": _inserted,
    "bytes moved": _moved,
    "bytes blanked": _blanked,
    "another length of the header": _length,
    "another header": _other_header,
    "nothing in it": _emptied,
    "a folder": _folder,
    "a pickle": _pickle,
}
ORDER = (*DAMAGES, *LIES, *DAMAGES, *LIES, *LIES, *BOMBS)
