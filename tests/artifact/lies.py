"""Changes to what a file says: well-formed JSON, as somebody writes it who knows the format and means harm."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.artifact.good_files import DTYPES, Parts

Lie = Callable[[random.Random, Parts], None]

LIES: dict[str, Lie] = {}
NAMES = ["", ".", "..", "a.b", "../../etc/passwd", "/etc/passwd", "__class__", "conv1.__dict__", "a" * 3000, "\ud800"]
NAMES += ["__init__.__globals__", "weight", "conv1", "conv1.", ".conv1", "forward", "\x00", "é.ü", "__metadata__", "0"]
DEPTHS = ["@deep50@", "@deep300@", "@deep900@", "@deep960@", "@deep970@", "@deep980@", "@deep985@", "@deep990@"]
DEPTHS += ["@deep10000@", "@deep2000@"]
NUMBERS = [0, 1, -1, 7, 2**31, 2**40, 2**63, 2**64, -(2**63), 0.0, -0.0, 1.0, 0.5, 1e308, 5e-324, True, 10**400]
NUMBERS += ["@nan@", "@infinity@", "@huge@", "@long@", "@longer@"]
OTHERS = [None, False, "", "x", "auto", [], {}, [[]], [None], {"a": 1}, [["a", 1]], [[1]], {"": {}}, ["kind", "zoo"]]
WILD: list[Any] = [*NUMBERS, *OTHERS, *DEPTHS[:3], "@deep10000@", *NAMES[:7]]
ATTRIBUTES = ["sizes[0]", "sizes[7]", "sizes[-1]", "sizes[1][1]", "sizes", "width", "heads", "training", "_modules"]
ATTRIBUTES += ["_parameters", "arguments", "dump_patches", "forward", "sizes[" + "9" * 5000 + "]", "nothing.width"]
ATTRIBUTES += ["first.in_features", "conv1.kernel_size[0]", "conv1.kernel_size[9]", "conv1.groups", "conv1.weight"]
ATTRIBUTES += ["conv1._parameters", "conv1._backward_hooks", "norm.eps", "norm.affine", "grouped.groups", "width[0]"]
ATTRIBUTES += ["grouped.padding_mode", "grouped.padding_mode[0]", "conv1.nothing", "stem.padding[1]", "sizes[\u0663]"]


def lie(name: str) -> Callable[[Lie], Lie]:
    """Register a change to the parts of a file."""

    def register(change: Lie) -> Lie:
        LIES[name] = change
        return change

    return register


@lie("another value somewhere")
def _value(draw: random.Random, parts: Parts) -> None:
    place, key = _somewhere(draw, parts.document)
    place[key] = draw.choice(WILD)


@lie("another value on top")
def _top(draw: random.Random, parts: Parts) -> None:
    where = draw.choice([parts.document, parts.document, parts.plan, parts.document["identity"]])
    where[draw.choice(list(where))] = draw.choice(WILD)


@lie("something lacking")
def _lacking(draw: random.Random, parts: Parts) -> None:
    place, key = _somewhere(draw, parts.document)
    del place[key]


@lie("another name")
def _renamed(draw: random.Random, parts: Parts) -> None:
    place, key = _somewhere(draw, parts.document)
    if isinstance(place, dict):
        place[draw.choice([*NAMES, *ATTRIBUTES, str(key) + " "])] = place.pop(key)
    else:
        place.append(place[key])


@lie("a name twice")
def _twice(draw: random.Random, parts: Parts) -> None:
    again = f"{json.dumps(draw.choice(list(parts.document)))}: {json.dumps(draw.choice(OTHERS))}"
    if draw.random() < 0.5:
        parts.first = again
    else:
        parts.last = again


@lie("no object at all")
def _no_object(draw: random.Random, parts: Parts) -> None:
    parts.document = draw.choice(WILD)


@lie("depth")
def _deep(draw: random.Random, parts: Parts) -> None:
    depth = draw.choice(DEPTHS)
    where = draw.choice([parts.document, parts.plan, parts.document["identity"], parts.plan["recipe"]])
    where[draw.choice([*where, "more"])] = draw.choice([depth, {"a": depth}, [depth]])


@lie("versions")
def _version(draw: random.Random, parts: Parts) -> None:
    draw.choice([parts.document, parts.plan])["version"] = draw.choice([0, 2, -1, 1.0, True, "1", None, *NUMBERS, [1]])


@lie("indices of the plan")
def _indices(draw: random.Random, parts: Parts) -> None:
    indices = draw.choice(parts.plan["lists"])
    place = draw.randrange(len(indices))
    change = draw.choice([*NUMBERS, indices[place - 1], len(indices) * 3, "0", [0], None])
    draw.choice([indices.append, lambda value: indices.__setitem__(place, value)])(change)
    if draw.random() < 0.2:
        indices.clear()


@lie("what is kept")
def _kept(draw: random.Random, parts: Parts) -> None:
    keep = parts.plan["keep"]
    _, axes = keep.setdefault(draw.choice([*keep, *keep, *parts.header, *NAMES]), [[8, 8], {}])
    axis = draw.choice([*axes, "0", "1", "2", "3", "9", "-1", "00", "1.0", "grouped", "", "\u0661"])
    numbers = [0, 1, 2, len(parts.plan["lists"]), -1, 1.0, None, [0], [0, 0], [0] * 200, [], [1, 0], [-1]]
    axes[axis] = draw.choice([*numbers, draw.choice(WILD)])


@lie("attributes")
def _attributes(draw: random.Random, parts: Parts) -> None:
    values = [0, 1, 5, -1, 2**39, -(2**39), *NUMBERS]
    parts.plan["attributes"][draw.choice([*ATTRIBUTES, *ATTRIBUTES, *NAMES])] = draw.choice(values)


@lie("scales")
def _scales(draw: random.Random, parts: Parts) -> None:
    tensors = [*parts.header, "norm.num_batches_tracked", *NAMES]
    factor, rows = draw.choice([2.0, 1e300, -1, *NUMBERS]), draw.choice([None, 0, 1, 2, 99, -1, "0", [0]])
    entries = [[[factor, rows]], [[factor, rows]] * 3, [factor, rows], [[factor]], [[factor, rows, 1]], factor]
    parts.plan["scales"][draw.choice(tensors)] = draw.choice(entries)


@lie("words of the plan")
def _words(draw: random.Random, parts: Parts) -> None:
    word = draw.choice(["attention", "free_outputs", "statistics", "calls", "recipe", "absent"])
    calls = [[{"shapes": [[1]], "dtypes": []}], [{"shapes": [[2**41]], "dtypes": ["float32"]}], [{}], [[]], [3]]
    calls += [[{"shapes": [[1]], "dtypes": [draw.choice(WILD)]}]]
    names = [
        [draw.choice(list(parts.header))],
        [draw.choice(NAMES)],
        draw.choice(list(parts.header)),
        list(parts.header),
    ]
    parts.plan[word] = draw.choice([*WILD, "dims", "Heads", 1, 0, *calls, *names])


@lie("the fingerprint")
def _fingerprint(draw: random.Random, parts: Parts) -> None:
    plan = draw.choice(parts.document["plans"])
    shape = draw.choice([[], [0], [2**39, 2**39], [2**63], [-1], [1.0], [6, 1, 3, 3], *WILD])
    if draw.random() < 0.5:
        draw.choice(list(plan["keep"].values()))[0] = shape
    else:
        plan["fingerprint"][draw.choice([*parts.header, *plan["keep"], *NAMES])] = shape


@lie("the order of the plans")
def _plans(draw: random.Random, parts: Parts) -> None:
    plans = parts.document["plans"]
    parts.document["plans"] = draw.choice([plans[::-1], plans[:1], plans[1:], [], plans * 2, plans * 30, {"0": plans}])


@lie("aliases")
def _aliases(draw: random.Random, parts: Parts) -> None:
    stored = draw.choice(list(parts.header))
    other = draw.choice(list(parts.header))
    circles = [
        [["a", "b"], ["b", "a"]],
        [["a", "a"]],
        [[stored, stored]],
        [["a", stored], ["b", "a"]],
        [[stored, other]],
    ]
    missing = [[["a", "missing"]], [["a", None]], [["a", [stored]]], [[None, stored]], [["a."]], [["a", stored, "c"]]]
    prefixes = [[["a.", "conv1."]], [["", "head."]], [["", ""]], [["head.", "head."]], [["a.", "."]], [["a", "head."]]]
    twice, many = [["a", stored], ["a", other]], [[f"{number}", stored] for number in range(500)]
    found = draw.choice([*circles, *missing, *prefixes, twice, many, {"a": stored}, [stored], draw.choice(WILD)])
    if isinstance(found, list) and draw.random() < 0.5:
        found = parts.document["aliases"] + found
    parts.document["aliases"] = found


@lie("what kind of model")
def _identity(draw: random.Random, parts: Parts) -> None:
    kinds = ["zoo", "zoo", "class", "Zoo", *WILD]
    names = ["lenet", "modnet", "LeNet", "secateur.models.LeNet", "os.system", "lenet\x00", "le" * 5000, *WILD]
    arguments = [{}, None, [], [1], "x", {"self": 1}, {"cls": ["x"]}, {"builder": "os.system"}, {"__class__": 1}]
    arguments += [{draw.choice(NAMES): draw.choice(WILD)}, {"a": "@deep900@"}, {"a": draw.choice(DEPTHS)}]
    found = {"kind": draw.choice(kinds), "name": draw.choice(names), "arguments": draw.choice(arguments)}
    parts.document["identity"] = draw.choice([found, found, found, list(found.items()), draw.choice(WILD)])


@lie("what belongs to the run")
def _run(draw: random.Random, parts: Parts) -> None:
    parts.document[draw.choice(["provenance", "preprocessing", "checksum"])] = draw.choice(WILD)


@lie("other weights")
def _weights(draw: random.Random, parts: Parts) -> None:
    begin, end = draw.choice(list(parts.header.values()))["data_offsets"]
    values = draw.choice([b"\xff" * (end - begin), b"\0" * (end - begin), draw.randbytes(end - begin)])
    parts.blob = parts.blob[:begin] + values + parts.blob[end:]


@lie("the dtype of a tensor")
def _dtype(draw: random.Random, parts: Parts) -> None:
    entry = draw.choice(list(parts.header.values()))
    entry["dtype"] = draw.choice([*DTYPES, "I32", "U32", "F64", "F4", "F8_E8M0", "", "torch.float32", None, 3, []])
    if draw.random() < 0.5:
        bits = {"C64": 64, "F64": 64, "I64": 64, "F16": 16, "BF16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F4": 4}
        size = bits.get(entry["dtype"], 32) if isinstance(entry["dtype"], str) else 32
        begin, end = entry["data_offsets"]
        entry["shape"] = [(end - begin) * 8 // size]


@lie("the shape of a tensor")
def _shape(draw: random.Random, parts: Parts) -> None:
    entry = draw.choice(list(parts.header.values()))
    shape = entry["shape"]
    shapes = [shape[::-1], [1, *shape], [*shape, 1], [-1, *shape], [float(n) for n in shape], [0, *shape], [0, 2**63]]
    shapes += [[2**32, 2**32], [2**63, 2], [2**64], [2**64 - 1, 0], [0, 2**62, 2**62], [1] * 1000, [[1]], None, "1", 3]
    entry["shape"] = draw.choice(shapes)


@lie("where a tensor lies")
def _offsets(draw: random.Random, parts: Parts) -> None:
    entry, other = (draw.choice(list(parts.header.values())) for _ in range(2))
    begin, end = entry["data_offsets"]
    offsets = [other["data_offsets"], [end, begin], [begin, end + 4], [begin + 4, end], [-begin, end], [0, 2**63]]
    entry["data_offsets"] = draw.choice([*offsets, [2**64, 2**64 + 1], [begin], [], None, [float(begin), end], "0"])


@lie("which tensors there are")
def _tensors(draw: random.Random, parts: Parts) -> None:
    name, end = draw.choice(list(parts.header)), len(parts.blob)
    entry = parts.header.pop(name)
    empty = {
        "dtype": "F32",
        "shape": draw.choice([[0], [0, 2**40], [0, 2**63], [3, 0, 2**62]]),
        "data_offsets": [end] * 2,
    }
    change: Any = draw.choice([{draw.choice(NAMES): entry}, {name: entry, draw.choice(NAMES): empty}, {name: empty}])
    parts.header |= draw.choice([change, change, {}, {name: draw.choice(WILD)}, {name: {**entry, "more": 1}}])


def _somewhere(draw: random.Random, document: Any) -> tuple[Any, Any]:
    """Choose a place anywhere in a document: a container, and the key or index in it."""
    place, key = document, draw.choice(list(document))
    while isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
        place = place[key]
        key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
    return place, key
