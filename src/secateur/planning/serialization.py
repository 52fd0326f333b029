"""Plans as JSON: written small and readable, read with every value checked (docs/design.md, section 5)."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Attention, Axis, CallShape, Scale
from secateur.planning.plans import Kept, Plan

Indices = tuple[int, ...]
_Listed = tuple[Indices, int]  # with the largest: many tensors share a list, and it is looked for once

VERSION = 1
_FIELDS = (
    "version",
    "fingerprint",
    "lists",
    "keep",
    "attributes",
    "scales",
    "attention",
    "free_outputs",
    "calls",
    "statistics",
    "recipe",
)
# A dotted path of ordinary attribute names: nothing with two leading underscores, which Python keeps for itself.
_PATH = re.compile(r"(?!__)\w+(\.(?!__)\w+)*(\[\d{1,9}\])*")
_DEEPEST = 8  # levels of a recipe
_LARGEST = 1 << 40
_MOST_ROWS = 1 << 18  # inputs of a grouped convolution that stay: shared lists are short, what they stand for is not


def plan_to_json(plan: Plan) -> str:
    """Return a plan as JSON, one line for each list, tensor and attribute."""
    document = plan_to_document(plan)
    return "{\n" + ",\n".join(f'"{field}": {_lines(value)}' for field, value in document.items()) + "\n}\n"


def plan_to_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as what JSON can hold: every distinct list of indices once, and its number where it is used."""
    numbers: dict[Indices, int] = {}

    def number_of(indices: Any) -> int:
        return numbers.setdefault(indices, len(numbers))

    keep = {
        name: {
            str(axis): [number_of(rows) for rows in kept] if axis == "grouped" else number_of(kept)
            for axis, kept in axes.items()
        }
        for name, axes in plan.keep.items()
    }
    return {
        "version": VERSION,
        "recipe": plan.recipe,
        "attention": plan.attention,
        "free_outputs": plan.free_outputs,
        "calls": [
            {"shapes": call.shapes, "dtypes": call.dtypes, **({"arguments": call.arguments} if call.arguments else {})}
            for call in plan.calls
        ],
        "statistics": plan.statistics,
        "attributes": plan.attributes,
        "scales": {
            name: [(one.factor, None if one.rows is None else number_of(one.rows)) for one in scales]
            for name, scales in plan.scales.items()
        },
        "lists": list(numbers),
        "keep": keep,
        "fingerprint": plan.fingerprint,
    }


def plan_from_json(text: str) -> Plan:
    """Read a plan and check every value of it.

    Raises:
        PlanError: the text is no plan, or contradicts itself; says where.
    """
    return plan_from_document(_parsed(text))


def plan_from_document(parsed: Any) -> Plan:
    """Read a plan from a value that JSON held, and check all of it.

    Raises:
        PlanError: it is no plan, or contradicts itself; says where.
    """
    document = _mapping(parsed, "the plan")
    for field in document:
        if field not in _FIELDS:
            raise _wrong(f"the field {field!r}", f"is not known.{nearest(field, _FIELDS)}")
    for field in _FIELDS:
        if field not in document:
            raise _wrong(f"the field {field!r}", "is missing")
    if document["version"] != VERSION or isinstance(document["version"], bool):
        raise _wrong("version", f"is {_shown(document['version'])}, and this secateur reads {VERSION}")
    fingerprint = {
        name: _integers(shape, f"fingerprint[{name!r}]")
        for name, shape in _mapping(document["fingerprint"], "fingerprint").items()
    }
    lists = [_list(one, f"lists[{number}]") for number, one in enumerate(_sequence(document["lists"], "lists"))]
    return Plan(
        keep=_keep(document["keep"], lists, fingerprint),
        fingerprint=fingerprint,
        attributes=_attributes(document["attributes"]),
        scales=_scales(document["scales"], lists, fingerprint),
        attention=_attention(document["attention"]),
        free_outputs=_flag(document["free_outputs"], "free_outputs"),
        calls=tuple(_call(one, f"calls[{n}]") for n, one in enumerate(_sequence(document["calls"], "calls"))),
        statistics=_texts(document["statistics"], "statistics"),
        recipe=_json(_mapping(document["recipe"], "recipe"), "recipe", _DEEPEST),
    )


def _lines(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return "{\n" + ",\n".join(f"  {_dump(str(key))}: {_dump(one)}" for key, one in value.items()) + "\n}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {_dump(one)}" for one in value) + "\n]"
    return _dump(value)


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _parsed(text: str) -> Any:
    def no_constants(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    try:
        return json.loads(text, object_pairs_hook=_without_repetition, parse_constant=no_constants)
    except (ValueError, TypeError, RecursionError) as error:
        raise PlanError(f"This is no plan: it is not JSON ({error}). Pass what Plan.to_json() wrote.") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name appears twice in one object")
    return found


def _keep(value: Any, lists: Sequence[_Listed], fingerprint: Mapping[str, Indices]) -> dict[str, dict[Axis, Kept]]:
    keep: dict[str, dict[Axis, Kept]] = {}
    for name, axes in _mapping(value, "keep").items():
        if name not in fingerprint:
            raise _wrong(f"keep[{name!r}]", f"is a tensor that the fingerprint lacks.{nearest(name, fingerprint)}")
        keep[name] = {}
        for word, numbers in _mapping(axes, f"keep[{name!r}]").items():
            place, shape = f"keep[{name!r}][{word!r}]", fingerprint[name]
            if word == "grouped":
                keep[name]["grouped"] = _grouped(numbers, lists, shape, place)
            else:
                axis = _axis(word, shape, place)
                keep[name][axis] = _inside(_listed(numbers, lists, place), shape[axis], place)
        if "grouped" in keep[name] and 1 in keep[name]:
            raise _wrong(f"keep[{name!r}]", "has both axis 1 and its grouped form")
    return keep


def _axis(word: str, shape: Indices, place: str) -> int:
    axis = int(word) if re.fullmatch(r"0|[1-9]\d?", word, re.ASCII) else -1
    if not 0 <= axis < len(shape):
        raise _wrong(place, f"is no axis of a tensor of shape {tuple(shape)}")
    return axis


def _grouped(value: Any, lists: Sequence[_Listed], shape: Indices, place: str) -> tuple[Indices, ...]:
    if len(shape) < 2:
        raise _wrong(place, f"is no axis of a tensor of shape {tuple(shape)}")
    rows = tuple(_inside(_listed(number, lists, place), shape[1], place) for number in _sequence(value, place))
    if not 0 < len(rows) <= shape[0] or len({len(row) for row in rows}) > 1 or len(rows) * len(rows[0]) > _MOST_ROWS:
        raise _wrong(place, "must have rows for each group that stays, the same number for each")
    return rows


def _listed(number: Any, lists: Sequence[_Listed], place: str) -> _Listed:
    if not _is_int(number) or not 0 <= number < len(lists):
        raise _wrong(place, f"refers to list {_shown(number)}, and there are {len(lists)}")
    return lists[number]


def _inside(listed: _Listed, size: int, place: str) -> Indices:
    indices, largest = listed
    if largest >= size:
        raise _wrong(place, f"keeps index {largest} of an axis of {size}")
    return indices


def _list(value: Any, place: str) -> _Listed:
    indices = _integers(value, place)
    if not indices:
        raise _wrong(place, "keeps nothing, and no layer may be emptied")
    if len(set(indices)) < len(indices):
        raise _wrong(place, "names an index twice")
    return indices, max(indices)


def _integers(value: Any, place: str) -> Indices:
    found = _sequence(value, place)
    for one in found:
        if not _is_int(one) or not 0 <= one < _LARGEST:
            raise _wrong(place, f"holds {_shown(one)}, and whole numbers from 0 are wanted")
    return tuple(found)


def _attributes(value: Any) -> dict[str, int]:
    found = _mapping(value, "attributes")
    for path, number in found.items():
        if not _PATH.fullmatch(path):
            raise _wrong(f"attributes[{path!r}]", "is no path of attributes, such as branch.layer.channels or sizes[1]")
        if not _is_int(number) or abs(number) >= _LARGEST:
            raise _wrong(f"attributes[{path!r}]", f"is {_shown(number)}, and a whole number is wanted")
    return found


def _scales(value: Any, lists: Sequence[_Listed], fingerprint: Mapping[str, Indices]) -> dict[str, tuple[Scale, ...]]:
    scales = {}
    for name, entries in _mapping(value, "scales").items():
        place = f"scales[{name!r}]"
        if name not in fingerprint:
            raise _wrong(place, f"is a tensor that the fingerprint lacks.{nearest(name, fingerprint)}")
        scales[name] = tuple(_scale(entry, lists, fingerprint[name], place) for entry in _sequence(entries, place))
    return scales


def _scale(value: Any, lists: Sequence[_Listed], shape: Indices, place: str) -> Scale:
    entry = _sequence(value, place)
    if len(entry) != 2:
        raise _wrong(place, f"holds {_shown(entry)}, and a factor with a list of rows (or null) is wanted")
    factor, number = entry
    if not _is_number(factor) or not 0 < factor <= sys.float_info.max:
        raise _wrong(place, f"is {_shown(factor)}, and a number above 0 is wanted")
    if number is None:
        return Scale(float(factor))
    if not shape:
        raise _wrong(place, "names rows of a tensor without any")
    return Scale(float(factor), _inside(_listed(number, lists, place), shape[0], place))


def _attention(value: Any) -> Attention:
    if not isinstance(value, str) or value not in get_args(Attention):
        raise _wrong("attention", f"is {_shown(value)}, and one of {', '.join(get_args(Attention))} is wanted")
    return cast(Attention, value)


def _flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(place, f"is {_shown(value)}, and true or false is wanted")
    return value


def _call(value: Any, place: str) -> CallShape:
    found = _mapping(value, place)
    if set(found) - {"arguments"} != {"shapes", "dtypes"}:
        raise _wrong(place, "must have shapes and dtypes, and may have arguments")
    shapes = tuple(_integers(one, f"{place}.shapes") for one in _sequence(found["shapes"], f"{place}.shapes"))
    dtypes = _texts(found["dtypes"], f"{place}.dtypes")
    if len(shapes) != len(dtypes):
        raise _wrong(place, "must have as many shapes as dtypes")
    (arguments,) = _texts([found.get("arguments", "")], f"{place}.arguments")
    return CallShape(shapes, dtypes, arguments)


def _texts(value: Any, place: str) -> tuple[str, ...]:
    return tuple(_checked(one, lambda text: isinstance(text, str), place, "a text") for one in _sequence(value, place))


def _json(value: Any, place: str, depth: int) -> Any:
    if depth == 0:
        raise _wrong(place, "is nested too deep")
    if isinstance(value, Mapping):
        return {key: _json(one, f"{place}[{_shown(key)}]", depth - 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_json(one, place, depth - 1) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(place, f"is {value}, and a finite number is wanted")
    return value


def _mapping(value: Any, place: str) -> dict[str, Any]:
    return _checked(value, lambda found: isinstance(found, dict), place, "an object")


def _sequence(value: Any, place: str) -> list[Any]:
    return _checked(value, lambda found: isinstance(found, list), place, "a list")


def _checked(value: Any, fine: Callable[[Any], bool], place: str, wanted: str) -> Any:
    if not fine(value):
        raise _wrong(place, f"is {_shown(value)}, and {wanted} is wanted")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_int(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _wrong(place: str, what: str) -> PlanError:
    return PlanError(f"This plan is damaged: {place} {what}. Pass what Plan.to_json() wrote, or make a new plan.")
