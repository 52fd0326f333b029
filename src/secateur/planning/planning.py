"""`plan`: from a graph, weights and a budget to what is kept of every tensor."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.calibration.calibrating import Calibration
from secateur.errors import PlanError, nearest
from secateur.graph.groups import Graph
from secateur.planning.allocation import Allocation
from secateur.planning.budgets import Cap, counted, read_cap, shown
from secateur.planning.checks import check_budget, check_loss, check_options, check_times
from secateur.planning.configuration import Configuration, read_configuration
from secateur.planning.criteria.evidence import Criterion
from secateur.planning.criteria.scoring import LOSSES, check_criterion, importances, normalised
from secateur.planning.names import layers_at_fault
from secateur.planning.origin import Origin, origin_of
from secateur.planning.outputs import Outputs, axis_length, elements_per_unit, kinds_of, outputs_of, producing_axes
from secateur.planning.plans import Plan, assemble, fingerprint_of
from secateur.planning.requests import Request
from secateur.planning.rules import rules_of
from secateur.planning.sensitivities import Curve, rescaled
from secateur.planning.shares import REST, Share, read_shares, shares_of, words_of
from secateur.planning.widths import Widths

_THIN = 0.1  # of its width: a stem or residual stream below this is worth a warning

# What widths of shuffled channels are changed by, until some choice of channels fits them; a cap is never exceeded.
_NEARBY = (0.02, -0.02, 0.05, -0.05, 0.1, -0.1, 0.15, 0.2)
_WIDER = (0.3, 0.4)  # tried as well where only some of the layers are changed
_NARROWER = (-0.02, -0.05, -0.1, -0.15, -0.2)

_log = logging.getLogger("secateur")


def plan(  # noqa: PLR0913
    graph: Graph,
    model: nn.Module,
    ratio: Share | None = None,
    macs: float | str | None = None,
    params: float | str | None = None,
    criterion: str | Criterion | None = None,
    scores: Mapping[str, Any] | None = None,
    config: Configuration | None = None,
    ranking: str | None = None,
    times: Mapping[str, float] | None = None,
    round_to: int | None = None,
    min_channels: int = 8,
    max_ratio: Share | None = None,
    ignore: Iterable[str | nn.Module] = (),
    seed: int = 0,
    after: tuple[Graph, Plan] | None = None,
    calibration: Calibration | None = None,
    sensitivity: Mapping[str, Curve] | None = None,
    reduction: str = "mean",
    normalizer: str = "mean",
) -> Plan:
    """Decide which channels of a model go.

    Channels that the code cannot do with at any number but the full one are left whole, and that is logged. The budget
    is one of `ratio`, `macs` and/or `params`, or a `config` with sparsities.

    `ratio` and `max_ratio` are one share, or shares by layer: `{"features.*": 0.3, "Conv2d": 0.5, nn.Linear: 0.2,
    "head": 0, "*": 0.4}`. Of the words that name a layer the closest counts: its own name, then modules that hold it
    and patterns, then its type; `"*"` is for all the rest, which is left whole without it. Coupled layers take the
    smallest of what they ask for; the one that decides is named in the log.

    Args:
        graph: of this model, by `secateur.trace`.
        model: whose weights are judged; it is not changed.
        ratio: share of its units that every group loses, rounded down; with another `ranking` than `"group"` the share
            that groups lose together.
        macs: cap on the multiply-accumulates of the traced calls: a number, `"41.54M"`, or `"0.24x"` of the model's.
        params: cap on the parameters, likewise. Two caps hold together.
        criterion: how units are judged. By their weights: `"l1"` (the default), `"l2"`, `"lp:3"`, `"fpgm"`, `"lamp"`,
            `"bn_scale"`; by data (`calibration`): `"obs"`, `"activation"`, `"variance"`; by gradients of a loss:
            `"taylor"`, `"fisher"`; `"random"`, `"uniform"`; or a function of a `planning.criteria.evidence.Evidence`
            that returns one number a unit, the larger the more important.
        scores: importances of your own, one number per output channel, by layer or tensor; others use `criterion`.
        config: a list of entries in the form of NNI 2.x or 3.0, such as `[{"sparsity": 0.8, "op_types": ["Conv2d"]}]`,
            as YAML or JSON text, or the path of such a file. Without sparsities it only says what may be cut.
        ranking: `"group"`: every group loses the same share (under a cap: of what it has above its floor); `"global"`:
            units of all groups compete by importance, each group's scaled to a mean of one; `"isomorphic"`: those of
            groups with the same structure compete, and every structure loses the same share (Fang et al., "Isomorphic
            Pruning for Vision Models", ECCV 2024). Groups that were asked for different ratios do not compete.
            `"time"`: under a cap, the next unit to go is the one that takes most time for its share of the importance
            that its group still has; wants `times`. `"loss"`: importances are losses (`criterion="obs"`, or any with
            `sensitivity`), and under a cap the next unit to go is the one with which least is lost for what it costs.
        times: what layers take where the model is to run, by name, in any unit.
        round_to: the channels of a layer stay a multiple of this, or all of them.
        min_channels: the channels that a layer keeps at least (all, if it has fewer).
        max_ratio: the share of its units that a group loses at most.
        ignore: layers whose output channels stay: names, modules, prefixes, patterns with `*`, types.
        seed: of `criterion="random"`.
        after: where the model was cut before, the graph of the full-size one and the plan that made this one of it.
            All shares are then of the full-size model. The plan is for the model at hand: `plan(...).after(earlier)` is
            the one for both.
        calibration: what `secateur.calibrate` found, for criteria that look at data.
        sensitivity: by name of a group, what the model loses with shares of it, `[(0.25, 0.01), (0.5, 0.07)]`: the
            importances are brought to that scale. For `ranking="loss"`.
        reduction: how the numbers that several coupled layers give to a unit become one: `"mean"`, `"sum"`, `"max"`,
            `"product"`, `"first"`.
        normalizer: what importances are divided by, so that groups compare: `"mean"`, `"sum"`, `"max"`, `"deviation"`
            or `"none"`. Losses are not normalised.

    Raises:
        PlanError: the budget, a name or a value makes no sense, or the budget is below the smallest reachable.

    Example:
        >>> from secateur.graph.tracing import trace
        >>> model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
        >>> half = plan(trace(model, torch.zeros(1, 3, 9, 9)), model, ratio=0.5)
        >>> half.shape_after("0.weight"), half.shape_after("2.weight")
        ((16, 3, 3, 3), (4, 16, 3, 3))
    """
    criterion, ranking = criterion or "l1", ranking or "group"
    check_options(ranking, round_to, min_channels, seed)
    check_times(ranking, times, macs, params, after)
    check_loss(ranking, str(criterion), sensitivity, (macs, params))
    name, _ = check_criterion(criterion)
    normalised(np.ones(1), normalizer)
    check_model(graph, model)
    kinds = kinds_of(graph, model)
    outputs = outputs_of(graph, kinds)
    entries = read_configuration(config) if config is not None else []
    ratios = None if ratio is None else read_shares(model, ratio, "ratio")
    limits = {} if max_ratio is None else read_shares(model, max_ratio, "max_ratio", all_allowed=True)
    origin = None if after is None else origin_of(*after, graph)
    _check_calibration(graph, calibration)
    failures: dict[int, PlanError] = {}
    judged = importances(
        graph, outputs, tensors_of(model), criterion, scores, seed, origin, calibration, reduction, failures
    )
    if sensitivity is not None:
        judged = rescaled(graph, judged, sensitivity)
    request = Request(
        graph=graph,
        outputs=outputs,
        kinds=kinds,
        rules=rules_of(entries),
        ignore=tuple(words_of(model, ignore, "ignore")),
        ratios=None if ratios is None else shares_of(graph, outputs, kinds, ratios, "ratio"),
        max_ratios=shares_of(graph, outputs, kinds, limits, "max_ratio"),
        min_channels=int(min_channels),
        round_to=round_to,
        ranking=ranking,
        times=_read_times(graph, times),
        importances=judged,
        losses=sensitivity is not None or (scores is None and name in LOSSES),
        normalizer=normalizer,
        full=_sizes(graph) if origin is None else origin.sizes(graph),
        elements=elements_per_unit(graph, outputs) if origin is None else origin.elements(graph),
    )
    check_budget(ratio, macs, params, request.scope)
    for number in np.flatnonzero(request.wanted(capped=macs is not None or params is not None)):
        if int(number) in failures:
            raise failures[int(number)]
    caps = _caps(graph, macs, params, origin)
    said = name if callable(criterion) else criterion
    recipe = {
        "criterion": said if scores is None else f"scores, else {said}",
        "ranking": ranking,
        "seed": seed,
        "budget": _said(ratio=_as_written(ratios), macs=macs, params=params, config=entries or None),
        "limits": _said(round_to=round_to, min_channels=min_channels, max_ratio=_as_written(limits)),
    }
    return _planned(request, caps, recipe)


def _check_calibration(graph: Graph, calibration: Calibration | None) -> None:
    if calibration is None:
        return
    if not isinstance(calibration, Calibration):
        raise PlanError(
            f"calibration is a {type(calibration).__name__}. Give what secateur.calibrate(model, graph, batches) found."
        )
    if calibration.shapes != {name: info.shape for name, info in graph.tensors.items()}:
        raise PlanError("The calibration was taken from another model. Calibrate this one.")


def plan_of_group(graph: Graph, model: nn.Module, judged: Sequence[np.ndarray], number: int, share: float) -> Plan:
    """Return the plan that takes a share of one group, and of what must go with it, by importances of all groups.

    Raises:
        PlanError: it cannot be.
    """
    kinds = kinds_of(graph, model)
    outputs = outputs_of(graph, kinds)
    alone = np.full(len(graph.groups), np.nan)
    request = Request(
        graph=graph,
        outputs=outputs,
        kinds=kinds,
        rules=(),
        ignore=(),
        ratios=np.where(np.arange(len(alone)) == number, share, alone),
        max_ratios=alone,
        min_channels=1,
        round_to=None,
        ranking="group",
        times={},
        importances=judged,
        losses=False,
        normalizer="mean",
        full=_sizes(graph),
        elements=elements_per_unit(graph, outputs),
    )
    return _planned(request, [], {"limits": {}}, quiet=True)


def _planned(request: Request, caps: Sequence[Cap], recipe: dict[str, Any], quiet: bool = False) -> Plan:
    """Return the plan, without cuts of what the model's code has no width for."""
    while True:
        parts = request.allocations(caps)
        kept = np.minimum.reduce([request.sizes, *(part.kept for part in parts)])
        limits = {**recipe["limits"], **_said(ignore=list(request.ignore) or None)}
        changes = _NARROWER if caps else _NEARBY
        try:
            kept = _harmonized(request.graph, request.widths(request.scope.cuttable), kept, changes)
            units = _most_important(request.importances, kept)
            outcome = {**_outcome(parts), "importance": _importance(request, units)}
            found = assemble(request.graph, units, {**recipe, "limits": limits, **outcome})
        except PlanError as error:
            culprits = layers_at_fault(request.graph, error.tensors, request.ignore)
            if not culprits:
                raise
            _log.warning("%s They are left whole: %s.", error, ", ".join(culprits))
            request = replace(request, ignore=(*request.ignore, *culprits))
        else:
            if not quiet:
                _warn(request, kept)
            return found


def _read_times(graph: Graph, times: Mapping[str, float] | None) -> dict[str, float]:
    names = {term.layer: term.layer for term in graph.costs.terms}
    names |= {alias: layer.name for layer in graph.layers for alias in (layer.name, *layer.aliases)}
    found: dict[str, float] = {}
    for name, value in (times or {}).items():
        if name not in names:
            raise PlanError(f"times names no layer of this model: {name!r}.{nearest(name, names)}")
        if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
            raise PlanError(f"times says that {name} takes {value!r}. Give a number from 0, in any unit of time.")
        found[names[name]] = found.get(names[name], 0.0) + float(value)
    return found


def _importance(request: Request, units: Sequence[np.ndarray]) -> float:
    """Return the share of their importance that groups in scope keep: the harmonic mean; what is harmful counts 0."""
    shares = [
        float(np.maximum(importance[own], 0).sum() / whole)
        for importance, own, cuttable in zip(request.importances, units, request.scope.cuttable, strict=True)
        if cuttable and (whole := float(np.maximum(importance, 0).sum())) > 0
    ]
    return round(float(1 / np.mean(1 / np.maximum(shares, 1e-9))), 4) if shares else 1.0


def check_model(graph: Graph, model: nn.Module) -> None:
    """Check that a graph was traced from this model, or from one with the same names and shapes.

    Raises:
        PlanError: it was not; names the first tensor that differs.
    """
    tensors = tensors_of(model)
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


def _caps(graph: Graph, macs: Any, params: Any, origin: Origin | None) -> list[Cap]:
    full, whole = _sizes(graph), graph.costs if origin is None else origin.graph.costs
    costs = {"macs": counted(graph.costs, "macs"), "params": counted(graph.costs, "params")}
    given = {name: value for name, value in (("macs", macs), ("params", params)) if value is not None}
    caps = [Cap(name, read_cap(value, getattr(whole, name)(), name), costs[name]) for name, value in given.items()]
    if origin is None and caps and all(cap.fill(full) <= 1 for cap in caps):
        has = " and ".join(f"{cap.name}={shown(cap.cost(full))}" for cap in caps)
        raise PlanError(
            f'The model has {has}, which is within the budget already. Ask for less, such as {caps[0].name}="0.5x".'
        )
    return caps


def _harmonized(graph: Graph, widths: Widths, kept: np.ndarray, changes: Sequence[float]) -> np.ndarray:
    """Return the numbers that the model's code has at these widths (see `Graph.harmonize`), or at widths near them.

    All clusters of widths that depend on each other are changed alike; if that fits nowhere, one after the other.
    Where even that fits nowhere, the widths are returned as they are.
    """
    first = np.unique(widths.variable_of, return_index=True)[1]
    tied = [variable for cluster in widths.clusters for variable in cluster.variables]
    wanted = kept[first].astype(np.float64)
    together = _fitting(graph, widths, wanted, tied, (0.0, *changes))
    if together is not None or not tied:
        return kept if together is None else together
    settled = wanted.copy()
    settled[tied] = widths.sizes[tied]
    wider = _WIDER if max(changes) > 0 else ()
    for cluster in widths.clusters:
        near = settled.copy()
        near[cluster.variables] = wanted[cluster.variables]
        found = _fitting(graph, widths, near, cluster.variables, (0.0, *changes, *wider))
        if found is None:
            return kept  # what is at fault shows when it is assembled
        settled = found[first].astype(np.float64)
    return widths.of_groups(settled.astype(np.int64))


def _fitting(
    graph: Graph, widths: Widths, wanted: np.ndarray, varied: Sequence[int] | np.ndarray, changes: Sequence[float]
) -> np.ndarray | None:
    """Return the first numbers that the model's code has when some of the widths are changed by these shares."""
    for change in changes:
        near = wanted.copy()
        near[varied] *= 1 + change
        found = graph.harmonize(widths.of_groups(widths.settle(near)).tolist())
        if found is not None:
            return np.array(found, dtype=np.int64)
    return None


def _most_important(importance: Sequence[np.ndarray], kept: np.ndarray) -> list[np.ndarray]:
    return [np.sort(np.argsort(-values, kind="stable")[:count]) for values, count in zip(importance, kept, strict=True)]


def _sizes(graph: Graph) -> np.ndarray:
    return np.array([group.size for group in graph.groups], dtype=np.int64)


def _as_written(shares: Mapping[str, float] | None) -> Any:
    """Return shares by word as they were given: one for all as a number, none as None."""
    if not shares:
        return None
    return shares[REST] if set(shares) == {REST} else shares


def _outcome(parts: Sequence[Allocation]) -> dict[str, Any]:
    reached = {name: round(value) for part in parts for name, value in part.reached.items()}
    step = {name: round(value) for part in parts for name, value in part.step.items()}
    return _said(reached=reached or None, step=step or None)


def _said(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a model under all of their names."""
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _warn(request: Request, kept: np.ndarray) -> None:
    """Say so where the first layer, or a stream that several layers write to, falls under a tenth of its width."""
    graph, outputs, sizes = request.graph, request.outputs, request.sizes
    if (kept == request.originals).all():
        floors = "every group that may be cut is at its floor (min_channels)"
        _log.warning("The plan removes nothing: %s.", floors if request.scope.cuttable.any() else "nothing may be cut")
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
