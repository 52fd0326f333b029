"""Plans one after the other: two plans in, the one that does what both do out (docs/design.md, section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from secateur.errors import PlanError
from secateur.graph.groups import Axis, Scale
from secateur.planning.plans import Indices, Kept, Plan

Axes = Mapping[Axis, Kept]


def plan_after(later: Plan, earlier: Plan) -> Plan:
    """Return the plan that does what `earlier` and then `later` do; see `Plan.after`."""
    _check_follows(later, earlier)
    names = dict.fromkeys([*earlier.keep, *later.keep])
    scaled = dict.fromkeys([*earlier.scales, *later.scales])
    return Plan(
        keep={name: _kept(earlier, name, later.keep.get(name, {})) for name in names},
        fingerprint=earlier.fingerprint,
        attributes={**earlier.attributes, **later.attributes},
        scales={name: _scales(earlier, name, later.scales.get(name, ())) for name in scaled},
        attention=later.attention,
        free_outputs=later.free_outputs or earlier.free_outputs,
        calls=earlier.calls,
        statistics=tuple(dict.fromkeys((*earlier.statistics, *later.statistics))),
        recipe=_recipe(earlier, later),
    )


def plan_since(later: Plan, earlier: Plan) -> Plan:
    """Return the plan that is left to do when `earlier` was done; see `Plan.since`."""
    names = [name for name in later.keep if later.keep[name] != earlier.keep.get(name)]
    changed = {path: value for path, value in later.attributes.items() if earlier.attributes.get(path) != value}
    try:
        if later.fingerprint != earlier.fingerprint or not set(earlier.keep) <= set(later.keep):
            raise LookupError
        return Plan(
            keep={name: _kept_since(earlier, name, later.keep[name]) for name in names},
            fingerprint={name: earlier.shape_after(name) for name in earlier.fingerprint},
            attributes=changed,
            scales={name: scales for name in later.scales if (scales := _scales_since(earlier, later, name))},
            attention=later.attention,
            free_outputs=later.free_outputs,
            calls=later.calls,
            statistics=later.statistics,
            recipe=later.recipe,
        )
    except LookupError:
        raise PlanError(
            "The later plan keeps something that the earlier one removes, or is of another model. Both must be plans "
            "of the full-size model, and the later one must cut what the earlier one left."
        ) from None


def _kept_since(earlier: Plan, name: str, axes: Axes) -> dict[Axis, Kept]:
    first, shape = earlier.keep.get(name, {}), earlier.shape_after(name)
    if not first.keys() <= axes.keys():
        raise LookupError(name)
    result: dict[Axis, Kept] = {axis: kept for axis, kept in axes.items() if axis not in first}
    for axis in first.keys() - {"grouped"}:
        result[axis] = _positions(first[axis], axes[axis])  # type: ignore[arg-type]
    if "grouped" in first:
        rows: Any = axes["grouped"]
        groups = remaining_groups(result.get(0, range(shape[0])), shape[0] // len(first["grouped"]), len(rows))  # type: ignore[arg-type]
        result["grouped"] = tuple(
            _positions(first["grouped"][group], own) for group, own in zip(groups, rows, strict=True)
        )
    return result


def _positions(first: Indices, second: Indices) -> tuple[int, ...]:
    places = {index: place for place, index in enumerate(first)}
    return tuple(places[index] for index in second)


def _scales_since(earlier: Plan, later: Plan, name: str) -> tuple[Scale, ...]:
    """Return the factors that came after those of the earlier plan, their rows as that plan leaves them."""
    done, rows = earlier.scales.get(name, ()), earlier.keep.get(name, {}).get(0)
    if tuple(later.scales[name][: len(done)]) != tuple(done):
        raise LookupError(name)
    return tuple(
        one if one.rows is None or rows is None else Scale(one.factor, _positions(rows, one.rows))  # type: ignore[arg-type]
        for one in later.scales[name][len(done) :]
    )


def remaining_groups(outputs: Indices, each: int, remaining: int) -> np.ndarray:
    """Return the numbers of a grouped convolution's groups that are left, in order.

    `outputs` are the kept indices along its axis 0, group by group; `each` is how many a whole group has there.
    """
    left = np.asarray(outputs)
    return left[:: len(left) // remaining] // each


def _check_follows(later: Plan, earlier: Plan) -> None:
    left = {name: earlier.shape_after(name) for name in earlier.fingerprint}
    differing = next(
        (name for name in [*left, *later.fingerprint] if left.get(name) != later.fingerprint.get(name)), ""
    )
    if differing:
        leaves, expects = (shapes.get(differing, "no such tensor") for shapes in (left, later.fingerprint))
        raise PlanError(
            f"The plans do not follow each other: of {differing} the earlier one leaves {leaves}, and the later one "
            f"expects {expects}. Make the later plan for the model that the earlier one leaves."
        )


def _kept(earlier: Plan, name: str, second: Axes) -> dict[Axis, Kept]:
    first = earlier.keep.get(name, {})
    kept: dict[Axis, Kept] = {**first, **second}
    for axis in first.keys() & second.keys():
        if axis == "grouped":
            kept[axis] = _rows(first[axis], second, earlier.shape_after(name)[0])  # type: ignore[arg-type]
        else:
            kept[axis] = _picked(first[axis], second[axis])  # type: ignore[arg-type]
    return kept


def _picked(first: Indices, second: Indices) -> tuple[int, ...]:
    return tuple(first[index] for index in second)


def _rows(first: Sequence[Indices], second: Axes, outputs: int) -> tuple[Indices, ...]:
    """Return the rows of each group of a convolution that is left by both; `outputs` are there between the two."""
    rows: Sequence[Indices] = second["grouped"]  # type: ignore[assignment]
    groups = remaining_groups(second.get(0, range(outputs)), outputs // len(first), len(rows))  # type: ignore[arg-type]
    return tuple(_picked(first[group], own) for group, own in zip(groups, rows, strict=True))


def _scales(earlier: Plan, name: str, second: Sequence[Scale]) -> tuple[Scale, ...]:
    """Return the factors in the order in which they apply, so that the products round as they did."""
    rows: Any = earlier.keep.get(name, {}).get(0)
    moved = (one if one.rows is None or rows is None else Scale(one.factor, _picked(rows, one.rows)) for one in second)
    return (*earlier.scales.get(name, ()), *moved)


def _recipe(earlier: Plan, later: Plan) -> Mapping[str, Any]:
    steps = [step for plan in (earlier, later) for step in plan.recipe.get("steps", [plan.recipe]) if step]
    return steps[0] if len(steps) == 1 else {"steps": steps}
