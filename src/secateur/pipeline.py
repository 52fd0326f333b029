"""`prune`: trace, plan, cut and verify in one call; `prune_steps`: the same in several steps, to train in between."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from secateur.calibration.batches import Batches, batches_of
from secateur.calibration.calibrating import Calibration
from secateur.calibration.calibrating import calibrate as calibrate_model
from secateur.calibration.gradients import Loss
from secateur.errors import BudgetError, PlanError, ProofError, nearest
from secateur.graph.groups import Attention, Graph
from secateur.graph.tracing import trace
from secateur.measurement.evidence import decided_by_data
from secateur.measurement.place import Place, place_of
from secateur.measurement.quality import Metric, Tolerance, search_quality
from secateur.planning.names import layers_at_fault
from secateur.planning.planning import plan as make_plan
from secateur.planning.plans import Plan, fingerprint_of
from secateur.planning.schedules import Schedule, stages_of
from secateur.planning.sensitivities import Curve
from secateur.planning.shares import read_shares, words_of
from secateur.surgery.compensation.compensating import Steps, compensated
from secateur.surgery.cutting import cut
from secateur.surgery.proof import verify

_OWN = ("graph", "model", "after", "calibration", "sensitivity")  # arguments of `plan` that are given otherwise
MOST_REPAIRS = 8
LONGEST_SEARCH = 60.0  # seconds

log = logging.getLogger("secateur")


def prune(  # noqa: PLR0913
    model: nn.Module,
    example: Any,
    free_outputs: bool = False,
    attention: Attention = "auto",
    calibrate: Iterable[Any] | None = None,
    sensitivity: Mapping[str, Curve] | None = None,
    metric: Metric | None = None,
    loss: Loss | None = None,
    mimic: int = 0,
    **budget: Any,
) -> tuple[nn.Module, Plan]:
    """Make a model smaller, and prove it.

    A family of channels that fails the proof is left whole, the rest planned again, and that is logged; a model that
    fails is never returned.

    Args:
        model: the model; untouched.
        example: how it is called: a tensor, a tuple, a dict of keyword arguments, or a list of such calls.
        free_outputs: the channels that leave the model may be cut, too.
        attention: whether channels of every head go ("dims") or whole heads ("heads"); see `secateur.trace`.
        calibrate: a hundred or two of the inputs that the model is used on, without labels, in batches (see
            `secateur.compensate`). Channels are then judged by what the others cannot say in their place
            (`criterion="obs"`) and, under a cap, by what the outputs lose with each group (`ranking="loss"`), unless
            others are asked for; and the weights that are left make up for those that go.
        sensitivity: what the model loses with each group: the curves of `secateur.sensitivity`. If they are left out,
            they are measured on the data: at a quarter of each group, with `allocate="sensitivity"` at four shares.
        loss: `loss(output, batch)`, for the criteria that look at gradients: `"taylor"`, `"fisher"`.
        mimic: so many gradient steps of the pruned model towards what the original computes in every layer.
        metric: a function of a model that returns a number, the larger the better; for `quality`.
        **budget: as for `secateur.plan`: `ratio=0.5`, or `macs="0.25x"` and `params="1.3M"`, or `config=...`, and how.
            Or `quality="-1%"` (of what `metric` says of the model) or `quality="-0.01"` (of its units): the fewest MACs
            with which the metric, measured on the pruned and compensated model, falls by no more than this.
            Or `latency="0.5x"` (of the model's own time) or `latency="60ms"`, with `on="openvino"` or another runtime
            (`secateur.runtimes`), and `precision`, `device` and `threads` there: candidates are measured until one
            meets it within 5 %, and channels go where they save most time for what they matter (`ranking="time"`,
            unless another is asked for). With `on`, channels stay multiples of the runtime's step, unless `round_to`
            says otherwise.

    Returns:
        The pruned model, of the same class, and the plan; `plan.proof` has the figures, and `plan.recipe["latency"]`
        the candidates that were measured.

    Raises:
        TraceError: the model does not run on the example.
        PlanError: the budget makes no sense, or cannot be met.
        ProofError: no plan for this budget passes the proof.
        DataError: a batch does not fit the model, or there are too few samples.
        MeasurementError, RuntimeUnfitError, RuntimeMissingError: the runtime does not run the model, or is not there.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
        >>> small, plan = prune(model, torch.zeros(1, 3, 16, 16), ratio=0.5)
        >>> small[0].weight.shape
        torch.Size([8, 3, 3, 3])
    """
    words, place = place_of(budget)
    tolerance = _read_quality(words, metric, place)
    allocate = words.pop("allocate", None)
    _check_data(allocate, calibrate, {"loss": loss, "mimic": mimic}, words)
    walk = _Walk(model, example, trace(model, example, free_outputs=free_outputs, attention=attention))
    words, ignore = _in_words(model, words)
    if place is not None and place.target is not None:
        walk.try_out(0.99, words, ignore)
    if calibrate is not None:
        timed = place is not None and place.target is not None
        capped = tolerance is not None or words.get("macs") is not None or words.get("params") is not None
        if tolerance is None and not timed:
            walk.try_out(None, words, ignore)
        data = calibrate_model(model, walk.graph, calibrate, loss)
        walk = replace(walk, data=data, mimic=mimic)
        words = decided_by_data(
            model, walk.graph, data, {**words, "allocate": allocate}, sensitivity, capped or timed, timed
        )
    elif sensitivity is not None:
        words |= {"sensitivity": sensitivity, "ranking": words.get("ranking") or "loss"}
    if tolerance is not None and metric is not None:
        return walk.prune_to_quality(tolerance, metric, words, ignore)
    if place is None:
        return walk.prune(words, ignore)
    words |= place.ranking(model, example, words)
    step = place.step(model, example) if words.get("round_to") is None else words["round_to"]
    while True:
        try:
            return walk.prune_for(place, {**words, "round_to": step}, ignore)
        except BudgetError as error:
            if step <= 1 or words.get("round_to") is not None:
                raise
            step //= 2
            log.warning(
                "Multiples of %d channels do not meet the budget, trying those of %d: %s", 2 * step, step, error
            )


def _check_data(allocate: Any, calibrate: Any, wanting: Mapping[str, Any], words: Mapping[str, Any]) -> None:
    """Check what only makes sense with data, before any work."""
    if allocate not in (None, "sensitivity"):
        raise PlanError(f'allocate={allocate!r} is not known. Write allocate="sensitivity", or leave it out.')
    lacking = next(
        (name for name, value in {**wanting, "allocate": allocate}.items() if value and calibrate is None), None
    )
    if lacking is not None:
        raise PlanError(
            f"{lacking}: nothing can be measured without data. Give some: calibrate=batches (--calibrate DIR)."
        )
    mimic = wanting["mimic"]
    if not isinstance(mimic, int) or isinstance(mimic, bool) or mimic < 0:
        raise PlanError(f"mimic={mimic!r} is no number of steps. Give a whole number of at least 0.")
    if allocate is not None and words.get("ratio") is not None:
        raise PlanError(
            'allocate="sensitivity" shares out a cap, and a ratio takes the same of every group. Give macs.'
        )


def _read_quality(words: dict[str, Any], metric: Metric | None, place: Place | None) -> Tolerance | None:
    """Take the quality out of a budget, and check that it stands alone and has a metric."""
    text = words.pop("quality", None)
    if text is None and metric is not None:
        raise PlanError('metric: only a quality is measured by it. Give quality="-0.01" or the like, or leave it out.')
    if text is None:
        return None
    tolerance = Tolerance.read(text)
    other = next((name for name in ("ratio", "macs", "params", "config") if words.get(name) is not None), None)
    if other is not None or place is not None:
        raise PlanError(f"quality stands alone, and {other or 'on'} is another budget. Keep one of them.")
    if metric is None:
        raise PlanError("quality is measured by a metric of yours. Give one: metric=function (--metric PKG:FN).")
    return tolerance


def prune_steps(
    model: nn.Module,
    example: Any,
    steps: int = 5,
    schedule: Schedule = "linear",
    free_outputs: bool = False,
    attention: Attention = "auto",
    calibrate: Iterable[Any] | None = None,
    loss: Loss | None = None,
    **budget: Any,
) -> Iterator[tuple[nn.Module, Plan]]:
    """Make a model smaller in several steps, and hand it out after each, to be trained before the next.

    Every step cuts a copy of the model that the step before handed out, as it is by then: train that one in place. The
    last step meets the budget as `prune` would. Every step is proved, with the weights that it was cut from.

    Args:
        model: the model; untouched.
        example: how it is called: a tensor, a tuple, a dict of keyword arguments, or a list of such calls.
        steps: how many.
        schedule: `"linear"`: every step takes as much of what is to go; `"geometric"`: the same share of what is left;
            `"cubic"`: most at first (Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878); or, for each step,
            the share of the way that is done after it: `[0.5, 0.8, 1]` (`steps` does not count then).
        free_outputs: the channels that leave the model may be cut, too.
        attention: whether channels of every head go ("dims") or whole heads ("heads"); see `secateur.trace`.
        calibrate: inputs without labels, as for `prune`: at every step they are put through the model as it is by then.
        loss: for criteria that look at gradients, as for `prune`.
        **budget: as for `prune`, but neither a time nor a quality; all of it is of the full-size model.

    Yields:
        The pruned model, a new one at each step, and the plan that makes it of the full-size one; `plan.proof` has the
        figures of the step. The model's parameters are new at each step, too: make the optimizer anew, or take it along
        with `transfer(optimizer, plan.since(last_plan), last_small, small)`.

    Raises:
        TraceError: the model does not run on the example.
        PlanError: the budget makes no sense, or cannot be met; or the model was changed in more than its values.
        ProofError: no plan for a step passes the proof.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
        >>> for small, plan in prune_steps(model, torch.zeros(1, 3, 16, 16), ratio=0.5, steps=2):
        ...     print(small[0].out_channels, plan.shape_after("2.weight"))  # and train it
        24 (4, 24, 3, 3)
        16 (4, 16, 3, 3)
    """
    _check_data(None, calibrate, {"loss": loss, "mimic": 0}, budget)
    graph = trace(model, example, free_outputs=free_outputs, attention=attention)
    words, ignore = _in_words(model, budget)
    stages = stages_of(graph, model, words, steps, schedule)
    walk = _Walk(model, example, graph)
    if calibrate is None:  # what the last step would refuse is refused before any training
        make_plan(graph, model, ignore=ignore, **words)
        return _steps(walk, attention, stages, ignore)
    walk.try_out(None, words, ignore)
    return _steps(walk, attention, stages, ignore, batches_of(calibrate, model, graph.calls), loss)


def _steps(
    first: _Walk,
    attention: Attention,
    stages: Sequence[dict[str, Any]],
    ignore: list[str],
    batches: Batches | None = None,
    loss: Loss | None = None,
) -> Iterator[tuple[nn.Module, Plan]]:
    full, done = first.graph, Plan(keep={}, fingerprint=fingerprint_of(first.graph), calls=first.graph.calls)
    walk = first
    for number, budget in enumerate(stages, 1):
        walk, words = walk.informed(batches, loss, {**budget, "after": (full, done)})
        small, step = walk.prune(words, ignore)
        done = step.after(done).with_proof(step.proof)
        yield small, done
        if number < len(stages):
            _check_unchanged(small, done, number)
            graph = trace(small, first.example, free_outputs=full.free_outputs, attention=attention)
            walk = _Walk(small, first.example, graph)


def _check_unchanged(model: nn.Module, plan: Plan, step: int) -> None:
    """Check that a model still has the tensors that it was handed out with."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}
    shapes |= {name: tuple(tensor.shape) for name, tensor in model.named_buffers(remove_duplicate=False)}
    wanted = {name: plan.shape_after(name) for name in plan.fingerprint}
    name = next((name for name in [*wanted, *shapes] if wanted.get(name) != shapes.get(name)), None)
    if name is not None:
        found = f"has shape {shapes[name]}" if name in shapes else "is gone"
        was = f"had shape {wanted[name]}" if name in wanted else "was not there"
        raise PlanError(
            f"The model was changed after step {step}: {name} {found} now and {was} when it was handed out. "
            "Train its values in place, and leave its layers as they are."
        )


@dataclass(frozen=True)
class _Walk:
    """A model with its graph: plan, cut and verify, until a plan passes the proof."""

    model: nn.Module
    example: Any
    graph: Graph
    data: Calibration | None = None
    mimic: int = 0

    def prune(self, budget: Mapping[str, Any], ignore: list[str]) -> tuple[nn.Module, Plan]:
        """Return the pruned model and the plan with its proof; layers that fail it are added to `ignore`."""
        for _ in range(MOST_REPAIRS):
            plan = make_plan(self.graph, self.model, ignore=ignore, **budget)
            small = cut(self.model, plan)
            try:
                plan = plan.with_proof(verify(self.model, small, plan, self.example, graph=self.graph))
                return self.compensated(small, plan)
            except ProofError as error:
                culprits = layers_at_fault(self.graph, error.tensors, ignore) or self._searched(budget, ignore)
                if not culprits:
                    raise
                log.warning("%s These layers are left whole: %s.", error, ", ".join(culprits))
                ignore += culprits
        raise ProofError(
            f"After {MOST_REPAIRS} repairs no plan passes the proof; left whole so far: {', '.join(ignore)}. "
            "Name further layers to leave whole (ignore=)."
        )

    def informed(
        self, batches: Batches | None, loss: Loss | None, budget: dict[str, Any]
    ) -> tuple[_Walk, dict[str, Any]]:
        """Return the walk and a budget with what samples say of the model, if there are any."""
        if batches is None:
            return self, budget
        data = calibrate_model(self.model, self.graph, batches, loss)
        capped = budget.get("macs") is not None or budget.get("params") is not None
        words = decided_by_data(self.model, self.graph, data, budget, None, capped, timed=False)
        return replace(self, data=data), words

    def compensated(self, small: nn.Module, plan: Plan) -> tuple[nn.Module, Plan]:
        """Let the weights make up for what is gone, if there are data; the proof was of the cut alone."""
        if self.data is None:
            return small, plan
        found = compensated(small, plan, self.model, self.data.batches, Steps(mimic=self.mimic), self.data)
        plan = replace(plan, recipe={**plan.recipe, "compensation": found.as_json()})
        return found.model, plan.with_proof(plan.proof and plan.proof.before("compensated"))

    def prune_to_quality(
        self, tolerance: Tolerance, metric: Metric, budget: Mapping[str, Any], ignore: list[str]
    ) -> tuple[nn.Module, Plan]:
        """Return the model with the fewest MACs whose metric stays within the tolerance."""

        def make(share: float) -> nn.Module:
            return self.compensated(*self.cut_to(share, budget, ignore))[0]

        while True:
            before = len(ignore)
            found = search_quality(self.model, make, tolerance, metric)
            small, plan = self.prune({**budget, "macs": f"{found.macs:.6f}x"}, ignore)
            if len(ignore) == before:
                return small, replace(plan, recipe={**plan.recipe, "quality": found.as_json()})

    def try_out(self, share: float | None, budget: Mapping[str, Any], ignore: list[str]) -> None:
        """Refuse what any plan would refuse, before the long work."""
        trial = {**budget, "criterion": "uniform", "scores": None, "ranking": "group", "times": None}
        make_plan(self.graph, self.model, ignore=ignore, **(trial if share is None else {**trial, "macs": f"{share}x"}))

    def prune_for(self, place: Place, budget: Mapping[str, Any], ignore: list[str]) -> tuple[nn.Module, Plan]:
        """Return the pruned model and its plan, with what was measured where the budget is a time."""
        if place.target is None:
            return self.prune(budget, ignore)
        while True:
            before = len(ignore)
            found = place.search(self.model, self.example, lambda share: self.cut_to(share, budget, ignore))
            small, plan = self.prune({**budget, "macs": f"{found.chosen.macs:.6f}x"}, ignore)
            if len(ignore) == before:  # or else what was proved is not what was measured
                break
        latency = {"on": place.runtime, **vars(place.options), **found.as_json()}
        return small, replace(plan, recipe={**plan.recipe, "latency": latency})

    def cut_to(self, share: float, budget: Mapping[str, Any], ignore: list[str]) -> tuple[nn.Module, Plan]:
        """Return the model cut to a share of its MACs, not proved yet, and its plan."""
        plan = make_plan(self.graph, self.model, ignore=ignore, **{**budget, "macs": f"{share:.6f}x"})
        return cut(self.model, plan), plan

    def _searched(self, budget: Mapping[str, Any], ignore: list[str]) -> list[str]:
        """Narrow a failed proof that names no tensor down to one layer, by halves; more than one may be at fault."""
        suspects = list(dict.fromkeys(group.members[0].layer for group in self.graph.groups))
        suspects = [layer for layer in suspects if layer and layer not in ignore]
        if not suspects or not self._passes(budget, [*ignore, *suspects]):
            return []
        log.warning("The proof fails without naming a layer; searching %d of them by halves.", len(suspects))
        deadline = time.monotonic() + LONGEST_SEARCH
        while len(suspects) > 1:
            if time.monotonic() > deadline:
                return []
            half, rest = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
            suspects = half if self._passes(budget, [*ignore, *half]) else rest
        return suspects

    def _passes(self, budget: Mapping[str, Any], ignore: list[str]) -> bool:
        try:
            make_plan(self.graph, self.model, ignore=ignore, **budget)
        except PlanError:  # with so much left whole the budget cannot be met; the coupling can be tried all the same
            budget = {"ratio": 0.5, "min_channels": 1}
        try:
            plan = make_plan(self.graph, self.model, ignore=ignore, **budget)
            verify(self.model, cut(self.model, plan), plan, self.example, graph=self.graph)
        except (PlanError, ProofError):
            return False
        return True


def _in_words(model: nn.Module, budget: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a budget with names for the model's modules, and what it ignores apart.

    Raises:
        PlanError: `plan` knows no such argument, or a module is no part of the model.
    """
    known = [name for name in inspect.signature(make_plan).parameters if name not in _OWN]
    unknown = next((name for name in budget if name not in known), None)
    if unknown is not None:
        raise PlanError(f"prune takes no argument {unknown!r}.{nearest(unknown, known)}")
    words = dict(budget)
    for name in ("ratio", "max_ratio"):
        if isinstance(budget.get(name), Mapping):
            words[name] = read_shares(model, budget[name], name, all_allowed=name == "max_ratio")
    return words, words_of(model, words.pop("ignore", None) or (), "ignore")
