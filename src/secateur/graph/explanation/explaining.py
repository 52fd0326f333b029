"""`explain`: with what a layer's channels are coupled and through which operations, or why they stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secateur.errors import ExplainError, nearest
from secateur.graph.atoms import Place
from secateur.graph.coupling import MEASURED, couple
from secateur.graph.explanation.conditions import Condition, Rewrite, conditions_of, rewrites_of
from secateur.graph.explanation.histories import Archive, History, Partner, Paths, Role, Step
from secateur.graph.explanation.remedies import remedy
from secateur.graph.explanation.witnessing import Finding, Occurrence, Witness
from secateur.graph.groups import Graph, Indices, Layer, Protected, Reason
from secateur.graph.provenance import Expression, attributes_in, extents_in
from secateur.graph.recording import Scaling
from secateur.graph.running import MEET_DATA
from secateur.graph.tracing import recorded

FOLLOWS = "whose channels stay"

_Fate = tuple[int, Reason | None, bytes]  # the group's number or -1, else why, and which other axes


@dataclass(frozen=True)
class Obstacle:
    """Why channels stay: the operation that wants it, the way there, and what would free them."""

    reason: Reason
    remedy: str
    chain: tuple[Step, ...] = ()  # from the layer to the operation, which is the last


@dataclass(frozen=True, eq=False)
class Part:
    """Channels of a layer that share a fate: one group's, or those that stay for the same reasons."""

    channels: Indices
    units: int  # how many of them can go one by one; the others go with these
    group: str  # the group's name; empty: they stay
    partners: tuple[Partner, ...]
    joints: tuple[Step, ...] = ()  # where the channels come together from several sides
    obstacles: tuple[Obstacle, ...] = ()
    conditions: tuple[Condition, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    statistics: tuple[Step, ...] = ()  # operations that take a statistic across these channels
    rescaled: tuple[str, ...] = ()  # tensors that are multiplied so that a factor such as 1 / sqrt(channels) stays


@dataclass(frozen=True)
class Side:
    """One dimension of a layer: its output channels, its input channels, or both where they are the same."""

    roles: tuple[Role, ...]
    places: tuple[Place, ...]  # the tensors' axes
    size: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Explanation:
    """What `Graph.explain` tells; as a string it is a text for people."""

    layer: Layer
    ran: bool
    shared: tuple[str, ...]  # names, in other layers, of tensors that this layer shares
    single: tuple[Role, ...]  # "written", "read": there is but one such channel, and that stays
    sides: tuple[Side, ...]

    def __str__(self) -> str:
        from secateur.graph.explanation.wording import text_of

        return text_of(self)


def explain(graph: Graph, name: str) -> Explanation:
    """Tell with what a layer's channels are coupled, or why they stay; see `Graph.explain`."""
    layer = find_layer(graph, name)
    return Explainer(graph).layer(layer)


class Explainer:
    """A graph, and its model's code run once more with a witness."""

    def __init__(self, graph: Graph) -> None:
        if graph.model is None or graph.coupling is None:
            raise ExplainError("This graph was not made by trace, so there is no code to look at. Trace the model.")
        self.graph, self.coupling, self.model = graph, graph.coupling, graph.model
        witness = Witness(graph.model, on_data=graph.on_data, heads=graph.heads)
        self.witness = recorded(witness, graph.model, graph.example, graph.free_outputs)
        self.seen = couple(self.witness)
        self.archive = Archive(self.witness, graph.tensors, self.seen.unit_of)

    def group(self, number: int) -> Part:
        """Explain a group, by number, as seen from the first layer that writes it."""
        member = self.graph.groups[number].members[0]
        return self._part((number, None, b""), member.indices.ravel().tolist(), [(member.tensor, member.axis)])

    def stay(self, entry: Protected) -> tuple[tuple[Role, ...], tuple[Obstacle, ...]]:
        """Explain channels that stay: their side of the layer, and why."""
        place: Place = (entry.tensor, entry.axis)
        first = int(entry.indices[0])
        unit = self.coupling.unit_of[self.coupling.atoms.known(*place)[first]]
        part = self._part((-1, self.coupling.reasons.get(int(unit)), b""), [first], [place])
        return self._roles(find_layer(self.graph, entry.tensor), [place], [part]), part.obstacles

    def layer(self, layer: Layer) -> Explanation:
        """Explain a layer."""
        tensors = _tensors_of(self.graph, layer)
        others = (name for tensor in tensors for name in self.graph.tensors[tensor].aliases)
        own = set(layer.aliases) | {layer.name}
        shared = tuple(name for name in others if name.rpartition(".")[0] not in own)
        sides = tuple(self._sides(layer, tensors))
        ran = layer.name not in self.graph.unreached
        return Explanation(layer, ran, shared, self._single(tensors, sides), sides)

    def _single(self, tensors: Sequence[str], sides: Sequence[Side]) -> tuple[Role, ...]:
        known = {role for side in sides for role in side.roles}
        shapes = [self.graph.tensors[tensor].shape for tensor in tensors]
        missing: dict[Role, Role] = {"written": "read", "read": "written"}
        if not any(len(shape) > 1 and 1 in shape[:2] for shape in shapes):
            return ()
        return tuple(role for role, other in missing.items() if other in known and role not in known)

    def _sides(self, layer: Layer, tensors: Sequence[str]) -> Iterator[Side]:
        alike: dict[bytes, list[Place]] = {}
        for tensor, axis in self.coupling.atoms.axes:
            if tensor in tensors:
                units = self.coupling.unit_of[self.coupling.atoms.known(tensor, axis)]
                alike.setdefault(units.tobytes(), []).append((tensor, axis))
        for places in alike.values():
            parts = tuple(self._part(key, channels, places) for key, channels in self._fates(places[0]).items())
            if parts:
                size = sum(part.channels.size for part in parts)
                yield Side(self._roles(layer, places, parts), tuple(places), size, parts)

    def _fates(self, place: Place) -> dict[_Fate, list[int]]:
        """Sort the channels along an axis by what becomes of them; empty for a kernel's extents, which are none."""
        found: dict[_Fate, list[int]] = {}
        units = self.coupling.unit_of[self.coupling.atoms.known(*place)]
        for channel, unit in enumerate(units.tolist()):
            family, reason = int(self.coupling.family_of[unit]), self.coupling.reasons.get(unit)
            if family >= 0:
                found.setdefault((family, None, b""), []).append(channel)
            elif reason is not None:
                found.setdefault((-1, reason, self.coupling.marks[unit].tobytes()), []).append(channel)
        return found

    def _part(self, fate: _Fate, members: Sequence[int], places: Sequence[Place]) -> Part:
        number, channels = fate[0], np.array(members)
        units = len(np.unique(self.coupling.unit_of[self.coupling.atoms.known(*places[0])[channels]]))
        name = self.graph.groups[number].name if number >= 0 else ""
        unit = self._unit_at(places[0], int(channels[0]))
        if unit is None:  # the code went another way this time
            return Part(channels, units, name, ())
        history = self.archive.history(unit)
        paths = history.paths(self.archive.number_of[place] for place in places if place in self.archive.number_of)
        if number < 0:
            return Part(channels, units, "", paths.partners(), obstacles=self._obstacles(unit, paths, fate[1]))
        return Part(
            channels,
            units,
            name,
            paths.partners(),
            history.joints,
            (),
            conditions_of(self.graph, number),
            rewrites_of(self.coupling, self.model, number),
            self._statistics(unit, history),
            self._rescaled(number),
        )

    def _unit_at(self, place: Place, channel: int) -> int | None:
        known = place in self.witness.atoms
        return int(self.seen.unit_of[self.witness.atoms.known(*place)[channel]]) if known else None

    def _roles(self, layer: Layer, places: Sequence[Place], parts: Sequence[Part]) -> tuple[Role, ...]:
        unit = self._unit_at(places[0], int(parts[0].channels[0]))
        if unit is None:
            return ()
        numbers = {self.archive.number_of.get(place) for place in places}
        names = {layer.name, *layer.aliases}
        seen: list[tuple[Role, bool]] = [
            (role, self.witness.occurrences[station // 2].module in names)
            for station, atom, role in self.archive.history(unit).roles
            if int(self.archive.axis_of[atom]) in numbers
        ]
        roles: list[Role] = [role for role, here in seen if here] or [role for role, _ in seen]
        return tuple(dict.fromkeys(roles))

    def _statistics(self, unit: int, history: History) -> tuple[Step, ...]:
        found = [finding for finding in self.archive.findings(unit) if finding.kind == "statistics"]
        steps = [history.step(2 * finding.occurrence) for finding in found if finding.occurrence >= 0]
        return tuple(step for step in dict.fromkeys(steps) if step is not None)

    def _rescaled(self, number: int) -> tuple[str, ...]:
        atoms = [scaling.atoms for scaling in self.coupling.scalings if self._concerns(scaling, number)]
        places = [place for own in atoms for place in self.coupling.atoms.places(own)]
        return tuple(dict.fromkeys(tensor for tensor, _ in places))

    def _concerns(self, scaling: Scaling, number: int) -> bool:
        labels = [scaling.atoms, *(extent.labels for extent in extents_in(scaling.size))]
        return self._may_change(scaling.size) and any((self.coupling.families(own) == number).any() for own in labels)

    def _may_change(self, size: Expression) -> bool:
        coupling, attributes = self.coupling, set(attributes_in(size))
        given = [use.extent for use in coupling.uses if not attributes.isdisjoint(attributes_in(use.expression))]
        extents = [*extents_in(size), *given]
        return any((coupling.families(coupling.narrowed(extent)) >= 0).any() for extent in extents)

    # -- obstacles ---------------------------------------------------------------------------------------------------

    def _obstacles(self, unit: int, paths: Paths, first: Reason | None) -> tuple[Obstacle, ...]:
        found: dict[tuple[str, str], Obstacle] = {}
        findings = self.archive.findings(unit)
        for finding in findings:
            if finding.kind == "fixed" or (finding.kind == "pinned" and finding.reason == first):
                obstacle = self._obstacle(finding, paths)
                follows = obstacle.reason.text.endswith(FOLLOWS) and bool(found)
                if not follows:
                    found.setdefault((obstacle.reason.text, obstacle.reason.source), obstacle)
        if not found and first is not None:
            reason = self._measured(findings) if first == MEASURED else first
            found["", ""] = Obstacle(reason, remedy(reason.text))
        return tuple(found.values())

    def _obstacle(self, finding: Finding, paths: Paths) -> Obstacle:
        at = paths.history.last_with(finding)
        reason = finding.reason
        if reason.text == MEET_DATA and at is not None:
            reason = replace(reason, text=self._data_met(self.witness.occurrences[at]))
        chain = paths.to_operation(at) if at is not None else ()
        return Obstacle(reason, remedy(reason.text), chain)

    def _measured(self, findings: Sequence[Finding]) -> Reason:
        """Say which attribute is used as a number, and where."""
        sizes = {attribute for finding in findings for attribute in finding.attributes}
        for finding in self.witness.findings:
            both = [attribute for attribute in finding.attributes if finding.kind == "number" and attribute in sizes]
            if both:
                return replace(finding.reason, text=f"{both[0]} gives their number and is used as a number, too")
        return MEASURED

    def _data_met(self, occurrence: Occurrence) -> str:
        """Say what the values without channels are that an operation brings together with channels."""
        bare = [operand for operand in occurrence.operands if not operand.atoms.size and operand.kind != "parameter"]
        makers = [self.witness.occurrences[operand.maker] for operand in occurrence.operands if operand.maker >= 0]
        if not bare:  # they stand beside channels, in a tensor that was put together before
            joined = [maker for maker in makers if "cat" in maker.op or not maker.speaks]
            return self._data_met(joined[0]) if joined else "they meet positions that are no channels"
        if any(operand.kind == "input" for operand in bare):
            return "they meet the model's input, whose channels are the caller's"
        if all(operand.kind == "constant" for operand in bare):
            return "they meet a tensor that is no parameter or buffer of the model"
        maker = self.witness.occurrences[next(operand.maker for operand in bare if operand.maker >= 0)]
        if not any(one.atoms.size for one in maker.operands):
            return self._data_met(maker)
        stay = any(finding.occurrence == maker.number and finding.kind == "fixed" for finding in self.witness.findings)
        place = maker.source.rpartition("/")[2]
        return f"they meet what {maker.op} makes ({place}), {FOLLOWS if stay else 'which has no channels to cut'}"


# -- names -------------------------------------------------------------------------------------------------------------


def find_layer(graph: Graph, name: str) -> Layer:
    """Return the layer of a name: of the layer itself, under any alias, or of one of its tensors.

    Raises:
        ExplainError: there is no such layer, or it has no weights; offers names.
    """
    holders = {alias.rpartition(".")[0] for info in graph.tensors.values() for alias in info.aliases}
    layers = {alias: layer for layer in graph.layers for alias in (layer.name, *layer.aliases)}
    is_tensor = any(name in info.aliases for info in graph.tensors.values())
    wanted = name.rpartition(".")[0] if is_tensor and name not in holders else name
    if wanted not in holders and wanted not in layers:
        raise ExplainError(_no_such_layer(graph, name, holders | set(layers)))
    if wanted in layers:
        return layers[wanted]
    return Layer(wanted, _type_of(graph, wanted), ())


def _no_such_layer(graph: Graph, name: str, known: set[str]) -> str:
    modules = dict(graph.model.named_modules(remove_duplicate=False)) if graph.model is not None else {}
    if name not in modules or not name:
        return f"No layer with parameters is called {name!r}.{nearest(name, known)}"
    inner = [path for path in modules if path.startswith(f"{name}.") and path in known]
    if inner:
        shown = ", ".join(inner[:6]) + (f" and {len(inner) - 6} more" if len(inner) > 6 else "")
        return f"{name} has no weights of its own, but holds layers that do. Ask about one of them: {shown}."
    order = list(modules)
    before = [path for path in order[: order.index(name)] if path in known]
    return (
        f"{name} ({type(modules[name]).__name__}) has no weights, so no channels of its own: it passes on what it is "
        f"given.{f' Ask about {before[-1]}, which stands before it.' if before else ''}"
    )


def _type_of(graph: Graph, name: str) -> str:
    return type(graph.model.get_submodule(name)).__name__ if graph.model is not None else ""


def _tensors_of(graph: Graph, layer: Layer) -> list[str]:
    """Return the tensors that a layer holds under any name, by first name."""
    names = {layer.name, *layer.aliases}
    return [
        tensor
        for tensor, info in graph.tensors.items()
        if any(alias.rpartition(".")[0] in names for alias in info.aliases)
    ]
