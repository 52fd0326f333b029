"""What a file says of itself, read from its header alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.artifact.format import read_header
from secateur.artifact.identity import describe
from secateur.artifact.reading import names_and_plans
from secateur.errors import ArtifactError
from secateur.planning.plans import Plan


@dataclass(frozen=True)
class Inspection:
    """What a file holds beside its weights. Nothing was computed: only loading checks the checksum."""

    path: str
    bytes: int
    identity: Mapping[str, Any]
    plans: tuple[Plan, ...]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape of every stored tensor, each once
    aliases: Mapping[str, str]
    preprocessing: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    proof: Mapping[str, Any] | None

    @property
    def model(self) -> str:
        """The model as people name it."""
        return describe(self.identity)

    @property
    def plan(self) -> Plan:
        """The last plan, the one that made the model of this file."""
        return self.plans[-1]

    @property
    def elements(self) -> int:
        """The number of stored parameters and statistics."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())

    @property
    def full_elements(self) -> int:
        """The number of elements that the same tensors had in the full-size model."""
        full = self.plans[0].fingerprint
        return sum(math.prod(full.get(name, shape)) for name, (_, shape) in self.tensors.items())


def inspect(path: str | Path) -> Inspection:
    """Return what the file at `path` says of itself, without reading its weights.

    Raises:
        ArtifactError: it is missing, damaged, or no file of ours.

    Example:
        >>> inspect("small.safetensors").plan.recipe  # doctest: +SKIP
    """
    document, tensors, size = read_header(path)
    aliases, plans = names_and_plans(document, {name: shape for name, (_, shape) in tensors.items()}, path)
    try:
        return Inspection(
            path=str(path),
            bytes=size,
            identity=dict(document["identity"]),
            plans=plans,
            tensors=tensors,
            aliases=aliases,
            preprocessing=document["preprocessing"],
            provenance=dict(document["provenance"]),
            proof=document["proof"],
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{path} lacks what a file of secateur holds ({error}). Prune the model again.") from error


def as_data(found: Inspection) -> dict[str, Any]:
    """Return an inspection as JSON values."""
    return {
        "path": found.path,
        "bytes": found.bytes,
        "model": found.model,
        "identity": dict(found.identity),
        "elements": {"before": found.full_elements, "after": found.elements},
        "tensors": {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in found.tensors.items()},
        "aliases": dict(found.aliases),
        "preprocessing": found.preprocessing,
        "provenance": dict(found.provenance),
        "proof": found.proof,
        "plans": [json.loads(plan.to_json()) for plan in found.plans],
    }
