"""Where the time of a network goes, by layer: what a runtime tells of its operations, put to the model's modules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from secateur.errors import MeasurementError, SecateurError
from secateur.graph.tracing import trace
from secateur.measurement import memory
from secateur.measurement.child import DeadError, running_child
from secateur.measurement.worker import Job
from secateur.runtimes.network import Network
from secateur.runtimes.paths import module_of
from secateur.runtimes.registry import RUNTIMES, check_able, runtime_of
from secateur.runtimes.session import NodeTime, Options
from secateur.runtimes.shapes import Sizes

MOST_TOLD = 5
REST = "between layers"  # what a runtime puts in of its own, such as changes of layout


@dataclass(frozen=True)
class LayerTime:
    """What a row of a profile takes.

    Attributes:
        layer: the module that the runtime names.
        kinds: of its operations, as the runtime calls them.
        milliseconds: what it takes by itself.
        members: the layers whose work is in it, with their MACs: the module itself, those in it, or one that the
            runtime fused into it.
    """

    layer: str
    kinds: tuple[str, ...]
    milliseconds: float
    members: Mapping[str, float]

    @property
    def macs(self) -> float:
        """Of all members."""
        return sum(self.members.values())


@dataclass(frozen=True)
class Profile:
    """Where the time of a network goes.

    Attributes:
        network: its name.
        layers: in the order in which they run; the network's own operations under the module whose code they are in.
        kinds: milliseconds by kind of operation, as the runtime calls them, the largest first.
    """

    network: str
    layers: tuple[LayerTime, ...]
    kinds: Mapping[str, float]

    @cached_property
    def milliseconds(self) -> float:
        """Of all layers."""
        return sum(layer.milliseconds for layer in self.layers)

    def __str__(self) -> str:
        """Say what most of the time goes into: "Convolution 69 %, Interpolate 9 %; features.0 12 %, features.1 9 %"."""
        longest = sorted(((one.layer, one.milliseconds) for one in self.layers), key=lambda one: -one[1])
        return "; ".join(
            ", ".join(f"{name} {taken / self.milliseconds:.0%}" for name, taken in list(parts)[:MOST_TOLD])
            for parts in (self.kinds.items(), longest)
        )


def profile(network: Network, runtime: str, options: Options, sizes: Sizes) -> Profile:
    """Run a network in a process of its own, and tell what each of its layers takes.

    The runtime's own clock slows it down a little: shares are to be trusted more than sums.

    Raises:
        MeasurementError: the runtime does not tell, or does not run the network.
        RuntimeUnfitError: there is no such runtime, or it lacks the device or the precision.
    """
    check_able(runtime, options)
    if runtime_of(runtime).profile is None:
        able = ", ".join(name for name, one in RUNTIMES.items() if one.profile is not None)
        raise MeasurementError(f"{runtime} does not tell what its layers take. These do: {able}.")
    with running_child(Job(runtime, options, sizes, memory.allowance())) as child:
        try:
            word, *said = child.ask("profile", network.packed(runtime_of(runtime).source))
        except DeadError as error:
            raise MeasurementError(f"{network.name} cannot be profiled in {runtime}: {error}") from error
    if word == "failed":
        raise MeasurementError(f"{network.name} cannot be profiled in {runtime}: {said[1]}")
    return _by_layer(network, said[0], _macs(network, sizes))


def times_of(found: Profile) -> dict[str, float]:
    """Return the milliseconds of each layer that computes, with its part of what is done around it.

    The layers of a row share its time by their MACs. A norm, a resizing or a concatenation is added to the layers of
    the nearest module around it; what the runtime does between layers is left out.
    """
    rows = {row.layer: row for row in found.layers if row.macs and row.layer != REST}
    taken = {name: row.milliseconds for name, row in rows.items()}
    for row in found.layers:
        if row.layer not in rows and row.layer != REST:
            near = _near(row.layer, rows)
            weights = [one.milliseconds for one in near]
            if not sum(weights):
                weights = [one.macs for one in near]
            for one, weight in zip(near, weights, strict=True):
                taken[one.layer] += row.milliseconds * weight / sum(weights)
    times: dict[str, float] = {}
    for name, row in rows.items():
        for layer, macs in row.members.items():
            times[layer] = times.get(layer, 0.0) + taken[name] * macs / row.macs
    return times


def _near(name: str, rows: Mapping[str, LayerTime]) -> list[LayerTime]:
    """Return the rows of the nearest module around a name that has any: all of them, if it is the model itself."""
    while name:
        near = [row for layer, row in rows.items() if layer == name or layer.startswith(f"{name}.")]
        if near:
            return near
        name = name.rpartition(".")[0]
    return list(rows.values())


def _by_layer(network: Network, nodes: Sequence[NodeTime], macs: Mapping[str, float]) -> Profile:
    model = None if network.form is None else network.form.model
    layers: dict[str, list[NodeTime]] = {}
    kinds: dict[str, float] = {}
    for node in nodes:
        layers.setdefault(module_of(node.path, model) or REST, []).append(node)
        kinds[node.kind] = kinds.get(node.kind, 0.0) + node.milliseconds
    order = [] if model is None else [name for name, _ in model.named_modules()]
    members: dict[str, dict[str, float]] = {}
    for layer, count in macs.items():
        members.setdefault(_row_of(layer, layers, order), {})[layer] = count
    return Profile(
        network.name,
        tuple(
            LayerTime(name, _once(nodes), sum(one.milliseconds for one in nodes), members.get(name, {}))
            for name, nodes in layers.items()
        ),
        dict(sorted(kinds.items(), key=lambda kind: -kind[1])),
    )


def _row_of(layer: str, rows: Collection[str], order: Sequence[str]) -> str:
    """Return the row that a layer's MACs belong to: its own, or that of a module around it.

    Else the layer is fused into one that stands after it in the same module, whose name the runtime gives to both.
    """
    around = [name for name in rows if layer == name or layer.startswith(f"{name}.")]
    parent = layer.rpartition(".")[0]
    after = [name for name in order[order.index(layer) + 1 :] if name in rows] if layer in order else []
    if parent not in around and layer not in around and after and after[0].rpartition(".")[0] == parent:
        return after[0]
    return max(around, key=len, default=REST)


def _once(nodes: Sequence[NodeTime]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.kind for node in nodes))


def _macs(network: Network, sizes: Sizes) -> dict[str, float]:
    """Return the MACs of each layer of a model; nothing where it cannot be traced, or there is only a file."""
    if network.form is None:
        return {}
    try:
        costs = trace(network.form, network.inputs(sizes)).costs
    except SecateurError:
        return {}
    found: dict[str, float] = {}
    for cost in costs.by_layer():
        if cost.macs:
            name = cost.layer.removeprefix("model.")
            found[name] = found.get(name, 0.0) + cost.macs
    return found
