"""What samples say of a model before it is cut: which channels matter, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from secateur.calibration.calibrating import Calibration
from secateur.graph.groups import Graph
from secateur.measurement.sensitivity import measured_losses, output_error
from secateur.planning.criteria.scoring import importances
from secateur.planning.outputs import kinds_of, outputs_of
from secateur.planning.planning import tensors_of
from secateur.planning.sensitivities import Curve

SHARE = 0.25  # of each group, at which its sensitivity is measured unless curves are given


def judged_by_data(
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
        words: the budget, as for `plan`.
        sensitivity: what the model loses with each group; measured if it is needed and not given.
        competing: whether the budget is one for all groups together.
        timed: whether it is a time.
    """
    found = {**words, "calibration": calibration}
    if found.get("criterion") is None:
        found["criterion"] = "obs"
    asked = found.get("ranking")
    if competing and asked in (None, "loss", "time"):
        if sensitivity is None:
            judged = judged_importances(model, graph, calibration, found)
            judge = output_error(model, calibration)
            sensitivity = measured_losses(graph, model, judged, calibration, [SHARE], judge, range(len(graph.groups)))
        found["sensitivity"] = sensitivity
        if asked is None and not timed:
            found["ranking"] = "loss"
    return found


def judged_importances(
    model: nn.Module, graph: Graph, calibration: Calibration | None, words: Mapping[str, Any]
) -> Sequence[np.ndarray]:
    """Return the importances of every group by the criterion that the words name."""
    return importances(
        graph,
        outputs_of(graph, kinds_of(graph, model)),
        tensors_of(model),
        words.get("criterion") or "l1",
        words.get("scores"),
        words.get("seed", 0),
        calibration=calibration,
    )
