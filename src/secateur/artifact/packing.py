"""What a file need not say twice: names of one tensor as pairs of prefixes, and shapes that its tensors tell.

A module that is registered under two names gives each of its tensors two, and a plan speaks of both. In the file a pair
such as `["lr_branch.backbone.", "backbone."]` stands for all of them. Shapes of the full-size model are stored for what
was cut; all others are those of the stored tensors.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from secateur.errors import ArtifactError
from secateur.planning.plans import Plan
from secateur.planning.serialization import plan_from_document, plan_to_document

# What a few bytes may stand for: no model has more, and memory and time stay bounded.
MOST_NAMES = 64  # for each stored tensor, on average
MOST_FURTHER = 1 << 14  # in all
MOST_LETTERS = 1 << 21  # of all of them
MOST_SHAPES = 1 << 17  # in all plans
Shapes = Mapping[str, tuple[int, ...]]


def pairs_of(aliases: Mapping[str, str], stored: Collection[str]) -> list[list[str]]:
    """Write further names of stored tensors as pairs of prefixes, which end with a dot, or else of whole names."""
    pairs: list[list[str]] = []
    ordered, told = sorted(stored), set[str]()
    for alias, first in aliases.items():
        if alias not in told:
            candidates = [*_prefixes(alias, first), (alias, first)]
            pair = next(pair for pair in candidates if _holds(pair, aliases, ordered))
            told |= _further(pair, ordered).keys()
            pairs.append(list(pair))
    return pairs


def _prefixes(alias: str, first: str) -> list[tuple[str, str]]:
    """Return pairs of prefixes behind which two names are the same, the shortest first."""
    one, other = alias.split("."), first.split(".")
    common = 0
    while common < min(len(one), len(other)) - 1 and one[-1 - common] == other[-1 - common]:
        common += 1
    return [(".".join([*one[:-n], ""]), ".".join([*other[:-n], ""])) for n in range(common, 0, -1)]


def _holds(pair: Sequence[str], aliases: Mapping[str, str], ordered: Sequence[str]) -> bool:
    return all(aliases.get(alias) == name for alias, name in _further(pair, ordered).items())


def _further(pair: Sequence[str], ordered: Sequence[str]) -> dict[str, str]:
    """Return the names that a pair stands for, each with the stored tensor's."""
    alias, first = pair
    names = _below(first, ordered) if first.endswith(".") else [first]
    return {alias + name.removeprefix(first): name for name in names}


def aliases_of(pairs: Sequence[Sequence[str]], stored: Collection[str]) -> dict[str, str]:
    """Return the names that pairs stand for, each with the stored tensor's.

    Raises:
        ValueError: a pair is none, names no stored tensor or makes a name twice; or there are far too many names.
    """
    found: dict[str, str] = {}
    ordered, letters = sorted(stored), 0
    for alias, first in pairs:
        names = _below(first, ordered) if first.endswith(".") else [first]
        if not names or names[0] not in stored:
            raise ValueError(f"no stored tensor is called {first!r}")
        count, letters = len(found) + len(names), letters + sum(len(alias) + len(name) for name in names)
        if count > min(MOST_NAMES * len(stored), MOST_FURTHER) or letters > MOST_LETTERS:
            raise ValueError("there are far more names than tensors")
        further = _further((alias, first), ordered)
        if not further.keys().isdisjoint(found) or not further.keys().isdisjoint(stored):
            raise ValueError("a tensor's name appears twice")
        found.update(further)
    return found


def _below(prefix: str, ordered: Sequence[str]) -> Sequence[str]:
    """Return the names that begin with a prefix, of which the last character is a dot; a slash would be the next."""
    return ordered[bisect_left(ordered, prefix) : bisect_left(ordered, prefix[:-1] + "/")]


def packed(plans: Sequence[Plan], shapes: Shapes, aliases: Mapping[str, str]) -> list[dict[str, Any]]:
    """Write plans as JSON values, without what the stored tensors' `shapes` (by every name) and `aliases` tell.

    Under `keep` a tensor has its shape in the full-size model beside the indices that it keeps.

    Raises:
        ArtifactError: they tell of more shapes than can be read back.
    """
    _check_size(len(plans), shapes)
    documents = []
    for plan in reversed(plans):
        document = plan_to_document(plan)
        told = {name: shape for name, shape in plan.fingerprint.items() if shapes.get(name) != shape}
        keep, told, document["scales"] = (
            _without_aliases(values, aliases) for values in (document["keep"], told, document["scales"])
        )
        document["keep"] = {name: [plan.fingerprint[name], axes] for name, axes in keep.items()}
        document["fingerprint"] = {name: shape for name, shape in told.items() if name not in keep}
        document["absent"] = sorted(shapes.keys() - plan.fingerprint.keys())
        documents.append(document)
        shapes = plan.fingerprint
    return documents[::-1]


def _without_aliases(values: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in aliases or values.get(aliases[name]) != value}


def unpacked(documents: Sequence[Any], shapes: Shapes, aliases: Mapping[str, str]) -> tuple[Plan, ...]:
    """Read plans that `packed` wrote, and trust nothing in them.

    Raises:
        PlanError: one is no plan, or contradicts itself.
        ArtifactError: they tell of more shapes than any model has.
        LookupError, TypeError, ValueError, AttributeError: what is there is not of the form that `packed` writes.
    """
    _check_size(len(documents), shapes)
    plans = []
    for packed_plan in reversed(documents):
        document = dict(packed_plan)
        cut = {name: (shape, axes) for name, (shape, axes) in document["keep"].items()}
        document["keep"] = {name: axes for name, (_, axes) in cut.items()}
        document["fingerprint"] = {**document["fingerprint"], **{name: shape for name, (shape, _) in cut.items()}}
        for field in ("keep", "scales", "fingerprint"):
            document[field] = with_aliases(document[field], aliases)
        known = {name: list(shape) for name, shape in shapes.items()}
        for name in document.pop("absent"):
            del known[name]
        document["fingerprint"] = {**known, **document["fingerprint"]}
        plan = plan_from_document(document)
        plans.append(plan)
        shapes = plan.fingerprint
    return tuple(plans[::-1])


def with_aliases(values: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Say of every further name what is said of the first."""
    further = {alias: values[first] for alias, first in aliases.items() if first in values and alias not in values}
    return {**values, **further}


def _check_size(plans: int, shapes: Shapes) -> None:
    if plans * len(shapes) > MOST_SHAPES:
        raise ArtifactError(
            f"{plans} plans of {len(shapes)} tensors are more than a file may hold. Make one of them: "
            "later.after(earlier)."
        )
