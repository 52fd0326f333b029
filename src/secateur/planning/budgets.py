"""Budgets: amounts such as 0.5, "0.24x" or "41.54M", checked, and the costs that they cap."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np

from secateur.errors import PlanError
from secateur.graph.costs import Costs, Term

Cost = Callable[[np.ndarray], float]  # of the numbers of kept units, one per group

_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z%]?)\s*", re.IGNORECASE)
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Cap:
    """A cost that must not exceed a limit."""

    name: str  # "macs", "params", or what another cost function counts
    limit: float
    cost: Cost

    def fill(self, kept: np.ndarray) -> float:
        """Return the share of the limit that the numbers of kept units use up."""
        return self.cost(kept) / self.limit


def read_ratio(value: Any, name: str = "ratio") -> float:
    """Return a share of channels to remove, above 0 and below 1.

    Raises:
        PlanError: it is anything else.

    Example:
        >>> read_ratio(0.5)
        0.5
    """
    if isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < 1:
        return float(value)
    raise PlanError(
        f"{name}={value!r} is no share of the channels to remove. Give a number between 0 and 1, such as {name}=0.5."
    )


def read_cap(value: Any, full: float, name: str) -> float:
    """Return the limit that an amount stands for: a number, `"41.54M"`, or `"0.24x"` of the `full` cost.

    Raises:
        PlanError: it is no amount, or the model as it is stays under it.

    Example:
        >>> read_cap("0.25x", 1000.0, "macs"), read_cap("1.3k", 5000.0, "params")
        (250.0, 1300.0)
    """
    number, unit = _split(value, name)
    relative = unit == "x"
    limit = number * full if relative else number * _FACTORS[unit]
    if not relative and not unit and limit < 1:
        raise PlanError(
            f'{name}={value!r} is less than one of them. For a share of the model write {name}="{number:g}x".'
        )
    if relative and number >= 1:
        raise PlanError(f'{name}={value!r} removes nothing. Give a share below 1, such as {name}="0.5x".')
    return limit


def counted(costs: Costs, what: Literal["params", "macs"]) -> Cost:
    """Return `costs.params` or `costs.macs` as a function of a few microseconds, for the many calls of a search."""
    terms = [term for term in costs.terms if term.what == what]
    coefficients = np.array([term.coefficient for term in terms], dtype=np.float64)
    extents = factors_of(terms, costs)

    def cost(kept: np.ndarray) -> float:
        widths = np.append(costs.fixed + costs.per_unit @ kept, 1.0)
        return float(coefficients @ widths[extents].prod(axis=1))

    return cost


def factors_of(terms: Sequence[Term], costs: Costs) -> np.ndarray:
    """Return the extents of each term, a row each; shorter ones are filled up with the number after the last extent."""
    rank = max((len(term.extents) for term in terms), default=0)
    extents = np.full((len(terms), rank), len(costs.fixed))
    for row, term in enumerate(terms):
        extents[row, : len(term.extents)] = term.extents
    return extents


def shown(value: float) -> str:
    """Return a count for people, with its exact value: `41540000 (41.54M)`."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{math.ceil(value):d} ({value / size:.4g}{suffix})"
    return f"{math.ceil(value):d}"


def _split(value: Any, name: str) -> tuple[float, str]:
    if isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf:
        return float(value), ""
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    unit = match[2].lower() if match else ""
    if match is None or (unit != "x" and unit not in _FACTORS) or not 0 < float(match[1]) < math.inf:
        raise PlanError(
            f'{name}={value!r} is no amount. Give a number, a text such as "41.54M", or a share such as "0.25x".'
        )
    return float(match[1]), unit
