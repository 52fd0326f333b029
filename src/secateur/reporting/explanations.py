"""The whole model explained: its groups, largest first, and what stays, why, and what would free it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from secateur.graph.explanation.explaining import Explainer, Obstacle, Part
from secateur.graph.explanation.histories import Role
from secateur.graph.explanation.wording import ENDS, joints, listed, others, paragraph, place
from secateur.graph.groups import Graph
from secateur.measurement.prunable import (
    Coverage,
    GroupShare,
    coverage,
    gathered_groups,
    group_share,
    held_shares,
)

GROUPS = 12  # that are shown
REASONS = 8
NOTICEABLE = 0.0005  # a smaller share is not worth a number


@dataclass(frozen=True)
class GroupStory:
    """Groups that differ in one number of their names alone: what would go with all of them, and what ties them."""

    share: GroupShare
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class StayingSide:
    """Channels of one side of a layer that stay."""

    layer: str
    roles: tuple[Role, ...]
    channels: int


@dataclass(frozen=True)
class StayStory:
    """What stays for one reason, and the share of the model that this holds."""

    obstacle: Obstacle
    sides: tuple[StayingSide, ...]
    params: float
    macs: float


@dataclass(frozen=True)
class Overview:
    """What there is to say of a whole model."""

    params: float  # of the full model
    macs: float
    coverage: Coverage
    groups: tuple[GroupStory, ...]  # the most parameters first
    stays: tuple[StayStory, ...]  # the most held first
    unreached: tuple[str, ...]


def overview(graph: Graph) -> Overview:
    """Explain a whole model.

    Raises:
        ExplainError: the graph was not made by `trace`.
    """
    explainer = Explainer(graph)
    groups = sorted(_stories(graph, explainer), key=lambda story: -story.share.params)
    params, macs = graph.costs.params(), graph.costs.macs()
    return Overview(params, macs, coverage(graph), tuple(groups), _stays(graph, explainer), graph.unreached)


def _stories(graph: Graph, explainer: Explainer) -> Iterator[GroupStory]:
    alike: dict[tuple[Any, ...], tuple[list[int], list[Part]]] = {}
    for numbers in gathered_groups(graph):
        part = explainer.group(numbers[0])
        pattern = frozenset((re.sub(r"\d+", "0", partner.layer), partner.role) for partner in part.partners)
        members, parts = alike.setdefault((graph.groups[numbers[0]].size, pattern, bool(part.joints)), ([], []))
        members += numbers
        parts.append(part)
    for members, parts in alike.values():
        yield GroupStory(group_share(graph, members), tuple(parts))


def _stays(graph: Graph, explainer: Explainer) -> tuple[StayStory, ...]:
    held = {(share.reason, share.source): share for share in held_shares(graph)}
    found: dict[tuple[str, str], StayStory] = {}
    for entry in graph.protected:
        roles, obstacles = explainer.stay(entry)
        for obstacle in obstacles[:1]:
            key = obstacle.reason.text, obstacle.reason.source
            share = held.get((entry.reason.text, entry.reason.source))
            numbers = (share.params, share.macs) if share else (0.0, 0.0)
            side = StayingSide(entry.tensor.rpartition(".")[0], roles, entry.indices.size)
            known = found.get(key, StayStory(obstacle, (), *numbers))
            found[key] = replace(known, sides=_with(known.sides, side))
    return tuple(sorted(found.values(), key=lambda story: -max(story.params, story.macs)))


def _with(sides: tuple[StayingSide, ...], side: StayingSide) -> tuple[StayingSide, ...]:
    """Add a side, unless it is known from another tensor of the layer, such as the bias."""
    return sides if side in sides else (*sides, side)


# -- data ------------------------------------------------------------------------------------------------------------


def as_data(value: Any) -> Any:
    """Return an explanation or an overview as plain data for JSON, with the names of its fields as keys."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_data(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [as_data(item) for item in value] if isinstance(value, (list, tuple)) else value


# -- text ------------------------------------------------------------------------------------------------------------


def group_lines(found: Overview, limit: int = GROUPS) -> Iterator[str]:
    """Write a table of the groups: shares that would go with one, channels, where they come from and go to."""
    yield "params   MACs  channels  group"
    for story in found.groups[:limit]:
        share = story.share
        size = f"{share.groups} x {share.size}" if share.groups > 1 else str(share.size)
        head = f"{share.params / max(found.params, 1):6.1%} {share.macs / max(found.macs, 1):6.1%} {size:>9}  "
        yield from paragraph(_story(story.parts), head, " " * len(head))
    rest = found.groups[limit:]
    if rest:
        yield f"and {len(rest)} more, none above {rest[0].share.params / max(found.params, 1):.1%} of the parameters"


def _story(parts: Sequence[Part]) -> str:
    written, read = (_layers(parts, role) for role in ("written", "read"))
    story = f"{listed(written, plain=2)} → {listed(read, plain=2)}" if read else listed(written, plain=2)
    meeting = joints([step for part in parts for step in part.joints])
    if meeting:
        story += f"; {'; '.join(meeting[:2])}{others(len(meeting) - 2)}"
    return story + ("; statistics across channels" if any(part.statistics for part in parts) else "")


def _layers(parts: Sequence[Part], role: Role) -> list[str]:
    return list(dict.fromkeys(one.layer for part in parts for one in part.partners if one.role == role))


def stay_lines(found: Overview, limit: int = REASONS) -> Iterator[str]:
    """Say what stays, for each reason: the place in the code, the layers, and what would free them."""
    for story in found.stays[:limit]:
        reason = story.obstacle.reason
        where = f" ({place(reason.source)})" if reason.source else ""
        yield from paragraph(f"{_sides(story)}: {reason.text}{where}.{_held(story)}", "  ", "      ")
        yield from paragraph(story.obstacle.remedy, "      ", "      ")
    if len(found.stays) > limit:
        yield f"  and {len(found.stays) - limit} more reasons"
    if found.unreached:
        yield from paragraph(f"{listed(found.unreached)}: never run by this input, so left whole.", "  ", "      ")


def _sides(story: StayStory) -> str:
    alike: dict[tuple[str, int], list[str]] = {}
    for side in story.sides:
        words = " and ".join(dict.fromkeys(ENDS[role] for role in side.roles if role in ENDS))
        alike.setdefault((words, side.channels), []).append(side.layer)
    return "; ".join(
        f"{listed(layers, 4, plain=2)} {f'{words} ' if words else ''}({count})"
        for (words, count), layers in alike.items()
    )


def _held(story: StayStory) -> str:
    if max(story.params, story.macs) < NOTICEABLE:
        return ""
    return f" This holds {story.params:.1%} of the parameters and {story.macs:.1%} of the MACs."
