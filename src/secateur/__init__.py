"""Structured pruning that proves itself: the same class of model, smaller.

Example:
    >>> import secateur
    >>> small, plan = secateur.prune(model, example, ratio=0.5)  # doctest: +SKIP
    >>> secateur.save("small.safetensors", small, plan)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.artifact.inspection import inspect
    from secateur.artifact.reading import load
    from secateur.artifact.shipped import pretrained
    from secateur.artifact.writing import save
    from secateur.calibration.calibrating import calibrate
    from secateur.errors import (
        ArtifactError,
        CutError,
        DataError,
        ExplainError,
        ExportError,
        GraftError,
        MeasurementError,
        PlanError,
        ProofError,
        RuntimeMissingError,
        RuntimeUnfitError,
        SecateurError,
        TraceError,
    )
    from secateur.graph.groups import Graph
    from secateur.graph.tracing import trace
    from secateur.measurement.sensitivity import sensitivity
    from secateur.pipeline import prune, prune_steps
    from secateur.planning.planning import plan
    from secateur.planning.plans import Plan
    from secateur.surgery.compensation.compensating import compensate
    from secateur.surgery.cutting import cut
    from secateur.surgery.grafting import graft
    from secateur.surgery.masking import mask
    from secateur.surgery.proof import Proof, verify
    from secateur.surgery.transfer import transfer

# Where each public name lives; imported when it is first asked for, so that `import secateur` costs nothing.
_HOMES = {
    "ArtifactError": "errors",
    "CutError": "errors",
    "DataError": "errors",
    "ExplainError": "errors",
    "ExportError": "errors",
    "GraftError": "errors",
    "Graph": "graph.groups",
    "MeasurementError": "errors",
    "Plan": "planning.plans",
    "PlanError": "errors",
    "Proof": "surgery.proof",
    "ProofError": "errors",
    "RuntimeMissingError": "errors",
    "RuntimeUnfitError": "errors",
    "SecateurError": "errors",
    "TraceError": "errors",
    "calibrate": "calibration.calibrating",
    "compensate": "surgery.compensation.compensating",
    "cut": "surgery.cutting",
    "graft": "surgery.grafting",
    "inspect": "artifact.inspection",
    "load": "artifact.reading",
    "mask": "surgery.masking",
    "plan": "planning.planning",
    "pretrained": "artifact.shipped",
    "prune": "pipeline",
    "prune_steps": "pipeline",
    "save": "artifact.writing",
    "sensitivity": "measurement.sensitivity",
    "trace": "graph.tracing",
    "transfer": "surgery.transfer",
    "verify": "surgery.proof",
}

__all__ = [
    "ArtifactError",
    "CutError",
    "DataError",
    "ExplainError",
    "ExportError",
    "GraftError",
    "Graph",
    "MeasurementError",
    "Plan",
    "PlanError",
    "Proof",
    "ProofError",
    "RuntimeMissingError",
    "RuntimeUnfitError",
    "SecateurError",
    "TraceError",
    "calibrate",
    "compensate",
    "cut",
    "graft",
    "inspect",
    "load",
    "mask",
    "plan",
    "pretrained",
    "prune",
    "prune_steps",
    "save",
    "sensitivity",
    "trace",
    "transfer",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    return getattr(importlib.import_module(f"secateur.{_HOMES[name]}"), name)


def _version() -> str:
    try:
        return importlib.metadata.version("secateur")
    except importlib.metadata.PackageNotFoundError:  # run from a folder of sources, without being installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
