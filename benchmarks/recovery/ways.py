"""Ways to prune and to recover without training, secateur's and the peer's, on the same pictures."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import secateur
from benchmarks.recovery.subjects import Layer, Subject
from secateur.calibration.batches import batches_of
from secateur.calibration.calibrating import Calibration
from secateur.graph.groups import Graph
from secateur.measurement.evidence import QUICK
from secateur.measurement.sensitivity import losses_of_groups, output_loss
from secateur.surgery.compensation.compensating import Steps, compensated
from secateur.surgery.compensation.statistics import renew_statistics


@dataclass(frozen=True)
class Outcome:
    """A pruned model's score in percent, its MACs as a share, and the seconds that making it took."""

    score: float
    macs: float
    seconds: float

    def as_json(self) -> dict[str, float]:
        """Return it as plain data."""
        return {"score": round(self.score, 2), "macs": round(self.macs, 4), "seconds": round(self.seconds, 1)}


def share_of(subject: Subject, model: nn.Module) -> float:
    """Return a pruned model's MACs as a share of the subject's."""
    small, full = (secateur.trace(one, subject.example).costs.macs() for one in (model, subject.model))
    return small / full


def outcome(subject: Subject, make: Callable[[], nn.Module]) -> Outcome:
    """Make a pruned model, and score it."""
    begun = time.perf_counter()
    small = make()
    seconds = time.perf_counter() - begun
    return Outcome(subject.score(small), share_of(subject, small), seconds)


def by_default(subject: Subject, macs: float, **options: Any) -> nn.Module:
    """Prune as the README says, with pictures to calibrate on."""
    return secateur.prune(subject.model, subject.example, macs=f"{macs}x", calibrate=subject.batches(), **options)[0]


def by_plan(
    subject: Subject, graph: Graph, how: str, calibration: Calibration | None = None, **budget: Any
) -> nn.Module:
    """Cut by a plan, and recover: "none", "mean", "ridge", "statistics", "layers" or "mimicking"."""
    plan = secateur.plan(graph, subject.model, calibration=calibration, **budget)
    small = secateur.cut(subject.model, plan)
    if how == "none":
        return small
    parts = batches_of(subject.batches(), subject.model, graph.calls)
    if how == "statistics":
        renew_statistics(small, parts.to_fit)
        return small
    known = calibration if calibration is not None else secateur.calibrate(subject.model, graph, parts)
    steps = {
        "mean": Steps(passes=0, statistics=False, strengths=()),
        "ridge": Steps(passes=0, statistics=False),
        "ridge, statistics": Steps(passes=0),
        "layers": Steps(statistics=False),
        "mimicking": Steps(passes=0, statistics=False, mimic=60),
    }[how]
    return compensated(small, plan, subject.model, parts, steps, known).model


def sensitivity_of(subject: Subject, graph: Graph, calibration: Calibration, criterion: str) -> Any:
    """Return what the model loses with each group, at a quarter of it, as the defaults of `prune` measure it."""
    judge = output_loss(subject.model, calibration)
    return losses_of_groups(graph, subject.model, calibration, {"criterion": criterion}, QUICK, judge)


def own_labels(output: torch.Tensor, batch: Any) -> torch.Tensor:
    """Return the cross-entropy with the model's own answers, which is the loss for criteria that want one."""
    del batch
    return functional.cross_entropy(output, output.detach().argmax(1))


# -- the peer ----------------------------------------------------------------------------------------------------------


def by_torch_pruning(subject: Subject, macs: float, importance: str) -> nn.Module:
    """Prune as Torch-Pruning's README does: head ignored, attention's heads told, in steps until the MACs are met."""
    import torch_pruning as tp  # type: ignore[import-not-found]

    model = copy.deepcopy(subject.model)
    scores = {
        "GroupMagnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "GroupTaylor": tp.importance.GroupTaylorImportance,
        "FPGM": tp.importance.FPGMImportance,
        "LAMP": tp.importance.LAMPImportance,
        "BNScale": tp.importance.BNScaleImportance,
        "Random": tp.importance.RandomImportance,
    }[importance]()
    heads = [
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features in (10, 1000)
    ]
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    attention = {part: layer.heads for layer in layers for part in (layer.q, layer.k, layer.v)}
    pruner = tp.pruner.MetaPruner(
        model,
        subject.example,
        importance=scores,
        pruning_ratio=0.9,
        iterative_steps=200,
        ignored_layers=heads,
        round_to=None,
        num_heads=attention,
        prune_head_dims=bool(attention),
    )
    whole, _ = tp.utils.count_ops_and_params(model, subject.example)
    best = model
    for _ in range(200):
        if importance == "GroupTaylor":
            model.zero_grad()
            output = model(subject.calibration.images[:8])
            own_labels(output, None).backward()
        pruner.step()
        now, _ = tp.utils.count_ops_and_params(model, subject.example)
        best = model
        if now <= macs * whole:
            break
    best.zero_grad()
    return best.eval()


def with_statistics(subject: Subject, small: nn.Module) -> nn.Module:
    """Estimate the norms' statistics of a pruned model again, on the same pictures."""
    renewed = copy.deepcopy(small)
    graph = secateur.trace(subject.model, subject.example)
    renew_statistics(renewed, batches_of(subject.batches(), subject.model, graph.calls).to_fit)
    return renewed.eval()
