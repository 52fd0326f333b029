"""Small files that ask for much: for models of terabytes, or for work that grows with the square of the file."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from secateur.models.registry import zoo_entry
from tests.artifact.good_files import Parts

Bomb = Callable[[random.Random, Parts], None]

BOMBS: dict[str, Bomb] = {}
OF_THE_ZOO = frozenset({"a giant of the zoo"})  # bombs for files that are loaded without a model
GIANTS: list[tuple[str, dict[str, Any]]] = [
    ("mobilenetv2", {"num_classes": 10**12}),
    ("mobilenetv2", {"num_classes": 10**5}),
    ("mobilenetv2", {"num_classes": 2**62}),
    ("mobilenetv2", {"num_classes": "10"}),
    ("mobilenetv2", {"width": 6.0}),
    ("mobilenetv2", {"width": 1e9}),
    ("mobilenetv2", {"width": 1e300}),
    ("mobilenetv2", {"width": -1.0, "num_classes": 0}),
    ("mobilenetv2", {"in_channels": 10**9, "width": 100}),
    ("mobilenetv2", {"in_channels": 0}),
    ("mobilenetv2", {"in_channels": 3.0}),
    ("modnet", {"hr_channels": 1000}),
    ("modnet", {"hr_channels": 10**9}),
    ("modnet", {"hr_channels": -2}),
    ("modnet", {"in_channels": True}),
]


def bomb(name: str) -> Callable[[Bomb], Bomb]:
    """Register a change that makes a file ask for much."""

    def register(change: Bomb) -> Bomb:
        BOMBS[name] = change
        return change

    return register


@bomb("a giant of the zoo")
def _giant(draw: random.Random, parts: Parts) -> None:
    name, arguments = draw.choice(GIANTS)
    parts.document["identity"] = {"kind": "zoo", "name": name, "arguments": arguments}
    shapes = draw.choice([fingerprint_of(name, arguments), fingerprint_of(name, arguments), {}])
    absent = [name for name in parts.header if name not in shapes]
    told = {"fingerprint": shapes, "absent": absent, "attributes": {}, "scales": {}, **_cut(shapes)}
    parts.document["plans"] = [{**parts.plan, **told}]


@bomb("one list for many tensors")
def _shared(draw: random.Random, parts: Parts) -> None:
    tensors, rows = draw.choice([(20, 200), (4000, 4000)])
    keep = {f"t{number}": [[rows], {"0": 0}] for number in range(tensors)}
    parts.plan.update(scales={}, lists=[list(range(rows))], keep=keep)


@bomb("one list for many groups")
def _grouped(draw: random.Random, parts: Parts) -> None:
    groups, rows = draw.choice([(20, 200), (4000, 4000), (40_000, 4000)])
    keep = {"t": [[groups, rows, 1, 1], {"grouped": [0] * groups}]}
    parts.plan.update(scales={}, lists=[list(range(rows))], keep=keep)


@bomb("names that are nearly right")
def _near(draw: random.Random, parts: Parts) -> None:
    length, count = draw.choice([(50, 3), (60, 3000), (20_000, 3)])
    letters = [chr(200 + number) for number in range(300)]
    names = ["".join(draw.choices(letters, k=length)) for _ in range(count)]
    wrong = "".join(sorted(names[0])) if draw.random() < 0.5 else names[0][::-1]
    parts.plan.update(fingerprint={name: [4] for name in names}, scales={wrong: []})


@bomb("many scales")
def _scales(draw: random.Random, parts: Parts) -> None:
    name = draw.choice(list(parts.plan["keep"]))
    parts.plan["scales"][name] = [[draw.choice([1.0, 1.1]), draw.choice([None, 0])]] * draw.choice([10, 3000])


@bomb("many plans")
def _plans(draw: random.Random, parts: Parts) -> None:
    plan = draw.choice([_cut_nothing(parts), _cut_nothing(parts), parts.plan])
    parts.document["plans"] += [plan] * draw.choice([3, 200])


@bomb("many plans of many tensors")
def _plans_and_tensors(draw: random.Random, parts: Parts) -> None:
    _add_tensors(parts, draw.choice([30, 1000]))
    parts.document["plans"] += [_cut_nothing(parts)] * draw.choice([3, 1000])


@bomb("many names of many tensors")
def _names(draw: random.Random, parts: Parts) -> None:
    _add_tensors(parts, draw.choice([30, 1000]))
    length, count = draw.choice([(1, 60), (10_000, 60), (1, 600)])
    pairs = [["n" * length + f"{number}.", "more."] for number in range(count)]
    parts.document["aliases"] += draw.choice([pairs, pairs[:1] * count, [*pairs, *pairs]])


@bomb("much JSON")
def _json(draw: random.Random, parts: Parts) -> None:
    much: Any = draw.choice([[[]] * 50_000, [{}] * 50_000, [0] * 100_000, {f"{n}": n for n in range(30_000)}])
    where = draw.choice([parts.document, parts.document["identity"], parts.plan, parts.plan["recipe"], parts.header])
    where[draw.choice(list(where))] = much


@bomb("long names")
def _long(draw: random.Random, parts: Parts) -> None:
    name = draw.choice(["a.", "a[0]", "a", "__", "."]) * draw.choice([100, 50_000]) + draw.choice(["", "!", "0"])
    table = draw.choice([parts.plan["attributes"], parts.plan["keep"], parts.plan["fingerprint"], parts.plan["scales"]])
    table[name] = draw.choice([1, {}, [1], "x", [[1], {}]])


@bomb("long ways into the recipe")
def _recipe(draw: random.Random, parts: Parts) -> None:
    parts.plan["recipe"] = {"k" * draw.choice([10, 200_000]): {f"{number}": number for number in range(3000)}}


def fingerprint_of(name: str, arguments: dict[str, Any]) -> dict[str, list[int]]:
    """Return the shapes of a model of the zoo, nothing where there is none with these arguments."""
    try:
        with torch.device("meta"):
            model = zoo_entry(name).build(**arguments)
    except Exception:  # noqa: BLE001 - arguments that make no sense fail in any way
        return {}
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def _cut(shapes: dict[str, list[int]]) -> dict[str, Any]:
    """Return what keeps three rows of the classifier, if there is one."""
    names = [name for name in ("classifier.weight", "classifier.bias") if shapes.get(name, [0])[0] > 2]
    return {"keep": {name: [shapes[name], {"0": 0}] for name in names}, "lists": [[0, 1, 2]] if names else []}


def _cut_nothing(parts: Parts) -> dict[str, Any]:
    return {**parts.plan, "fingerprint": {}, "absent": [], "keep": {}, "scales": {}, "attributes": {}}


def _add_tensors(parts: Parts, count: int) -> None:
    nowhere = [len(parts.blob)] * 2
    parts.header |= {f"more.{n}": {"dtype": "F32", "shape": [0], "data_offsets": nowhere} for n in range(count)}
