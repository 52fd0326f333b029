"""Explanations as texts for people, at most 100 columns wide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

from secateur.graph.explanation.conditions import Condition
from secateur.graph.explanation.explaining import Explanation, Obstacle, Part, Side
from secateur.graph.explanation.histories import Partner, Role, Step
from secateur.graph.groups import Reason

WIDTH = 100
LINES = 16  # of a tree of ways
ITSELF = "the model itself"
NAMES = 8  # of layers or groups in a row

ROLES: dict[Role, str] = {
    "written": "written by",
    "filtered": "filtered by",
    "normalised": "normalised by",
    "beside": "together with",
    "taken": "chosen from",
    "read": "read by",
}
SIDES: dict[Role, str] = {"written": "Output channels", "read": "Input channels", "taken": "Rows"}
ENDS: dict[Role, str] = {"written": "output", "read": "input"}


def text_of(explanation: Explanation) -> str:
    """Write an explanation."""
    layer = explanation.layer
    lines = [f"{layer.name or ITSELF} ({layer.type})"]
    others = [alias for alias in layer.aliases if alias != layer.name]
    if others:
        lines += paragraph(f"Also called {listed(others)}.")
    if explanation.shared:
        lines += paragraph(f"Shares its weight with {listed(explanation.shared)}: one tensor, cut once.")
    if not explanation.ran:
        lines += paragraph(
            "Never run by the example, so left whole. Trace with an example, or several calls, that reach it."
        )
    elif not explanation.sides:
        lines += paragraph("Nothing to cut: it has a single channel, or none.")
    for role in explanation.single:
        lines += ["", f"{SIDES[role]}: a single one, never cut"]
    for side in explanation.sides:
        own = [layer.name, *layer.aliases, *(tensor for tensor, _ in side.places)]
        lines += ["", *_side_lines(side, own)]
    return "\n".join(lines)


def _side_lines(side: Side, own: Sequence[str]) -> Iterator[str]:
    title = _title(side)
    if len(side.parts) == 1:
        yield from paragraph(f"{title}: {_fate(side.parts[0])}")
        yield from _part_lines(side.parts[0], "  ")
        yield from _number_lines(side.parts, "  ")
        yield from _way_lines(side.parts[0], own, "  ")
        return
    yield f"{title}: {side.size}, of {len(side.parts)} groups"
    if len(side.parts) <= 3 and "written" in side.roles:
        for part in side.parts:
            yield from paragraph(f"{_range(part.channels.tolist())}: {_fate(part)}", "  ")
            yield from _part_lines(part, "    ")
            yield from _way_lines(part, own, "    ", LINES // 2)
    else:
        yield from _row_lines(side)
    yield from _number_lines(side.parts, "  ")


def _title(side: Side) -> str:
    names = list(dict.fromkeys(SIDES.get(role, "Channels") for role in side.roles)) or ["Channels"]
    title = " and ".join([names[0], *(name.lower() for name in names[1:])])
    if not side.roles:
        tensor, axis = side.places[0]
        return f"Dimension {axis} of {tensor.rpartition('.')[2]}"
    keys = {tensor.rpartition(".")[2]: axis for tensor, axis in side.places}
    if "weight" in keys:
        return title
    key, axis = next(iter(keys.items()))
    return f"{title} (dimension {axis} of {key})"


def _row_lines(side: Side) -> Iterator[str]:
    """Write a line for each way that channels take, without the details, and what would free those that stay."""
    rows: dict[str, list[int]] = {}
    for part in side.parts:
        rows.setdefault(_way(part, "written" in side.roles), []).extend(part.channels.tolist())
    for way, channels in list(rows.items())[:NAMES]:
        yield from paragraph(f"{_range(sorted(channels))}: {way}", "  ", "      ")
    if len(rows) > NAMES:
        yield f"  and {len(rows) - NAMES} more"
    yield from _remedy_lines([obstacle for part in side.parts for obstacle in part.obstacles[:1]], "  ")


def _fate(part: Part) -> str:
    count = len(part.channels)
    if part.group:
        each = count // part.units if part.units else 1
        if each > 1 and part.units == 1:
            return f"{count}, tied together as one, of which nothing goes (group {part.group})"
        sets = f"{count}, any may be cut" if each == 1 else f"{count}, cut in {part.units} sets of {each}"
        return f"{sets} (group {part.group})"
    return f"{count}, {'all stay' if count > 1 else 'stays'}"


def _way(part: Part, writes: bool) -> str:
    """Say in one line where channels come from or go to, or why they stay."""
    if not part.group:
        if not part.obstacles:
            return "stay"
        reason = part.obstacles[0].reason
        where = ", ".join(word for word in (reason.op.strip("_"), place(reason.source)) if word)
        return f"stay: {reason.text}{f' ({where})' if where else ''}"
    ends = [partner for partner in part.partners if partner.role == ("read" if writes else "written")]
    sets = f"in sets of {len(part.channels) // part.units}, " if len(part.channels) > part.units else ""
    if not ends:
        met = f"meet in {listed(joints(part.joints))}" if part.joints else f"group {part.group}"
        return f"{sets}{met}"
    operations = [step for step in ends[0].chain if step.op]
    through = f", through {_step(operations[-1 if writes else 0])}" if operations else ""
    return f"{sets}{'to' if writes else 'from'} {listed((end.layer for end in ends), 3)}{through}"


def _part_lines(part: Part, indent: str) -> Iterator[str]:
    if part.obstacles:
        yield from _obstacle_lines(part.obstacles, indent)
        return
    rows: list[tuple[str, str]] = []
    for role, words in ROLES.items():
        layers = [partner.layer for partner in part.partners if partner.role == role]
        rows += [(words, listed(layers))] if layers else []
    rows += [("joined by", listed(joints(part.joints)))] if part.joints else []
    yield from _table(rows, indent)


def _number_lines(parts: Sequence[Part], indent: str) -> Iterator[str]:
    """Say what follows the number of channels, once for all parts."""
    statistics = joints([step for part in parts for step in part.statistics])
    rewrites = dict.fromkeys(rewrite for part in parts for rewrite in part.rewrites)
    rows = [("statistics", f"{listed(statistics)}: taken over what is left")] if statistics else []
    rows += [("tied", text) for text in _conditions(parts)]
    rescaled = dict.fromkeys(tensor.rpartition(".")[0] for part in parts for tensor in part.rescaled)
    rows += [("rescaled", f"{listed(rescaled)}, so that the scale of attention stays as it is")] if rescaled else []
    rows += [("rewritten", listed(f"{one.attribute} ({place(one.source)})" for one in rewrites))] if rewrites else []
    yield from _table(rows, indent)


def _way_lines(part: Part, own: Sequence[str], indent: str, limit: int = LINES) -> Iterator[str]:
    """Draw the ways, unless they lead through layers alone, which are named already."""
    if part.group and any(step.op for partner in part.partners for step in partner.chain):
        yield f"{indent}the ways"
        yield from tree_lines(part.partners, own, f"{indent}  ", limit)


def _table(rows: Iterable[tuple[str, str]], indent: str) -> Iterator[str]:
    for words, text in rows:
        yield from paragraph(f"{words:<15}{text}", indent, f"{indent}{'':15}")


def _obstacle_lines(obstacles: Sequence[Obstacle], indent: str) -> Iterator[str]:
    for obstacle in obstacles[:NAMES]:
        reason = obstacle.reason
        where = f" ({place(reason.source)})" if reason.source else ""
        yield from paragraph(f"Why: {reason.text}{where}.", indent)
        if len(obstacle.chain) > 1:
            yield from paragraph(f"Way: {' → '.join(_step(step) for step in obstacle.chain)}", indent)
    if len(obstacles) > NAMES:
        yield f"{indent}and {len(obstacles) - NAMES} more reasons"
    yield from _remedy_lines(obstacles, indent)


def _remedy_lines(obstacles: Sequence[Obstacle], indent: str) -> Iterator[str]:
    remedies = list(dict.fromkeys(obstacle.remedy for obstacle in obstacles))
    hopeless = [remedy for remedy in remedies if remedy.startswith("Nothing")]  # no other helps then
    for remedy in hopeless[:1] or remedies[:NAMES]:
        yield from paragraph(f"Remedy: {remedy}", indent)


def _conditions(parts: Sequence[Part]) -> list[str]:
    """Write the conditions on some parts, for each place in the code the one that says most."""
    most: dict[Reason, Condition] = {}
    for condition in (condition for part in parts for condition in part.conditions):
        known = most.get(condition.reason)
        if known is None or len(condition.sides) > len(known.sides):
            most[condition.reason] = condition
    return [_condition(condition) for condition in most.values()]


def _condition(condition: Condition) -> str:
    why = f"{condition.reason.text} ({place(condition.reason.source)})"
    sides = [listed(side, 4) for side in condition.sides]
    layers = [name.removeprefix("part of ") for side in condition.sides for name in side]
    if len(sides) == 1:
        return f"as many stay in {sides[0]}: {why}"
    if len(set(layers)) < len(layers):
        return f"as many stay on one side of {listed(dict.fromkeys(layers))} as on the other: {why}"
    if len(sides) > 3 and all(len(side) == 1 for side in condition.sides):
        sides = [sides[0], f"each of {listed(sides[1:], 4)}"]
    shown = sides if len(sides) <= 4 else [*sides[:3], f"each of {len(sides) - 3} more"]
    return f"as many stay of {' as of '.join(shown)}: {why}"


# -- trees of ways ---------------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """A station, with where the ways lead from there."""

    name: str
    ends: dict[str, None] = field(default_factory=dict)  # "input", "output": ways that end here
    following: dict[Step, _Node] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return " ".join([self.name, " and ".join(self.ends)]).strip()

    @property
    def depth(self) -> int:
        return 1 + max((node.depth for node in self.following.values()), default=0)


def tree_lines(partners: Sequence[Partner], own: Sequence[str], indent: str = "", limit: int = LINES) -> Iterator[str]:
    """Draw the ways to all partners as a tree; a way without a fork is one line. `own`: names of where they begin."""
    root = _Node(own[0] or ITSELF)
    for partner in partners:
        node = root
        for step in _onward(partner.chain, own):
            node = node.following.setdefault(step, _Node(_step(step)))
        if node is not root and partner.role in ENDS:
            node.ends[ENDS[partner.role]] = None
    drawn = 0
    branches = list(_branches(root, indent, indent))
    for number, lines in enumerate(branches):
        if drawn + len(lines) > limit and number < len(branches) - 1:
            yield f"{indent}and {len(branches) - number} more"
            return
        yield from lines
        drawn += len(lines)


def _onward(chain: Sequence[Step], own: Sequence[str]) -> Sequence[Step]:
    """Return a way without its beginning in the layer itself."""
    inside = [number for number, step in enumerate(chain) if not step.op and step.module in own]
    return chain[inside[0] + 1 :] if inside else chain


def _branches(node: _Node, first: str, rest: str) -> Iterator[list[str]]:
    """Yield the lines of every stretch without a fork."""
    labels = [node.label]
    while len(node.following) == 1 and not node.ends:
        (node,) = node.following.values()
        labels.append(node.label)
    yield paragraph(" → ".join(labels), first, f"{rest}    ")
    nodes = sorted(node.following.values(), key=lambda following: following.depth)
    for number, following in enumerate(nodes):
        last = number == len(nodes) - 1
        yield from _branches(following, f"{rest}{'└─' if last else '├─'} ", f"{rest}{'  ' if last else '│ '} ")


# -- words -----------------------------------------------------------------------------------------------------------


def paragraph(text: str, first: str = "", rest: str | None = None) -> list[str]:
    """Break a text into lines of at most `WIDTH` characters."""
    following = f"{first}  " if rest is None else rest
    return wrap(text, WIDTH, initial_indent=first, subsequent_indent=following, break_on_hyphens=False)


def listed(names: Iterable[str], limit: int = NAMES, plain: int = 4) -> str:
    """Write names in a row: alike ones as one if there are more than `plain`, and of many the first `limit`."""
    every = list(dict.fromkeys(name or ITSELF for name in names))
    shown = every if len(every) <= plain else folded(every)
    return ", ".join(shown[:limit]) + others(len(shown) - limit)


def folded(names: Sequence[str]) -> list[str]:
    """Write names that differ in one number alone as one.

    Example:
        >>> folded(["layer1.0.conv3", "layer1.1.conv3", "layer1.2.conv3", "fc"])
        ['layer1.{0-2}.conv3', 'fc']
    """
    parts = [re.split(r"(\d+)", name) for name in names]  # texts and numbers in turns
    ways = [_alike(parts, at) for at in range(1, max(map(len, parts)), 2)]
    best = min(ways, key=len, default={tuple(part): [] for part in parts})
    return ["".join(_numbers(numbers) if part is None else part for part in key) for key, numbers in best.items()]


def _alike(names: Sequence[list[str]], at: int) -> dict[tuple[str | None, ...], list[str]]:
    """Gather names by all of their parts but one number, in whose place stands None."""
    found: dict[tuple[str | None, ...], list[str]] = {}
    for parts in names:
        key = (*parts[:at], None, *parts[at + 1 :]) if at < len(parts) else tuple(parts)
        found.setdefault(key, []).extend(parts[at : at + 1])
    return found


def _numbers(numbers: Sequence[str]) -> str:
    return f"{{{_range(sorted(map(int, numbers)))}}}" if len(numbers) > 1 else numbers[0]


def others(count: int) -> str:
    """Say how many more there are, if any."""
    return f" and {count} more" if count > 0 else ""


def place(source: str) -> str:
    """Write a place in the code as the file's name and the line."""
    return Path(source).name


def joints(steps: Sequence[Step]) -> list[str]:
    """Write operations, those of one line of code together."""
    modules: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        modules.setdefault((step.op, step.source), []).append(step.module)
    return [
        _at(op, listed(names, 4, plain=2) if any(names) else "", source) if op else listed(names, 4, plain=2)
        for (op, source), names in modules.items()
    ]


def _step(step: Step) -> str:
    return _at(step.op, step.module, step.source) if step.op else step.module or ITSELF


def _at(op: str, module: str, source: str) -> str:
    inside = f" in {module}" if module else ""
    return f"{op.strip('_')}{inside} ({place(source)})"


def _range(channels: Sequence[int]) -> str:
    """Write ascending numbers as ranges, or as a row with equal steps."""
    steps = {after - before for before, after in pairwise(channels)}
    if len(steps) == 1 and steps != {1} and len(channels) > 3:
        return f"{channels[0]}, {channels[1]}, ... {channels[-1]}"
    runs: list[list[int]] = []
    for channel in channels:
        if runs and channel == runs[-1][1] + 1:
            runs[-1][1] = channel
        else:
            runs.append([channel, channel])
    return listed((str(a) if a == b else f"{a}-{b}" for a, b in runs), 4)
