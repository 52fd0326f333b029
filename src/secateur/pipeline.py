"""`prune`: trace, plan, cut and verify in one call."""

from __future__ import annotations

import inspect
import logging
import time
from typing import Any

from torch import nn

from secateur.errors import PlanError, ProofError, nearest
from secateur.graph.groups import Graph
from secateur.graph.tracing import Attention, trace
from secateur.planning.names import layers_at_fault
from secateur.planning.planning import plan as make_plan
from secateur.planning.plans import Plan
from secateur.surgery.cutting import cut
from secateur.surgery.proof import verify

MOST_REPAIRS = 8
LONGEST_SEARCH = 60.0  # seconds

log = logging.getLogger("secateur")


def prune(
    model: nn.Module, example: Any, free_outputs: bool = False, attention: Attention = "auto", **budget: Any
) -> tuple[nn.Module, Plan]:
    """Make a model smaller, and prove it.

    A family of channels that fails the proof is left whole, the rest planned again, and that is logged; a model that
    fails is never returned.

    Args:
        model: the model; untouched.
        example: how it is called: a tensor, a tuple, a dict of keyword arguments, or a list of such calls.
        free_outputs: the channels that leave the model may be cut, too.
        attention: whether channels of every head go ("dims") or whole heads ("heads"); see `secateur.trace`.
        **budget: as for `secateur.plan`: `ratio=0.5`, or `macs="0.25x"` and `params="1.3M"`, or `config=...`, and how.

    Returns:
        The pruned model, of the same class, and the plan; `plan.proof` has the figures.

    Raises:
        TraceError: the model does not run on the example.
        PlanError: the budget makes no sense, or cannot be met.
        ProofError: no plan for this budget passes the proof.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
        >>> small, plan = prune(model, torch.zeros(1, 3, 16, 16), ratio=0.5)
        >>> small[0].weight.shape
        torch.Size([8, 3, 3, 3])
    """
    graph = trace(model, example, free_outputs=free_outputs, attention=attention)
    _check_names(budget)
    given = budget.pop("ignore", ())
    ignore: list[Any] = [given] if isinstance(given, (str, nn.Module)) else list(given)
    for _ in range(MOST_REPAIRS):
        plan = make_plan(graph, model, ignore=ignore, **budget)
        small = cut(model, plan)
        try:
            return small, plan.with_proof(verify(model, small, plan, example, graph=graph))
        except ProofError as error:
            culprits = layers_at_fault(graph, error.tensors, ignore) or _searched(model, example, graph, ignore, budget)
            if not culprits:
                raise
            log.warning("%s These layers are left whole: %s.", error, ", ".join(culprits))
            ignore += culprits
    raise ProofError(
        f"After {MOST_REPAIRS} repairs no plan passes the proof; left whole so far: {', '.join(ignore)}. "
        "Name further layers to leave whole (ignore=)."
    )


def _searched(model: nn.Module, example: Any, graph: Graph, ignore: list[Any], budget: dict[str, Any]) -> list[str]:
    """Narrow a failed proof that names no tensor down to one layer, by halves; more than one may be at fault."""
    suspects = list(dict.fromkeys(group.members[0].layer for group in graph.groups))
    suspects = [layer for layer in suspects if layer and layer not in ignore]
    if not suspects or not _passes(model, example, graph, [*ignore, *suspects], budget):
        return []
    log.warning("The proof fails without naming a layer; searching %d of them by halves.", len(suspects))
    deadline = time.monotonic() + LONGEST_SEARCH
    while len(suspects) > 1:
        if time.monotonic() > deadline:
            return []
        half, rest = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
        suspects = half if _passes(model, example, graph, [*ignore, *half], budget) else rest
    return suspects


def _passes(model: nn.Module, example: Any, graph: Graph, ignore: list[Any], budget: dict[str, Any]) -> bool:
    try:
        make_plan(graph, model, ignore=ignore, **budget)
    except PlanError:  # with so much left whole the budget cannot be met; the coupling can be tried all the same
        budget = {"ratio": 0.5, "min_channels": 1}
    try:
        plan = make_plan(graph, model, ignore=ignore, **budget)
        verify(model, cut(model, plan), plan, example, graph=graph)
    except (PlanError, ProofError):
        return False
    return True


def _check_names(budget: dict[str, Any]) -> None:
    known = list(inspect.signature(make_plan).parameters)[2:]
    unknown = next((name for name in budget if name not in known), None)
    if unknown is not None:
        raise PlanError(f"prune takes no argument {unknown!r}.{nearest(unknown, known)}")
