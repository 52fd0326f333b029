"""How a budget is reached in several steps: what is kept at first, a little less at every step, the budget at last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from torch import nn

from secateur.errors import PlanError, nearest
from secateur.graph.groups import Graph
from secateur.planning.budgets import read_cap
from secateur.planning.configuration import read_configuration
from secateur.planning.rules import with_sparsities
from secateur.planning.shares import REST, read_shares

Schedule = str | Sequence[float]
Keeping = Callable[[float], float]  # from the share that is kept in the end to the share that is kept now

SCHEDULES: Mapping[str, Callable[[float, float], float]] = {
    "linear": lambda kept, progress: 1 - (1 - kept) * progress,
    "geometric": lambda kept, progress: kept**progress,
    "cubic": lambda kept, progress: 1 - (1 - kept) * (1 - (1 - progress) ** 3),
}


def stages_of(
    graph: Graph, model: nn.Module, budget: Mapping[str, Any], steps: int, schedule: Schedule
) -> list[dict[str, Any]]:
    """Return the budget of each step, the given one last; all are of the full-size model, whose graph this is.

    Raises:
        PlanError: the number of steps, the schedule or the budget makes no sense.
    """
    before = [_stage(graph, model, budget, keeping) for keeping in _keepings(steps, schedule)]
    return [*before, dict(budget)]


def _keepings(steps: Any, schedule: Any) -> list[Keeping]:
    """Return what is kept at every step but the last."""
    if not isinstance(schedule, str):
        shares = _checked_shares(schedule)
        return [lambda kept, share=share: 1 - (1 - kept) * share for share in shares[:-1]]
    if schedule not in SCHEDULES:
        raise PlanError(f"There is no schedule {schedule!r}.{nearest(schedule, SCHEDULES)}")
    if not isinstance(steps, Integral) or isinstance(steps, bool) or int(steps) < 1:
        raise PlanError(f"steps={steps!r} makes no sense here. Give a whole number of at least 1.")
    path = SCHEDULES[schedule]
    return [lambda kept, step=step: path(kept, step / int(steps)) for step in range(1, int(steps))]


def _checked_shares(schedule: Any) -> list[float]:
    shares = list(schedule) if isinstance(schedule, Sequence) else []
    numbers = all(isinstance(share, Real) and not isinstance(share, bool) for share in shares)
    if not shares or not numbers or not shares[0] > 0 or sorted(set(shares)) != shares or shares[-1] != 1:
        raise PlanError(
            f"schedule={schedule!r} is none. Give a name ({', '.join(SCHEDULES)}) or, for each step, the share of the "
            "way that is done after it, growing up to 1: [0.5, 0.8, 1]."
        )
    return shares


def _stage(graph: Graph, model: nn.Module, budget: Mapping[str, Any], keeping: Keeping) -> dict[str, Any]:
    def removed(share: float) -> float:
        return round(1 - keeping(1 - share), 12)

    stage = dict(budget)
    if budget.get("ratio") is not None:
        shares = {word: removed(share) for word, share in read_shares(model, budget["ratio"], "ratio").items()}
        stage["ratio"] = shares[REST] if set(shares) == {REST} else shares
    for name in ("macs", "params"):
        if budget.get(name) is not None:
            full = getattr(graph.costs, name)()
            stage[name] = full * keeping(min(read_cap(budget[name], full, name) / full, 1.0))
    if budget.get("config") is not None:
        stage["config"] = with_sparsities(read_configuration(budget["config"]), removed)
    return stage
