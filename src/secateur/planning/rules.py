"""The entries of a configuration, checked: which layers each selects, and what it asks of them.

Fields have NNI's names, those of 2.x and of 3.0. What NNI 3.0 says about weights holds for channels here, because
whole channels go; which layers go together is found by tracing, and a bias goes with its weight.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.errors import PlanError, nearest
from secateur.planning.configuration import shortened

_SPARSITIES = ("sparse_ratio", "sparsity", "sparsity_per_layer")  # three names of one field
_MAX_SPARSITIES = ("max_sparse_ratio", "max_sparsity_per_layer")
_GROWING = (*_SPARSITIES, "total_sparsity", "min_sparse_ratio")  # what is less at the beginning of several steps
_SELECTIONS = (
    "op_types",
    "op_names",
    "op_names_re",
    "op_partial_names",
    "exclude_op_types",
    "exclude_op_names",
    "exclude_op_names_re",
)
_SETTINGS = (
    *_GROWING,
    *_MAX_SPARSITIES,
    "sparse_threshold",
    "global_group_id",
    "dependency_group_id",
    "granularity",
    "apply_method",
    "internal_metric_block",
    "align",
)
FIELDS = (*_SELECTIONS, "exclude", "target_names", "target_settings", *_SETTINGS)
_CUT_TARGETS = ("weight", "bias")

# What NNI means by "default": every type of layer whose weights can be pruned.
DEFAULT_TYPES = (
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Linear",
    "Bilinear",
    "PReLU",
    "Embedding",
    "EmbeddingBag",
)

_log = logging.getLogger("secateur")


@dataclass(frozen=True)
class Rule:
    """One entry of a configuration: which layers (None: any), and what becomes of them."""

    place: str  # "entry 2", for messages
    types: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    partial_names: tuple[str, ...] | None = None
    patterns: tuple[str, ...] | None = None  # regular expressions, matched from the beginning of a name
    without_types: tuple[str, ...] = ()
    without_names: tuple[str, ...] = ()
    without_patterns: tuple[str, ...] = ()
    exclude: bool = False
    sparsity: float | None = None  # of each group; of all groups of the pool together, if there is one
    total: float | None = None  # of the weights of all the groups together
    max_sparsity: float | None = None  # of each group
    min_sparsity: float | None = None  # of each group
    pool: str | None = None  # NNI's global_group_id


def rules_of(entries: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Check the entries of a configuration and return them as rules, in order.

    Raises:
        PlanError: an unknown field, a value that makes no sense, or fields that contradict each other.
    """
    rules = tuple(_rule(entry, f"entry {number}") for number, entry in enumerate(entries, 1))
    _check_pools(rules)
    return rules


def with_sparsities(entries: Sequence[Mapping[str, Any]], change: Callable[[float], float]) -> list[dict[str, Any]]:
    """Return the (checked) entries with every sparsity that they ask for changed; limits stay as they are."""

    def changed(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {inner: changed(inner, one) for inner, one in value.items()}
        return change(value) if name in _GROWING and value is not None else value

    return [{name: changed(name, value) for name, value in entry.items()} for entry in entries]


def _rule(entry: Mapping[str, Any], place: str) -> Rule:
    _check_fields(entry, FIELDS, place)
    entry = _with_target_settings(entry, place)
    _check_settings(entry, place)
    pool = entry.get("global_group_id")
    rule = Rule(
        place,
        types=_types(entry, "op_types", place),
        names=_words(entry, "op_names", place),
        partial_names=_words(entry, "op_partial_names", place),
        patterns=_patterns(entry, "op_names_re", place),
        without_types=_types(entry, "exclude_op_types", place) or (),
        without_names=_words(entry, "exclude_op_names", place) or (),
        without_patterns=_patterns(entry, "exclude_op_names_re", place) or (),
        exclude=_flag(entry, place),
        sparsity=_share(entry, _SPARSITIES, place),
        total=_share(entry, ("total_sparsity",), place),
        max_sparsity=_share(entry, _MAX_SPARSITIES, place, top=True),
        min_sparsity=_share(entry, ("min_sparse_ratio",), place),
        pool=None if pool is None else str(pool),
    )
    _check_consistent(rule, place)
    return rule


def _check_fields(entry: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for name in entry:
        if name not in known:
            raise PlanError(f"The configuration, {place}, has an unknown field {name!r}.{nearest(str(name), known)}")


def _with_target_settings(entry: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """Return an entry with what NNI 3.0's `target_settings` say of weights beside its other fields."""
    settings = entry.get("target_settings")
    if settings is None:
        targets: Sequence[str] = _words(entry, "target_names", place) or ()
    elif isinstance(settings, Mapping) and all(isinstance(one, Mapping) for one in settings.values()):
        targets = (*(_words(entry, "target_names", place) or ()), *map(str, settings))
    else:
        raise PlanError(
            f"The configuration, {place}, has target_settings: {shortened(settings)}, and a dict of dicts is wanted. "
            "Write it like target_settings: {weight: {sparse_ratio: 0.5}}."
        )
    foreign = next((target for target in targets if target not in _CUT_TARGETS), None)
    if foreign is not None or (targets and "weight" not in targets):
        raise PlanError(
            f"The configuration, {place}, is about the target {foreign or 'bias'}, and channels are cut from weights "
            "(biases, and the inputs of the layers behind, follow). Select the layers that make the channels, with "
            "target_names: [weight] or without it."
        )
    own = {} if settings is None else settings.get("weight", {})
    _check_fields(own, _SETTINGS, f"{place}, target_settings")
    return {**entry, **{name: value for name, value in own.items() if value is not None}}


def _check_settings(entry: Mapping[str, Any], place: str) -> None:
    """Check what says how NNI makes its masks; only whole output channels go here."""
    granularity: Any = entry.get("granularity")
    rows = isinstance(granularity, list) and granularity == [1] + [-1] * (len(granularity) - 1)
    refused = {
        f"granularity: {shortened(granularity)}": granularity not in (None, "default", "out_channel") and not rows,
        f"apply_method: {shortened(entry.get('apply_method'))}": entry.get("apply_method") not in (None, "mul"),
        "internal_metric_block": entry.get("internal_metric_block") is not None,
    }
    for field, wrong in refused.items():
        if wrong:
            raise PlanError(
                f"The configuration, {place}, has {field}, and whole output channels are cut (out_channel). "
                "Leave that field out; for a layer's inputs, select the layers that make them."
            )
    if entry.get("sparse_threshold") is not None:
        raise PlanError(
            f"The configuration, {place}, has sparse_threshold, and importances of other criteria have other scales. "
            "Give sparse_ratio instead."
        )
    if entry.get("dependency_group_id") is not None:
        _log.info("dependency_group_id of %s is not needed: which layers go together is found by tracing.", place)


def _check_consistent(rule: Rule, place: str) -> None:
    if rule.exclude and (rule.sparsity is not None or rule.total is not None):
        raise PlanError(f"The configuration, {place}, excludes layers and gives them a sparsity. Keep one of the two.")
    if rule.sparsity is not None and rule.total is not None:
        raise PlanError(
            f"The configuration, {place}, has both sparsity (of each group) and total_sparsity (of all of them). "
            "Keep one of the two."
        )
    if rule.pool is not None and rule.sparsity is None:
        raise PlanError(
            f"The configuration, {place}, has a global_group_id without a sparse_ratio to share out. Give one."
        )
    asked = rule.total if rule.sparsity is None else rule.sparsity
    if rule.min_sparsity is not None and asked is None:
        raise PlanError(
            f"The configuration, {place}, has min_sparse_ratio without a sparse_ratio to share out. Give one."
        )
    most = min((share for share in (asked, rule.max_sparsity) if share is not None), default=1.0)
    if rule.min_sparsity is not None and rule.min_sparsity > most:
        raise PlanError(
            f"The configuration, {place}, has min_sparse_ratio: {rule.min_sparsity:g} and asks for {most:g} at most. "
            "Give at most that."
        )


def _check_pools(rules: Sequence[Rule]) -> None:
    first: dict[str, Rule] = {}
    for rule in rules:
        if rule.pool is not None and first.setdefault(rule.pool, rule).sparsity != rule.sparsity:
            raise PlanError(
                f"The configuration, {first[rule.pool].place} and {rule.place}, gives two sparsities to "
                f"global_group_id: {rule.pool}. Give the same to both, or other ids."
            )


def _types(entry: Mapping[str, Any], field: str, place: str) -> tuple[str, ...] | None:
    words = _words(entry, field, place)
    if words is None or "default" not in words:
        return words
    return tuple(dict.fromkeys((*(word for word in words if word != "default"), *DEFAULT_TYPES)))


def _words(entry: Mapping[str, Any], field: str, place: str) -> tuple[str, ...] | None:
    value = entry.get(field)
    if value is None:
        return None
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not words or not all(isinstance(word, str) and word for word in words):
        raise PlanError(
            f"The configuration, {place}, has {field}: {shortened(value)}, and a list of names is wanted. "
            f"Write it like {field}: [{'Conv2d' if field.endswith('op_types') else 'features.0'}]."
        )
    return tuple(words)


def _patterns(entry: Mapping[str, Any], field: str, place: str) -> tuple[str, ...] | None:
    words = _words(entry, field, place)
    for word in words or ():
        try:
            re.compile(word)
        except re.error as error:
            raise PlanError(
                f"The configuration, {place}, has {field}: {shortened(word)}, which is no regular expression: {error}. "
                r"Write it like features\.[0-3]\.conv."
            ) from None
    return words


def _flag(entry: Mapping[str, Any], place: str) -> bool:
    value = entry.get("exclude", False)
    if not isinstance(value, bool):
        raise PlanError(
            f"The configuration, {place}, has exclude: {shortened(value)}. Write exclude: true or leave it out."
        )
    return value


def _share(entry: Mapping[str, Any], fields: Sequence[str], place: str, top: bool = False) -> float | None:
    """Return the share under the one of several synonyms that is there; `top`: 1 is one, too."""
    given = [field for field in fields if entry.get(field) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise PlanError(
            f"The configuration, {place}, has both {given[0]} and {given[1]}, which are the same. Keep one of them."
        )
    value = entry[given[0]]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 <= value < 1 or (top and value == 1)):
        raise PlanError(
            f"The configuration, {place}, has {given[0]}: {shortened(value)}, which is no share of the channels to "
            f"remove. Give a number of at least 0 and below 1, such as {given[0]}: 0.8."
        )
    return float(value)
