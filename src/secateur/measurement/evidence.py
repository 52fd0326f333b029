"""What samples decide of a budget before anything is cut: which channels matter, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from secateur.calibration.calibrating import Calibration
from secateur.errors import PlanError
from secateur.graph.groups import Graph
from secateur.measurement.sensitivity import SHARES, losses_of_groups, output_loss
from secateur.planning.sensitivities import Curve

QUICK = (0.25,)  # share of each group at which its sensitivity is measured, unless curves are asked for


def decided_by_data(
    model: nn.Module,
    graph: Graph,
    calibration: Calibration,
    words: Mapping[str, Any],
    sensitivity: Mapping[str, Curve] | None,
    competing: bool,
    timed: bool,
) -> dict[str, Any]:
    """Return the words of a budget, with what they leave open decided by data.

    Args:
        model: the full-size model.
        graph: its graph.
        calibration: what its weights read.
        words: the budget, as for `plan`; `allocate="sensitivity"` asks for curves.
        sensitivity: what the model loses with each group; measured if it is needed and not given.
        competing: whether the budget is one for all groups together.
        timed: whether it is a time.
    """
    found = {**words, "calibration": calibration}
    thorough = found.pop("allocate", None) == "sensitivity"
    if found.get("criterion") is None:
        found["criterion"] = "obs"
    asked = found.get("ranking")
    if competing and asked in (None, "loss", "time"):
        if sensitivity is None:
            shares: Sequence[float] = SHARES if thorough else QUICK
            judge = output_loss(model, calibration)
            sensitivity = losses_of_groups(graph, model, calibration, found, shares, judge)
        found["sensitivity"] = sensitivity
        if asked is None and not timed:
            found["ranking"] = "loss"
    elif thorough or sensitivity is not None:
        raise PlanError(
            f"{'allocate' if thorough else 'sensitivity'}: what the model loses with each group shares out a cap for "
            'all of them. Give macs, params, quality or a time, and leave ranking out (or say "loss" or "time").'
        )
    return found
