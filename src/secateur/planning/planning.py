"""`plan`: from a graph, weights and a budget to what is kept of every tensor."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Graph
from secateur.planning.allocation import Allocation, ByImportance, Path, SameShare, by_caps, by_ratio
from secateur.planning.budgets import Cap, counted, read_cap, read_ratio, shown
from secateur.planning.configuration import Configuration, read_configuration, rules_of
from secateur.planning.criteria import check_criterion, importances, normalised
from secateur.planning.names import layers_at_fault
from secateur.planning.outputs import Outputs, axis_length, floors, kinds_of, outputs_of, producing_axes
from secateur.planning.plans import Plan, assemble, fingerprint_of
from secateur.planning.scope import Scope, Total, scope_of
from secateur.planning.widths import Widths, widths_of

_RANKINGS = ("group", "global")
_THIN = 0.1  # of its width: a stem or residual stream below this is worth a warning

# What widths of shuffled channels are changed by, until some choice of channels fits them; a cap is never exceeded.
_NEARBY = (0.02, -0.02, 0.05, -0.05, 0.1, -0.1, 0.15, 0.2)
_NARROWER = (-0.02, -0.05, -0.1, -0.15, -0.2)

_log = logging.getLogger("secateur")


def plan(  # noqa: PLR0913
    graph: Graph,
    model: nn.Module,
    ratio: float | None = None,
    macs: float | str | None = None,
    params: float | str | None = None,
    criterion: str = "l1",
    scores: Mapping[str, Any] | None = None,
    config: Configuration | None = None,
    ranking: str = "group",
    round_to: int | None = None,
    min_channels: int = 8,
    max_ratio: float | None = None,
    ignore: Iterable[str | nn.Module] = (),
    seed: int = 0,
) -> Plan:
    """Decide which channels of a model go.

    Channels that the code cannot do with at any number but the full one are left whole, and that is logged. The budget
    is one of `ratio`, `macs` and/or `params`, or a `config` with sparsities.

    Args:
        graph: of this model, by `secateur.trace`.
        model: whose weights are judged; it is not changed.
        ratio: share of its units that every group loses, rounded down; with `ranking="global"` the share that
            all groups together lose.
        macs: cap on the multiply-accumulates of the traced calls: a number, `"41.54M"`, or `"0.24x"` of the model's.
        params: cap on the parameters, likewise. Two caps hold together.
        criterion: how units are judged: `"l1"`, `"l2"`, `"lp:3"`, `"random"`.
        scores: importances of your own, one number per output channel, by layer or tensor; others use `criterion`.
        config: a list of entries in the form of NNI 2.x, such as `[{"sparsity": 0.8, "op_types": ["Conv2d"]}]`, as
            YAML or JSON text, or the path of such a file. Without sparsities it only says what may be cut.
        ranking: `"group"`: under a cap every group loses the same share of what it has above its floor; `"global"`:
            units of all groups compete by importance, each group's scaled to a mean of one.
        round_to: the channels of a layer stay a multiple of this, or all of them.
        min_channels: the channels that a layer keeps at least (all, if it has fewer).
        max_ratio: the share of its units that a group loses at most.
        ignore: layers whose output channels stay: names, modules, prefixes, patterns with `*`, types.
        seed: of `criterion="random"`.

    Raises:
        PlanError: the budget, a name or a value makes no sense, or the budget is below the smallest reachable.

    Example:
        >>> from secateur.graph.tracing import trace
        >>> model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
        >>> half = plan(trace(model, torch.zeros(1, 3, 9, 9)), model, ratio=0.5)
        >>> half.shape_after("0.weight"), half.shape_after("2.weight")
        ((16, 3, 3, 3), (4, 16, 3, 3))
    """
    _check_options(ranking, round_to, min_channels, seed)
    check_criterion(criterion)
    check_model(graph, model)
    words = _names_of_ignored(model, ignore)
    entries = read_configuration(config) if config is not None else []
    kinds = kinds_of(graph, model)
    outputs = outputs_of(graph, kinds)
    scope = scope_of(graph, outputs, kinds, rules_of(entries), words)
    _check_budget(ratio, macs, params, scope)

    least = _floors(graph, outputs, scope, min_channels, max_ratio)
    importance = importances(graph, outputs, _tensors_of(model), criterion, scores, seed)
    request = _Request(graph, outputs, scope, least, importance, ranking, round_to)
    parts = _allocations(request, ratio, macs, params)
    changes = _NARROWER if macs is not None or params is not None else _NEARBY
    kept = np.minimum.reduce([part.kept for part in parts])
    kept = _harmonized(graph, request.widths(scope.cuttable), kept, changes)
    _warn(graph, outputs, kept, scope.cuttable)
    recipe = {
        "criterion": criterion if scores is None else f"scores, else {criterion}",
        "ranking": ranking,
        "seed": seed,
        "budget": _said(ratio=ratio, macs=macs, params=params, config=entries or None),
        "limits": _said(round_to=round_to, min_channels=min_channels, max_ratio=max_ratio, ignore=words or None),
        **_outcome(parts),
    }
    try:
        return assemble(graph, _most_important(importance, kept), recipe)
    except PlanError as error:
        culprits = layers_at_fault(graph, error.tensors, words)
        if not culprits:
            raise
        _log.warning("%s They are left whole: %s.", error, ", ".join(culprits))
    options = {"criterion": criterion, "scores": scores, "config": config, "ranking": ranking, "round_to": round_to}
    limits = {"min_channels": min_channels, "max_ratio": max_ratio, "ignore": [*words, *culprits], "seed": seed}
    return plan(graph, model, ratio=ratio, macs=macs, params=params, **options, **limits)


def check_model(graph: Graph, model: nn.Module) -> None:
    """Check that a graph was traced from this model, or from one with the same names and shapes.

    Raises:
        PlanError: it was not; names the first tensor that differs.
    """
    tensors = _tensors_of(model)
    for name, shape in fingerprint_of(graph).items():
        has = "no such tensor" if name not in tensors else f"shape {tuple(tensors[name].shape)}"
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise PlanError(
                f"The graph was traced from another model: {name} has shape {shape} there, and this model has {has}. "
                "Trace this model, or pass the one that was traced."
            )
    known = fingerprint_of(graph)
    for name, _ in model.named_parameters(remove_duplicate=False):
        if name not in known:
            raise PlanError(
                f"The graph was traced from another model: this one has {name}, and that one had not. "
                "Trace this model, or pass the one that was traced."
            )


@dataclass(frozen=True, eq=False)
class _Request:
    graph: Graph
    outputs: Outputs
    scope: Scope
    floors: np.ndarray
    importances: Sequence[np.ndarray]
    ranking: str
    round_to: int | None

    def widths(self, cuttable: np.ndarray) -> Widths:
        return widths_of(self.graph, self.outputs, cuttable, self.scope.excluded, self.floors, self.round_to)

    def path(self, widths: Widths, ranking: str) -> Path:
        if ranking == "group":
            return SameShare(widths)
        return ByImportance(widths, [normalised(importance) for importance in self.importances])


def _allocations(request: _Request, ratio: Any, macs: Any, params: Any) -> list[Allocation]:
    """Return one allocation for each part of the budget; each leaves whole what is not its own."""
    scope = request.scope
    if macs is not None or params is not None:
        widths = request.widths(scope.cuttable)
        return [by_caps(widths, _caps(request.graph, macs, params), request.path(widths, request.ranking))]
    if ratio is not None:
        return [_ratio_of_all(request, read_ratio(ratio))]
    own = scope.cuttable & np.isfinite(scope.ratios)
    parts = [by_ratio(request.widths(own), np.where(own, scope.ratios, np.nan))] if own.any() else []
    return parts + [_total(request, total) for total in scope.totals if total.groups.any() and total.share > 0]


def _ratio_of_all(request: _Request, ratio: float) -> Allocation:
    cuttable = request.scope.cuttable
    widths = request.widths(cuttable)
    if request.ranking == "group":
        return by_ratio(widths, np.where(cuttable, ratio, np.nan))
    return _capped_share(request, widths, cuttable.astype(np.float64), ratio, "units")


def _total(request: _Request, total: Total) -> Allocation:
    """Return the allocation in which units of some groups compete, until a share of their weights is gone."""
    widths = request.widths(total.groups)
    weights = np.where(total.groups, _elements_per_unit(request.graph, request.outputs), 0.0)
    return _capped_share(request, widths, weights, total.share, "weights")


def _capped_share(request: _Request, widths: Widths, weights: np.ndarray, share: float, name: str) -> Allocation:
    full = float(weights @ widths.of_groups(widths.sizes))
    smallest = float(weights @ widths.of_groups(widths.settle(widths.lowest.astype(np.float64))))
    # A share asked of the channels yields to the floors, as the ratio of a single group does.
    cap = Cap(name, max(full * (1 - share), smallest), lambda kept: float(weights @ kept))
    if not cap.limit:
        return Allocation(widths.of_groups(widths.sizes))
    return by_caps(widths, [cap], request.path(widths, "global"))


def _caps(graph: Graph, macs: Any, params: Any) -> list[Cap]:
    full = np.array([group.size for group in graph.groups], dtype=np.int64)
    costs = {"macs": counted(graph.costs, "macs"), "params": counted(graph.costs, "params")}
    given = {name: value for name, value in (("macs", macs), ("params", params)) if value is not None}
    caps = [Cap(name, read_cap(value, costs[name](full), name), costs[name]) for name, value in given.items()]
    if all(cap.fill(full) <= 1 for cap in caps):
        has = " and ".join(f"{cap.name}={shown(cap.cost(full))}" for cap in caps)
        raise PlanError(
            f'The model has {has}, which is within the budget already. Ask for less, such as {caps[0].name}="0.5x".'
        )
    return caps


def _harmonized(graph: Graph, widths: Widths, kept: np.ndarray, changes: Sequence[float]) -> np.ndarray:
    """Return the numbers that the model's code has at these widths (see `Graph.harmonize`), or at widths near them."""
    tied = [variable for cluster in widths.clusters for variable in cluster.variables]
    first = np.unique(widths.variable_of, return_index=True)[1]
    for change in (0.0, *changes):
        wanted = kept[first].astype(np.float64)
        wanted[tied] *= 1 + change
        nearby = widths.of_groups(widths.settle(wanted)) if change else kept
        found = graph.harmonize(nearby.tolist())
        if found is not None:
            return np.array(found, dtype=np.int64)
    return kept


def _elements_per_unit(graph: Graph, outputs: Outputs) -> np.ndarray:
    elements = np.zeros(len(graph.groups))
    for number, members in enumerate(outputs.producers):
        for member in members:
            info = graph.tensors[member.tensor]
            elements[number] += np.prod(info.shape) / axis_length(info, member.axis) * member.indices.shape[1]
    return elements


def _floors(graph: Graph, outputs: Outputs, scope: Scope, min_channels: int, max_ratio: float | None) -> np.ndarray:
    if max_ratio is not None and max_ratio != 1:
        read_ratio(max_ratio, "max_ratio")
    sizes = np.array([group.size for group in graph.groups], dtype=np.int64)
    removable = np.floor(np.round(np.fmin(scope.max_ratios, max_ratio or 1.0) * sizes, 9)).astype(np.int64)
    return np.maximum(floors(graph, outputs, min_channels), sizes - removable)


def _most_important(importance: Sequence[np.ndarray], kept: np.ndarray) -> list[np.ndarray]:
    return [np.sort(np.argsort(-values, kind="stable")[:count]) for values, count in zip(importance, kept, strict=True)]


def _outcome(parts: Sequence[Allocation]) -> dict[str, Any]:
    reached = {name: round(value) for part in parts for name, value in part.reached.items()}
    step = {name: round(value) for part in parts for name, value in part.step.items()}
    return _said(reached=reached or None, step=step or None)


def _said(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _check_options(ranking: Any, round_to: Any, min_channels: Any, seed: Any) -> None:
    if ranking not in _RANKINGS:
        raise PlanError(f"There is no ranking {ranking!r}.{nearest(str(ranking), _RANKINGS)}")
    for name, value, least in (("min_channels", min_channels, 1), ("round_to", round_to, 1), ("seed", seed, 0)):
        if value is None and name == "round_to":
            continue
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
            raise PlanError(f"{name}={value!r} makes no sense here. Give a whole number of at least {least}.")


def _check_budget(ratio: Any, macs: Any, params: Any, scope: Scope) -> None:
    given = [name for name, value in (("ratio", ratio), ("macs", macs), ("params", params)) if value is not None]
    if ratio is not None:
        read_ratio(ratio)
    if scope.has_budget:
        given.append("the sparsities of config")
    if not given:
        raise PlanError('No budget was given. Pass ratio=0.5, macs="0.5x", params="1M", or a config with a sparsity.')
    if len(given) > 1 and given != ["macs", "params"]:
        raise PlanError(
            f"{' and '.join(given)} are budgets of different kinds. Keep one of them; macs and params go together."
        )


def _names_of_ignored(model: nn.Module, ignore: Iterable[str | nn.Module]) -> list[str]:
    if isinstance(ignore, str | nn.Module):
        ignore = (ignore,)
    name_of = {id(module): name for name, module in model.named_modules()}
    found = []
    for one in ignore:
        name = name_of.get(id(one)) if isinstance(one, nn.Module) else one
        if not isinstance(name, str) or not name:
            what = type(one).__name__ if isinstance(one, nn.Module) else repr(one)
            raise PlanError(
                f"ignore has {what}, which is no part of the model. Give names, patterns, types or its modules."
            )
        found.append(name)
    return found


def _tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _warn(graph: Graph, outputs: Outputs, kept: np.ndarray, cuttable: np.ndarray) -> None:
    """Say so where the first layer, or a stream that several layers write to, falls under a tenth of its width."""
    sizes = np.array([group.size for group in graph.groups], dtype=np.int64)
    if (kept == sizes).all():
        why = "every group that may be cut is at its floor (min_channels)" if cuttable.any() else "nothing may be cut"
        _log.warning("The plan removes nothing: %s.", why)
    first = _first_writer(graph, outputs)
    for (tensor, axis), along in producing_axes(outputs).items():
        width, layer = axis_length(graph.tensors[tensor], axis), outputs.layer_of[tensor]
        left = width - sum(indices * int(sizes[number] - kept[number]) for number, indices in along.items())
        streams = [number for number in along if len(_writers(graph, outputs, number)) > 1]
        what = "stem" if layer == first else "residual stream written by" if streams else ""
        if what and left < _THIN * width:
            _log.warning("The %s %s keeps %d of %d channels. Raise min_channels.", what, layer, left, width)


def _first_writer(graph: Graph, outputs: Outputs) -> str:
    writers = {layer for number in range(len(graph.groups)) for layer in _writers(graph, outputs, number)}
    return next((layer.name for layer in graph.layers if layer.name in writers), "")


def _writers(graph: Graph, outputs: Outputs, group: int) -> list[str]:
    """Return the layers that write a group's channels anew; a depthwise convolution only passes them on."""
    producers = outputs.producers[group]
    anew = [member for member in producers if graph.tensors[member.tensor].shape[1] > 1]
    return [outputs.layer_of[member.tensor] for member in anew or producers]
