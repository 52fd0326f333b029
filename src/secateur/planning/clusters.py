"""Widths tied by more than being equal, such as the rows of a table: settled by a small integer programme."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp


@dataclass(frozen=True, eq=False)
class Cluster:
    """Variables under whole-number conditions: `matrix @ kept[variables] == target`."""

    variables: np.ndarray  # (n,) numbers of variables
    matrix: np.ndarray  # (conditions, n)
    target: np.ndarray  # (conditions,)

    def holds(self, kept: np.ndarray) -> bool:
        """Tell whether the widths satisfy the conditions."""
        return bool((self.matrix @ kept == self.target).all())

    def settle(self, wanted: np.ndarray, bounds: np.ndarray, looser: np.ndarray) -> np.ndarray:
        """Return the widths nearest to the `wanted` ones that satisfy the conditions.

        `bounds` and `looser` have four rows: least width, start and step of the grid, full size. Where the conditions
        cannot be met within `bounds`, `looser` counts; where not on the grid either, any whole number; the full sizes
        always satisfy them.
        """
        off_grid = looser.copy()
        off_grid[2] = 1
        for attempt in (bounds, looser, off_grid):
            found = self._nearest(wanted, attempt)
            if found is not None:
                return found
        return bounds[3].astype(np.int64)

    def smallest_move(self, position: int, step: np.ndarray, free: np.ndarray) -> np.ndarray | None:
        """Return the smallest widening, in steps of free variables, that takes in the one at `position`, or None."""
        least = np.zeros(len(step))
        least[position] = 1
        if not free[position]:
            return None
        found = milp(
            np.ones(len(step)),
            integrality=np.ones(len(step)),
            bounds=Bounds(least, np.where(free, np.inf, 0)),  # type: ignore[arg-type]  # SciPy declares floats
            constraints=LinearConstraint(self.matrix * step, 0, 0),
            options={"mip_rel_gap": 0},
        )
        return None if found.x is None else np.rint(found.x).astype(np.int64) * step

    def _nearest(self, wanted: np.ndarray, bounds: np.ndarray) -> np.ndarray | None:
        """Minimise the summed and the largest relative distance; variables: steps, full or not, distances, largest."""
        least, start, step, size = bounds.astype(np.float64)
        n = len(least)
        steps = (size - start) // step
        beyond = size > start + steps * step
        eye, none, column = np.eye(n), np.zeros((n, n)), np.zeros((n, 1))
        width = np.hstack([np.diag(step), np.diag(size - start), none, column])
        relative = width / size[:, None]
        distance = np.hstack([none, none, eye, column])
        offset = (wanted - start) / size
        constraints = [
            LinearConstraint(self.matrix @ width, self.target - self.matrix @ start, self.target - self.matrix @ start),
            LinearConstraint(width, least - start, size - start),
            LinearConstraint(np.hstack([eye, np.diag(steps), none, column]), -np.inf, steps),
            LinearConstraint(distance - relative, -offset, np.inf),
            LinearConstraint(distance + relative, offset, np.inf),
            LinearConstraint(np.hstack([none, none, -eye, column + 1]), 0, np.inf),
        ]
        found = milp(
            np.concatenate([np.zeros(2 * n), np.ones(n + 1)]),
            integrality=np.concatenate([np.ones(2 * n), np.zeros(n + 1)]),
            bounds=Bounds(0, np.concatenate([steps, beyond, np.full(n + 1, np.inf)])),  # type: ignore[arg-type]
            constraints=constraints,
            options={"mip_rel_gap": 0},
        )
        if found.x is None:
            return None
        kept = np.rint(start + width[:, : 2 * n] @ np.rint(found.x[: 2 * n])).astype(np.int64)
        return kept if self.holds(kept) else None
