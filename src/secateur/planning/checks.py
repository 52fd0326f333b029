"""What of a budget and its options makes sense, and what goes together."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from secateur.errors import PlanError, nearest
from secateur.planning.criteria.scoring import LOSSES
from secateur.planning.scope import Scope

RANKINGS = ("group", "global", "isomorphic", "time", "loss")


def check_options(ranking: Any, round_to: Any, min_channels: Any, seed: Any) -> None:
    """Check how is ranked and rounded.

    Raises:
        PlanError: it makes no sense, or something is missing.
    """
    if ranking not in RANKINGS:
        raise PlanError(f"There is no ranking {ranking!r}.{nearest(str(ranking), RANKINGS)}")
    for name, value, least in (("min_channels", min_channels, 1), ("round_to", round_to, 1), ("seed", seed, 0)):
        if value is None and name == "round_to":
            continue
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
            raise PlanError(f"{name}={value!r} makes no sense here. Give a whole number of at least {least}.")


def check_times(ranking: str, times: Any, macs: Any, params: Any, after: Any) -> None:
    """Check what ranking by time wants.

    Raises:
        PlanError: it makes no sense, or something is missing.
    """
    if ranking == "time" and (not times or (macs is None and params is None)):
        lacking = "the times of the layers (times=)" if not times else "a cap to stay under (macs= or params=)"
        raise PlanError(f'ranking="time" wants {lacking}. Give it, or take another ranking.')
    if ranking == "time" and after is not None:
        raise PlanError(
            'ranking="time" counts from the full-size model, and this one was cut before. Take another ranking.'
        )
    if times is not None and ranking != "time":
        raise PlanError(f'times count for ranking="time" alone, not for {ranking!r}. Leave them out, or say that.')


def check_loss(ranking: str, criterion: str, sensitivity: Any, caps: Sequence[Any]) -> None:
    """Check what ranking by loss wants.

    Raises:
        PlanError: it makes no sense, or something is missing.
    """
    if ranking == "loss" and all(cap is None for cap in caps):
        raise PlanError(
            'ranking="loss" wants a cap to stay under (macs= or params=). Give it, or take another ranking.'
        )
    if ranking == "loss" and sensitivity is None and criterion not in LOSSES:
        raise PlanError(
            f'ranking="loss" wants importances that are losses, and those by {criterion!r} are not. Take one of '
            f"{', '.join(sorted(LOSSES))}, or give the sensitivity of groups."
        )


def check_budget(ratio: Any, macs: Any, params: Any, scope: Scope) -> None:
    """Check that there is one kind of budget.

    Raises:
        PlanError: it makes no sense, or something is missing.
    """
    given = [name for name, value in (("ratio", ratio), ("macs", macs), ("params", params)) if value is not None]
    if scope.has_budget:
        given.append("the sparsities of config")
    if not given:
        raise PlanError('No budget was given. Pass ratio=0.5, macs="0.5x", params="1M", or a config with a sparsity.')
    if len(given) > 1 and given != ["macs", "params"]:
        raise PlanError(
            f"{' and '.join(given)} are budgets of different kinds. Keep one of them; macs and params go together."
        )
