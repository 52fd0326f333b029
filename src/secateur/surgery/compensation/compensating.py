"""`compensate`: let the channels that are left say what the cut ones said, as a few unlabelled samples show."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from secateur.calibration.batches import Batches, Part, batches_of
from secateur.calibration.calibrating import Calibration, numbered, run_part
from secateur.calibration.moments import MOST_ROWS, Moments, rows_of
from secateur.calibration.observing import Enough, Reading, Site, Use
from secateur.errors import CutError
from secateur.planning.plans import Plan
from secateur.surgery.compensation.answers import Answers
from secateur.surgery.compensation.consumers import Consumer, consumer_of
from secateur.surgery.compensation.mimicking import mimic as imitate
from secateur.surgery.compensation.ridge import STRENGTHS, Fit
from secateur.surgery.compensation.statistics import norms_of, renew_statistics
from secateur.surgery.cutting import check_fits, copied

FEW = (1e-12, 1e-3, 1e-1)  # strengths of ridges, where many models are tried
PASSES = 4  # over the data, layer after layer

log = logging.getLogger("secateur")
progress = logging.getLogger("secateur.progress")

Pair = tuple[Moments, Moments]  # of the rows to fit, and of those held out


@dataclass(frozen=True)
class Steps:
    """What is tried, in this order; see `compensate`."""

    passes: int = PASSES
    statistics: bool = True
    mimic: int = 0
    strengths: Sequence[float] = STRENGTHS  # of ridges; none: means alone are made up for


@dataclass(frozen=True)
class Compensation:
    """A compensated model, and what that changed."""

    model: nn.Module
    samples: int
    errors: Mapping[str, float | None]  # relative error of the outputs on held-out samples after each step kept
    dropped: tuple[str, ...]  # steps that did not help
    layers: Mapping[str, str]  # weight -> how its inputs were made up for
    left: Mapping[str, str] = field(default_factory=dict)  # weight -> why nothing was put into it

    def as_json(self) -> dict[str, Any]:
        """Return all but the model as plain data."""
        return {
            "samples": self.samples,
            "errors": dict(self.errors),
            "dropped": list(self.dropped),
            "layers": dict(self.layers),
            "left": dict(self.left),
        }


def compensate(
    small: nn.Module,
    plan: Plan,
    full: nn.Module,
    batches: Iterable[Any],
    passes: int = PASSES,
    statistics: bool = True,
    mimic: int = 0,
) -> nn.Module:
    """Return a copy of a pruned model whose weights make up for the channels that are gone, as far as samples tell.

    What a weight reads no more is nearly a linear function of what it still reads: the regression, fitted on samples
    without labels, goes into the weight, and what is constant into its bias or the mean of the norm that follows. This
    is done for all weights at once on what the original computes, then layer after layer on what the pruned model
    computes by then; at last the running statistics of norms are taken anew. A quarter of the samples is held out, and
    decides the strength of every ridge, and whether a step is kept. No
    gradients, unless `mimic` asks for them.

    Args:
        small: the pruned model, as it was cut: what reads cut channels is computed from the original's weights, and
            what it learnt since is lost. Untouched.
        plan: what was cut.
        full: the original; untouched.
        batches: what the model is called with: an iterable of tensors, of tuples, or of dicts by keyword. What comes
            after the inputs (labels) is ignored. They stay in memory; a hundred samples or two are enough.
        passes: how often the layers are gone through in order; 0: only on what the original computes.
        statistics: whether to try taking the statistics of norms anew (EagleEye, arXiv 2007.02491).
        mimic: so many gradient steps towards what the original computes in every layer, at last.

    Raises:
        CutError: the plan was made for another model, or `small` was not cut by it.
        DataError: a batch does not fit the model, or there are too few samples.

    Example:
        >>> better = compensate(small, plan, full, loader)  # doctest: +SKIP
    """
    return compensated(small, plan, full, batches, Steps(passes, statistics, mimic)).model


def compensated(
    small: nn.Module,
    plan: Plan,
    full: nn.Module,
    batches: Any,
    steps: Steps | None = None,
    calibration: Calibration | None = None,
) -> Compensation:
    """Do what `compensate` does, and tell of it; `calibration` is what is known of the original's weights."""
    check_fits(full, plan)
    _check_small(small, plan)
    read = calibration.batches if calibration is not None else batches_of(batches, full, plan.calls)
    return _Walk(small, plan, full, read, calibration).through(steps or Steps())


def ridged(small: nn.Module, plan: Plan, full: nn.Module, calibration: Calibration) -> nn.Module:
    """Put ridges on what the original computes into the weights of `small`, and return it; nothing is judged."""
    uses = calibration.uses
    for site in [site for site in uses if site[1] in plan.keep.get(site[0], {})]:
        consumer = consumer_of(site, uses[site], plan)
        if not isinstance(consumer, str) and site in calibration.fit and site in calibration.held:
            fit, held = (
                part[site].joint(consumer.blocks, consumer.kept) for part in (calibration.fit, calibration.held)
            )
            consumer.apply(consumer.solve(fit, held, full, plan, FEW), small, full, plan)
    return small


def _check_small(small: nn.Module, plan: Plan) -> None:
    tensors = dict([*small.named_parameters(remove_duplicate=False), *small.named_buffers(remove_duplicate=False)])
    for name in plan.fingerprint:
        if name not in tensors or tuple(tensors[name].shape) != plan.shape_after(name):
            has = f"has shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
            raise CutError(
                f"The pruned model was not cut by this plan: {name} {has}, the plan leaves {plan.shape_after(name)}. "
                "Pass the plan that came with it."
            )


class _Walk:
    """The steps of a compensation, on a copy that each of them may change."""

    def __init__(
        self,
        small: nn.Module,
        plan: Plan,
        full: nn.Module,
        batches: Batches,
        calibration: Calibration | None,
    ) -> None:
        self.plan, self.full, self.batches, self.calibration = plan, full, batches, calibration
        self.model = copied(small)
        self.layers: dict[str, str] = {}
        self.left: dict[str, str] = {}
        self.dropped: list[str] = []
        self.answers = Answers(full, batches.held_out)
        self.errors: dict[str, float | None] = {"cut": self.answers.error(self.model)}

    def through(self, steps: Steps) -> Compensation:
        consumers = self._consumers()
        cut = [consumer for consumer in consumers if consumer.cut]
        if not cut:
            log.warning(
                "Compensation changes nothing: %s.", "; ".join(self.left.values()) or "no weight reads a cut channel"
            )
        else:
            name = "ridge" if steps.strengths else "mean"
            self._step(name, lambda: self._refit(cut, False, steps.strengths))
            if self.answers.error(self.model) is None:
                log.warning(
                    "The outputs cannot be compared with the original's, so that what helps is not known: %s.", name
                )
                return self._done()
            first = consumers.index(cut[0])
            for number, chunk in enumerate(_chunks(consumers[first:], steps.passes), 1):
                if not self._step(
                    f"layers, pass {number}", lambda chunk=chunk: self._refit(chunk, True, steps.strengths)
                ):
                    break  # the later the layer, the fewer its positions, and the more would be fitted to them
            several = any(part.samples > 1 for part in self.batches.to_fit)
            if steps.statistics and several and norms_of(self.model):
                self._step("statistics", lambda: renew_statistics(self.model, self.batches.to_fit))
            if steps.mimic:
                parts = self.batches.to_fit
                self._step("mimicking", lambda: imitate(self.model, self.full, parts, consumers, steps.mimic))
        return self._done()

    def _done(self) -> Compensation:
        return Compensation(self.model, self.batches.samples, self.errors, tuple(self.dropped), self.layers, self.left)

    def _step(self, name: str, change: Callable[[], Any]) -> bool:
        """Change the model, and take that back if it does not bring its outputs nearer; tell whether it does."""
        progress.info("compensating: %s", name)
        tensors = [*self.model.parameters(), *self.model.buffers()]
        before = [tensor.detach().clone() for tensor in tensors]
        layers = dict(self.layers)
        change()
        error = self.answers.error(self.model)
        last = list(self.errors.values())[-1]
        if error is not None and last is not None and not error <= last:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
            self.layers = layers
            self.dropped.append(name)
            return False
        self.errors[name] = error
        return True

    def _consumers(self) -> list[Consumer]:
        """Find the weights that read channels, in the order in which they do."""
        if self.calibration is None:
            uses: Mapping[Site, Use] = run_part(self.full, self.batches.parts[0], 0, lambda _: None)
        else:
            uses = self.calibration.uses
        found = []
        for site, use in uses.items():
            consumer = consumer_of(site, use, self.plan)
            if isinstance(consumer, str):
                self.left[site[0]] = consumer
            else:
                found.append(consumer)
        self._explain_rest(uses)
        return found

    def _explain_rest(self, uses: Mapping[Site, Use]) -> None:
        """Say why nothing can be put into the other weights that lose inputs; what has two names is told by one."""
        tensors = self.full.state_dict(keep_vars=True)
        known = {id(tensors[name]) for name, _ in uses if name in tensors}
        for name, axes in self.plan.keep.items():
            if id(tensors.get(name)) in known:
                continue
            reading = [axis for axis in axes if axis != 0 and len(self.plan.fingerprint[name]) > 1]
            if reading and name not in self.left:
                self.left[name] = f"{name} is not read as it is by a convolution or a product"

    # -- moments -----------------------------------------------------------------------------------------------------

    def _refit(self, consumers: Sequence[Consumer], paired: bool, strengths: Sequence[float]) -> None:
        """Fit what weights read: in the original alone, or what is read there to what the pruned model makes of it."""
        moments = self._moments(consumers, paired)
        for consumer in consumers:
            if consumer.site in moments:
                fit, held = moments[consumer.site]
                found = consumer.solve(fit, held, self.full, self.plan, strengths)
                consumer.apply(found, self.model, self.full, self.plan)
                self.layers[consumer.site[0]] = _said(found)

    def _moments(self, consumers: Sequence[Consumer], paired: bool) -> dict[Site, Pair]:
        known = {} if paired or self.calibration is None else self._known(consumers, self.calibration)
        wanted = {consumer.site: consumer for consumer in consumers if consumer.site not in known}
        pairs: dict[Site, Pair] = {}
        for number, part, held in numbered(self.batches) if wanted else ():
            rows = self._rows(self.full, part, number, wanted)
            others = self._rows(self.model, part, number, wanted) if paired else {}
            for key, own in rows.items():
                site, other = key[0], others.get(key)
                if paired and (other is None or len(other) != len(own)):
                    continue
                if site not in pairs:
                    pairs[site] = (wanted[site].moments(own.device), wanted[site].moments(own.device))
                pairs[site][held].add(wanted[site].joint(own, other))
        return known | pairs

    @staticmethod
    def _known(consumers: Sequence[Consumer], calibration: Calibration) -> dict[Site, Pair]:
        return {
            one.site: (
                calibration.fit[one.site].joint(one.blocks, one.kept),
                calibration.held[one.site].joint(one.blocks, one.kept),
            )
            for one in consumers
            if one.run == 1 and one.site in calibration.fit and one.site in calibration.held
        }

    def _rows(
        self, model: nn.Module, part: Part, number: int, wanted: Mapping[Site, Consumer]
    ) -> dict[tuple[Site, int], torch.Tensor]:
        """Return what some weights read of a part, by weight and number of the call."""
        rows: dict[tuple[Site, int], torch.Tensor] = {}
        calls: dict[Site, int] = {}
        missing = sum(consumer.calls for consumer in wanted.values())

        def see(reading: Reading) -> None:
            site = reading.site
            if site in wanted:
                calls[site] = calls.get(site, 0) + 1
                most = max(MOST_ROWS, wanted[site].width)
                rows[site, calls[site]] = rows_of(reading, most, number * 97 + calls[site])
                if len(rows) == missing:
                    raise Enough

        run_part(model, part, number, see)
        return rows


def _chunks(consumers: Sequence[Consumer], count: int) -> list[Sequence[Consumer]]:
    """Split consumers into so many runs of about the same length."""
    if count <= 0:
        return []
    size = math.ceil(len(consumers) / count)
    return [consumers[start : start + size] for start in range(0, len(consumers), size)]


def _said(fit: Fit) -> str:
    if fit.how == "none" or fit.error_before <= 0:
        return fit.how
    return f"{fit.how}: {math.sqrt(max(fit.error, 0) / fit.error_before):.3f} of the error left"
