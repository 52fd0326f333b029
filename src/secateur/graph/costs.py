"""Parameters and MACs of a model as a polynomial in how many units each group keeps (docs/design.md, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

Kept = Sequence[int] | np.ndarray


class Term(NamedTuple):
    """`coefficient * extent[a] * extent[b] * ...`: the parameters of a tensor, or the MACs of one operation."""

    what: Literal["params", "macs"]
    layer: str  # the module that owns it
    op: str  # "conv", "linear", "matmul"; for parameters the kind of layer: "conv", "linear", "norm", "other"
    coefficient: int
    extents: tuple[int, ...]  # rows of `Costs.extents`


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs: parameters (a count) and MACs (multiply-accumulates of the traced calls)."""

    layer: str
    op: str
    params: float
    macs: float


@dataclass(frozen=True)
class Costs:
    """Costs for any numbers of kept units; extents are linear in them, costs products of extents."""

    fixed: np.ndarray  # (extents,): what stays of each extent
    per_unit: sparse.csr_array  # (extents, groups): what a unit of each group adds to it
    terms: tuple[Term, ...]
    full: np.ndarray  # (groups,): the sizes of the groups

    def params(self, kept: Kept | None = None, ops: Sequence[str] | None = None) -> float:
        """Return the number of parameters (buffers do not count); `ops` limits it to kinds of layer."""
        return self._total("params", kept, ops)

    def macs(self, kept: Kept | None = None, ops: Sequence[str] | None = None) -> float:
        """Return the multiply-accumulates of the traced calls; `ops` limits it to kinds of operation."""
        return self._total("macs", kept, ops)

    def by_layer(self, kept: Kept | None = None) -> list[LayerCost]:
        """Return the cost of every layer, in the order in which they run; a layer may appear once per kind."""
        extents = self._extents(kept)
        found: dict[tuple[str, str], list[float]] = {}
        for term in self.terms:
            entry = found.setdefault((term.layer, term.op), [0.0, 0.0])
            entry[0 if term.what == "params" else 1] += _value(term, extents)
        return [LayerCost(layer, op, params, macs) for (layer, op), (params, macs) in found.items()]

    def _extents(self, kept: Kept | None) -> np.ndarray:
        widths = self.full if kept is None else np.asarray(kept)
        return self.fixed + self.per_unit @ widths

    def _total(self, what: str, kept: Kept | None, ops: Sequence[str] | None) -> float:
        extents = self._extents(kept)
        return sum(_value(term, extents) for term in self.terms if term.what == what and (not ops or term.op in ops))


def _value(term: Term, extents: np.ndarray) -> float:
    return term.coefficient * float(np.prod(extents[list(term.extents)]))
