"""A part's plan, for the host that holds the part: which of the host's units go, and where the two disagree."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from secateur.errors import GraftError, PlanError
from secateur.graph.groups import Axis, Graph, Group
from secateur.planning.outputs import axis_length
from secateur.planning.plans import Plan, assemble

Conflict = Literal["error", "restore", "extend"]
_log = logging.getLogger("secateur")

SHOWN = 3  # tensors or layers in a message

CHOICES = (
    'With conflict="restore" they come back, with the host\'s weights; with conflict="extend" what they are coupled '
    "with goes, too."
)


@dataclass(frozen=True)
class Clash:
    """Units of a host's group of which the part's plan removes some members and keeps others, or which must stay."""

    group: str
    units: tuple[int, ...]
    why: str
    may_go: bool

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.units[:8])) + (", ..." if len(self.units) > 8 else "")
        return f"channels {listed} of {self.group} ({self.why})"


def rebased(plan: Plan, graph: Graph, at: str, conflict: Conflict = "error") -> Plan:
    """Return the plan for a host that removes from the part at `at` what `plan` removes from the part alone.

    Whatever the host couples with these channels goes along. Tensors that the host's part lacks are passed over.

    Raises:
        GraftError: the part is not the one that the plan was made for (names the first tensors that differ), or the
            host couples it more tightly than it was alone, and `conflict` does not say what to do.
    """
    if conflict not in get_args(Conflict):
        raise GraftError(f"conflict={conflict!r} is not known. Say one of {', '.join(get_args(Conflict))}.")
    names = part_names(plan, graph, at)
    kept, clashes = [], list(_held(plan, graph, names))
    for group in graph.groups:
        gone, stays = _votes(plan, group, names)
        mixed = gone & stays
        if mixed.any():
            why = "the host couples them with channels that the plan keeps"
            clashes.append(Clash(group.name, tuple(np.flatnonzero(mixed).tolist()), why, may_go=True))
        kept.append(~gone | (stays if conflict == "restore" else False))
    _check_clashes(clashes, conflict)
    counts = _settled(graph, [int(mask.sum()) for mask in kept], conflict)
    chosen = [_resized(mask, count) for mask, count in zip(kept, counts, strict=True)]
    recipe = {"graft": {"at": at, "conflict": conflict}, "part": plan.recipe}
    try:
        found = assemble(graph, [np.flatnonzero(mask) for mask in chosen], recipe)
    except PlanError as error:
        raise GraftError(f"The host cannot do with the channels that the part's plan leaves: {error}") from error
    return replace(found, attention=plan.attention)


def part_names(plan: Plan, graph: Graph, at: str) -> dict[str, str]:
    """Return the host's tensors that the plan knows, by first name, with their names in the plan.

    The part may be less than what was pruned: without its classifier, or only its `features`, in which case the names
    in the plan begin with these.

    Raises:
        GraftError: there is none, or one has another shape.
    """
    prefix = f"{at}." if at else ""
    there = {
        info.name: [alias.removeprefix(prefix) for alias in info.aliases if alias.startswith(prefix)]
        for info in graph.tensors.values()
    }
    within = _inner_part(plan, {own for aliases in there.values() for own in aliases})
    found = {name: [within + own for own in owns if within + own in plan.fingerprint] for name, owns in there.items()}
    names = {name: owns[0] for name, owns in found.items() if owns}
    if within:
        _log.info("The host's part %r is taken for %r of what was pruned.", at, within.rstrip("."))
    _check_names(plan, graph, at, names)
    return names


def _inner_part(plan: Plan, there: set[str]) -> str:
    """Return the beginning of the plan's names behind which it knows most of a part's tensors."""
    pieces = {name.rsplit(".", depth)[0] + "." for name in plan.keep for depth in range(1, name.count(".") + 1)}
    return max(["", *sorted(pieces)], key=lambda start: sum(start + own in plan.fingerprint for own in there))


def _check_names(plan: Plan, graph: Graph, at: str, names: Mapping[str, str]) -> None:
    where = f"The host's part {at!r}" if at else "The host"
    remedy = "Graft into the part that the plan was made for (at=), or make a plan for this one."
    differing = [
        f"{name} has shape {tuple(graph.tensors[name].shape)}, the plan {plan.fingerprint[own]}"
        for name, own in names.items()
        if plan.fingerprint[own] != tuple(graph.tensors[name].shape)
    ]
    if differing:
        more = f", and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise GraftError(f"{where} differs from what was pruned: {'; '.join(differing[:SHOWN])}{more}. {remedy}")
    if not any(own in plan.keep for own in names.values()):
        cut = ", ".join(list(plan.keep)[:SHOWN]) or "none"
        raise GraftError(f"{where} has none of the tensors that the plan cuts, such as {cut}. {remedy}")


def _votes(plan: Plan, group: Group, names: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Return of every unit whether the plan removes a member of it in the part, and whether it keeps one."""
    gone, stays = np.zeros((2, group.size), bool)
    for member in group.members:
        if member.tensor in names and member.axis != "grouped":  # which is numbered anew where whole groups go
            kept = plan.keep.get(names[member.tensor], {}).get(member.axis)
            here = np.isin(member.indices, range(int(member.indices.max()) + 1) if kept is None else kept)
            stays |= here.any(axis=1)
            gone |= ~here.all(axis=1)
    return gone, stays


def _held(plan: Plan, graph: Graph, names: Mapping[str, str]) -> Iterator[Clash]:
    """Find what the plan removes and the host protects, by layer."""
    free: dict[tuple[str, Axis], list[np.ndarray]] = {}
    for group in graph.groups:
        for member in group.members:
            free.setdefault((member.tensor, member.axis), []).append(member.indices.ravel())
    seen: set[str] = set()
    for tensor, own in names.items():
        for axis in plan.keep.get(own, {}):
            layer = tensor.rpartition(".")[0]
            if axis == "grouped" or layer in seen:
                continue
            removed = np.setdiff1d(np.arange(axis_length(graph.tensors[tensor], axis)), plan.keep[own][axis])
            held = np.setdiff1d(removed, np.concatenate([np.zeros(0, np.int64), *free.get((tensor, axis), [])]))
            if held.size:
                seen.add(layer)
                yield Clash(layer, tuple(held.tolist()), _reason(graph, tensor, axis, int(held[0])), may_go=False)


def _reason(graph: Graph, tensor: str, axis: Axis, index: int) -> str:
    for one in graph.protected:
        if (one.tensor, one.axis) == (tensor, axis) and index in one.indices:
            return one.reason.text + (f", {one.reason.source}" if one.reason.source else "")
    return "the host holds them"


def _check_clashes(clashes: Sequence[Clash], conflict: Conflict) -> None:
    told = "; ".join(map(str, clashes[:SHOWN])) + (f"; and {len(clashes) - SHOWN} more" if len(clashes) > SHOWN else "")
    if clashes and conflict == "error":
        only = 'They must come back: say conflict="restore".'
        remedy = CHOICES if all(clash.may_go for clash in clashes) else only
        raise GraftError(f"The host couples the part more tightly than it was alone: {told}. {remedy}")
    held = [clash for clash in clashes if not clash.may_go]
    if held and conflict == "extend":
        raise GraftError(
            f"These cannot go in the host: {'; '.join(map(str, held[:SHOWN]))}. "
            'Let them come back with conflict="restore", or prune the host itself.'
        )


# -- numbers ---------------------------------------------------------------------------------------------------------


def _settled(graph: Graph, counts: list[int], conflict: Conflict) -> list[int]:
    """Change the numbers of kept units until they satisfy the host's conditions: all up, or all down."""
    sizes = [group.size for group in graph.groups]
    matrix, target = graph.equalities.matrix, graph.equalities.target
    for _ in range(len(target) + 1):
        broken = np.flatnonzero(matrix @ np.asarray(counts, np.int64) != target) if counts else []
        if not len(broken):
            return counts
        row = int(broken[0])
        groups = np.flatnonzero(matrix[row]).tolist()
        if conflict == "error":
            listed = ", ".join(f"{graph.groups[n].name} keeps {counts[n]} of {sizes[n]}" for n in groups[:SHOWN])
            raise GraftError(
                f"In the host these numbers of channels do not go together ({listed}): "
                f"{graph.equalities.reasons[row].text} ({graph.equalities.reasons[row].source}). {CHOICES}"
            )
        level = (max if conflict == "restore" else min)(counts[n] / sizes[n] for n in groups)
        for number in groups:
            counts[number] = max(1, round(level * sizes[number]))
        if (matrix[row] @ np.asarray(counts, np.int64)) != target[row]:
            counts = [size if n in groups else count for n, (size, count) in enumerate(zip(sizes, counts, strict=True))]
    return sizes


def _resized(kept: np.ndarray, count: int) -> np.ndarray:
    """Keep as many as `count`: the first of those that are gone come back, or the last of those that are left go."""
    result, more = kept.copy(), count - int(kept.sum())
    if more > 0:
        result[np.flatnonzero(~kept)[:more]] = True
    elif more < 0:
        result[np.flatnonzero(kept)[more:]] = False
    return result
