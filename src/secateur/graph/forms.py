"""Linear forms: how a size depends on how many units each group keeps, and the conditions that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from secateur.graph.coupling import Coupling
from secateur.graph.groups import Equalities, Reason
from secateur.graph.labels import digest
from secateur.graph.provenance import Attribute, Expression, Extent


class Form(NamedTuple):
    """`fixed + sum(counts[group] * kept[group])`."""

    fixed: float
    counts: dict[int, float]

    def plus(self, other: Form, sign: int) -> Form:
        """Return the sum (`sign` 1) or the difference (-1)."""
        counts = dict(self.counts)
        for group, count in other.counts.items():
            counts[group] = counts.get(group, 0.0) + sign * count
        return Form(self.fixed + sign * other.fixed, counts)

    def times(self, factor: float) -> Form:
        """Return a multiple."""
        return Form(
            self.fixed * factor,
            {group: count * factor for group, count in self.counts.items()},
        )


class Forms:
    """The forms of the sizes in a model, each axis' made once."""

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        self._of_twins: dict[int, Form] = {}
        self._of_extents: dict[tuple[bytes, bool], Form] = {}

    def of_axis(self, axis: int) -> Form:
        """Return the size of a tensor's axis, by its number; twins have one form."""
        first = int(self.coupling.units.twin[axis])
        if first not in self._of_twins:
            atoms = self.coupling.atoms.known(*self.coupling.atoms.axes[first])
            self._of_twins[first] = self._counted(self.coupling.families(atoms), 1)
        return self._of_twins[first]

    def of(self, extent: Extent) -> Form:
        """Return the size of a dimension."""
        axis = self.coupling.atoms.whole(extent.labels)
        if axis is not None and extent.labels.shape[1] == 1:
            return self.of_axis(axis)
        key = digest(extent.labels), extent.columns
        if key not in self._of_extents:
            labels = self.coupling.narrowed(extent)
            self._of_extents[key] = self._counted(self.coupling.families(labels).ravel(), labels.shape[1])
        return self._of_extents[key]

    def _counted(self, families: np.ndarray, share: int) -> Form:
        if len(families) and (families == families[0]).all():  # the usual case, and sorting takes time
            return self._of_one(int(families[0]), len(families) / share)
        counts = np.bincount(families + 1)  # sorting would take longer
        groups = np.flatnonzero(counts[1:])
        each = counts[groups + 1] / self.coupling.sizes[groups] / share
        return Form(int(counts[0]) / share, dict(zip(groups.tolist(), each.tolist(), strict=True)))

    def _of_one(self, group: int, size: float) -> Form:
        return Form(size, {}) if group < 0 else Form(0.0, {group: size / int(self.coupling.sizes[group])})

    def of_expression(self, expression: Expression, known: Mapping[Attribute, Form]) -> Form | None:
        """Return an expression of sizes; None if it is not linear, or an attribute in it gives no size."""
        if isinstance(expression, int):
            return Form(float(expression), {})
        if isinstance(expression, Extent):
            return self.of(expression)
        if isinstance(expression, Attribute):
            return known.get(expression)
        left, right = (self.of_expression(side, known) for side in (expression.left, expression.right))
        return None if left is None or right is None else _combined(expression.name, left, right)


def _combined(name: str, left: Form, right: Form) -> Form | None:
    """Compute with two linear forms; None if the result is not linear."""
    if name in "+-":
        return left.plus(right, 1 if name == "+" else -1)
    if name == "*" and not any(left.counts.values()):
        left, right = right, left
    if any(right.counts.values()) or (name == "//" and not right.fixed):
        return None
    return left.times(right.fixed if name == "*" else 1 / right.fixed)


# -- conditions ------------------------------------------------------------------------------------------------------


Condition = tuple[tuple[int, ...], tuple[int, ...]]  # groups; their whole coefficients, and what these must come to


def equalities_of(forms: Forms) -> Equalities:
    """Return the tables' and the integers' conditions, each once."""
    found: dict[Condition, Reason] = {}
    for condition, reason in chain(_table_conditions(forms.coupling), _integer_conditions(forms)):
        if condition[0]:
            found.setdefault(condition, reason)
    matrix = np.zeros((len(found), len(forms.coupling.sizes)), np.int64)
    at = np.repeat(np.arange(len(found)), [len(groups) for groups, _ in found])
    matrix[at, [group for groups, _ in found for group in groups]] = [n for _, row in found for n in row[:-1]]
    target = np.array([row[-1] for _, row in found], np.int64)
    return Equalities(matrix, target, tuple(found.values()))


def _table_conditions(coupling: Coupling) -> Iterator[tuple[Condition, Reason]]:
    """Every row of a table keeps as many as the next."""
    sizes = np.append(coupling.sizes, 1)  # of kind -1, what stays, each label is one
    marks = np.random.default_rng(0).integers(-(2**62), 2**62, len(sizes))  # the same row, the same sum
    for matrix, reason in coupling.tables:
        kinds, cells = _numbered(coupling.families(matrix))
        cells = cells + len(kinds) * np.arange(len(matrix))[:, None]
        counts = np.bincount(cells.ravel(), minlength=len(matrix) * len(kinds)).reshape(len(matrix), -1)
        changes = counts[:-1] - counts[1:]
        _, first = np.unique(changes @ marks[kinds], return_index=True)
        for condition in _conditions(changes[np.sort(first)], kinds, sizes[kinds]):
            yield condition, reason


def _numbered(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the kinds, from -1 up, each once and in order, and the place of each entry's among them."""
    found = np.flatnonzero(np.bincount(kinds.ravel() + 1))  # sorting would take longer
    place = np.zeros(len(found) and found[-1] + 1, np.int64)
    place[found] = np.arange(len(found))
    return found - 1, place[kinds + 1]


def _conditions(counts: np.ndarray, kinds: np.ndarray, sizes: np.ndarray) -> Iterator[Condition]:
    """Return for each row that what is kept of its `counts` labels of each kind comes to nothing; of kind -1 all is."""
    row, column = np.nonzero(counts)
    if not len(row):
        return
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    count, size = counts[row, column], sizes[column]
    scale = np.lcm.reduceat(size // np.gcd(count, size), starts)
    whole = count * np.repeat(scale, np.diff(starts, append=len(row))) // size
    kind, whole = kinds[column].tolist(), whole.tolist()
    for start, end in pairwise([*starts.tolist(), len(row)]):
        fixed = kind[start] < 0  # kinds are in order
        yield tuple(kind[start + fixed : end]), (*whole[start + fixed : end], -whole[start] if fixed else 0)


def _integer_conditions(forms: Forms) -> Iterator[tuple[Condition, Reason]]:
    """An attribute has one value wherever it gives a size, and what is computed from sizes is a size as well."""
    known: dict[Attribute, Form] = {}
    for use in forms.coupling.uses:
        if isinstance(use.expression, Attribute) and use.expression not in known:
            known[use.expression] = forms.of(use.extent)
    for use in forms.coupling.uses:
        wanted = forms.of_expression(use.expression, known)
        if wanted is not None:
            yield _whole(forms.of(use.extent).plus(wanted, -1)), use.reason
    for decision in forms.coupling.decisions:
        if decision.name == "==" and decision.result:
            left, right = (forms.of_expression(side, known) for side in (decision.left, decision.right))
            if left is not None and right is not None:
                yield _whole(left.plus(right, -1)), decision.reason


def _whole(form: Form, most: int = 4096) -> Condition:
    """Return that a form is zero, with the smallest factor that makes its coefficients whole numbers."""
    groups = tuple(sorted(group for group, count in form.counts.items() if count))
    counts = np.array([form.counts[group] for group in groups])
    scale = 1
    if not (counts == np.rint(counts)).all():
        scaled = np.outer(np.arange(1, most + 1), counts)
        whole = np.isclose(scaled, np.rint(scaled), atol=1e-6).all(axis=1)
        scale = int(np.argmax(whole)) + 1
    return groups, tuple(np.rint(np.append(counts, -form.fixed) * scale).astype(np.int64).tolist())
