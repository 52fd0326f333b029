"""Which rows of which weights make up for a number that changes with the channels.

The scale of attention, 1 / sqrt(head_dim), changes with the channels of a head. Rows of the layer that made the queries
or the keys are multiplied to make up for it, where nothing else notices. For this a `Factor` travels with tensors: by
what they would change if rows were multiplied and sizes were others. Movement and products carry it on; wherever else
a tensor is used its factor must be one. These equations are solved for the rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, NamedTuple

import numpy as np
import torch

from secateur.graph.groups import Reason
from secateur.graph.labels import Sheet, along, distinct
from secateur.graph.provenance import Expression, Extent, Operation
from secateur.graph.registry import Rule
from secateur.graph.rules import attention, contraction, convolution, indexing, movement, normalization, pointwise
from secateur.graph.running import LabelRun

FACTOR = "_secateur_factor"  # attribute of a tensor

PASSING = frozenset({
    movement.view, movement.unflatten, movement.permute, movement.transpose, movement.matrix_transpose,
    movement.squeeze, movement.unsqueeze, movement.expand, movement.repeat, movement.repeat_interleave, movement.flip,
    movement.roll,
    indexing.slice_, indexing.narrow, indexing.select, indexing.unbind, indexing.chunk, indexing.split,
    indexing.split_with_sizes, pointwise.same,
})  # fmt: skip
JOINING = frozenset({movement.cat, movement.stack})
SHAPES_ONLY = frozenset({pointwise.filled_like, movement.made})
HEEDING = frozenset({pointwise.pointwise, attention.attention, contraction.addmm})  # they look at scalars themselves


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a weight (and bias), each beside the label that it had in the tensor that they made."""

    keys: Sequence[Sheet]  # the tensor's sheets
    stored: Sequence[Sheet]  # those of weight and bias along their axis 0, laid out as in the tensor

    @cached_property
    def all(self) -> np.ndarray:
        """The atoms of all rows, in no order."""
        return np.concatenate([each.ravel() for each in self.stored])

    def atoms(self, sheets: Sequence[Sheet]) -> np.ndarray:
        """Return the atoms of the rows that made elements with these labels; of all rows if that is not known."""
        every = [each.ravel() for each in np.broadcast_arrays(*self.stored)]
        if len(sheets) == len(self.keys) == 1:
            keys = np.broadcast_to(self.keys[0], np.broadcast_shapes(self.keys[0].shape, self.stored[0].shape)).ravel()
            labels = sheets[0].ravel()
            known, meant = np.zeros((2, 1 + max(keys.max(), labels.max())), bool)  # `np.isin` takes ten times as long
            known[keys] = meant[labels] = True
            if len(keys) == len(every[0]) and known[labels].all():
                every = [column[meant[keys]] for column in every]
        return distinct(np.concatenate(every))


@dataclass(frozen=True, eq=False)
class Term:
    """Rows, of which those count that made the elements with some labels."""

    rows: Rows
    sheets: Sequence[Sheet] | None = None  # None: those of the tensor that carries the factor
    power: float = 1.0


@dataclass(frozen=True, eq=False)
class Size:
    """A number proportional to a power of a size, and where it was used."""

    expression: Expression
    power: float
    reason: Reason


@dataclass(frozen=True, eq=False)
class Factor:
    """A product of rows' multipliers and of powers of sizes."""

    terms: tuple[Term, ...] = ()
    sizes: tuple[Size, ...] = ()

    def bound(self, sheets: Sequence[Sheet]) -> Factor:
        """Return the factor of a tensor with these sheets, to be combined with those of others."""
        if all(term.sheets is not None for term in self.terms):
            return self
        return Factor(tuple(t if t.sheets is not None else replace(t, sheets=sheets) for t in self.terms), self.sizes)

    def times(self, other: Factor, power: float = 1.0) -> Factor:
        """Return the product with a power of another factor."""
        terms = tuple(replace(term, power=term.power * power) for term in other.terms)
        sizes = tuple(replace(size, power=size.power * power) for size in other.sizes)
        return Factor(self.terms + terms, self.sizes + sizes)


ONE = Factor()


class Ran(NamedTuple):
    """An operation that has run, its rule, and the numbers that it multiplies by."""

    func: Any
    found: Rule | None
    out: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sizes: tuple[Size, ...] = ()

    @property
    def results(self) -> Sequence[Any]:
        """What it returned, one or several."""
        return self.out if isinstance(self.out, (list, tuple)) else (self.out,)


def factor_of(run: LabelRun, tensor: Any) -> Factor:
    """Return the factor that a tensor carries; a parameter or buffer has its own rows."""
    if not isinstance(tensor, torch.Tensor):
        return ONE
    found: Factor | None = getattr(tensor, FACTOR, None)
    if found is None and isinstance(tensor, torch.nn.Parameter):
        stored = _along_rows(run.sheets(tensor), tensor.ndim, 0)
        found = Factor((Term(Rows(run.sheets(tensor), stored)),)) if stored else ONE
        setattr(tensor, FACTOR, found)
    return found or ONE


def _along_rows(sheets: Sequence[Sheet], ndim: int, dim: int) -> list[Sheet]:
    """Lay the labels along a weight's axis 0 where they are in a tensor that it made."""
    found = [sheet for sheet in sheets if sheet.shape[0] == sheet.size > 1]
    return [along(found[0].ravel(), ndim, dim)] if len(found) == 1 else []


def outcome(run: LabelRun, ran: Ran) -> tuple[Factor, list[Factor]]:
    """Return the factor of an operation's result, and those that the operation would notice."""
    found, args, out, sizes = ran.found, ran.args, ran.out, ran.sizes
    operands = list(_tensors_in((*args, *ran.kwargs.values())))
    factors = [factor_of(run, operand) for operand in operands]
    if found in PASSING and _keeps_ratios(out):
        return _passed(run, factors[0], args[0], out), []
    bound = [
        factor if factor is ONE else factor.bound(run.sheets(operand))
        for factor, operand in zip(factors, operands, strict=True)
    ]
    if found in JOINING:
        return (factors[0], []) if len(set(map(id, factors))) == 1 else _joined(run, out, bound, factors)
    if found is pointwise.pointwise:
        return _pointwise(run, ran, operands, bound)
    if found is not None and found in SUMS_OF_PRODUCTS:
        return SUMS_OF_PRODUCTS[found](bound, Factor((), sizes))
    made = _made(run, found, out, args)
    if made is not None:
        bound = [own for own, operand in zip(bound, operands, strict=True) if not _is_one_of(operand, args[1:])]
    return made or ONE, [] if found in SHAPES_ONLY else bound


def _tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Walk the tensors among an operation's arguments or results, also those in lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)


def _keeps_ratios(out: Any) -> bool:
    """Tell whether a result is as many times larger as what it was made of: not if it was made whole."""
    results = out if isinstance(out, (list, tuple)) else (out,)
    return all(one.is_floating_point() or one.is_complex() for one in _tensors_in(results))


def _is_one_of(tensor: torch.Tensor, args: Sequence[Any]) -> bool:
    return any(tensor is arg for arg in args)


def _passed(run: LabelRun, factor: Factor, x: torch.Tensor, out: Any) -> Factor:
    """Pass a factor on; where labels were tied, those that are left no longer say which rows there are."""
    whole = isinstance(out, torch.Tensor) and out.numel() >= x.numel()
    before, after = (sum(sheet.size for sheet in run.sheets(tensor)) if whole else 0 for tensor in (x, out))
    return factor if before <= after else factor.bound(run.sheets(x))


def _same_labels(one: Sequence[Sheet], other: Sequence[Sheet]) -> bool:
    a, b = (distinct(np.concatenate([np.zeros(1, np.int64), *(s.ravel() for s in side)])) for side in (one, other))
    return np.array_equal(a, b)


def _joined(
    run: LabelRun, out: torch.Tensor, bound: Sequence[Factor], factors: Sequence[Factor]
) -> tuple[Factor, list[Factor]]:
    """Join parameters to one weight or bias, which has the rows of all."""
    stored = _along_rows(run.sheets(out), out.ndim, 0)
    if stored and all(_is_parameter(factor) and not factor.sizes for factor in factors):
        return Factor((Term(Rows(run.sheets(out), stored)),)), []
    return ONE, list(bound)


def _is_parameter(factor: Factor) -> bool:
    """Tell whether a factor is one of a parameter's rows; a constant such as zeros has none."""
    return factor is ONE or (len(factor.terms) == 1 and factor.terms[0].sheets is None)


def _product(bound: Sequence[Factor], sizes: Factor) -> tuple[Factor, list[Factor]]:
    return reduce(Factor.times, bound, sizes), []


def _added_product(bound: Sequence[Factor], sizes: Factor) -> tuple[Factor, list[Factor]]:
    """A product of the second and third operand, added to the first."""
    return ONE, [bound[0], bound[1].times(bound[2]).times(sizes)]


def _attention(bound: Sequence[Factor], sizes: Factor) -> tuple[Factor, list[Factor]]:
    """Queries times keys go through a softmax, values are summed."""
    return bound[2], [bound[0].times(bound[1]).times(sizes), *bound[3:]]


SUMS_OF_PRODUCTS = {
    contraction.matmul: _product,
    contraction.einsum: _product,
    contraction.addmm: _added_product,
    attention.attention: _attention,
}


def _pointwise(
    run: LabelRun, ran: Ran, operands: Sequence[torch.Tensor], bound: Sequence[Factor]
) -> tuple[Factor, list[Factor]]:
    name, args, sizes = ran.func._schema.name.removeprefix("aten::").rstrip("_"), ran.args, ran.sizes
    factors = [factor_of(run, operand) for operand in operands]
    name = "" if ran.kwargs.get("rounding_mode") else name
    if name in ("mul", "div", "neg") and len(operands) == 1 and operands[0] is args[0]:
        return (factors[0].times(Factor((), sizes)) if sizes else factors[0]), []
    if name in ("mul", "div") and len(operands) == 2:
        one, other = bound
        if factors[1] is ONE:
            return factors[0], []
        return one.times(other, 1.0 if name == "mul" else -1.0), []
    if name == "masked_fill" and isinstance(args[2], (int, float)) and (args[2] == 0 or math.isinf(args[2])):
        return factors[0], list(bound[1:])
    summed = name in ("add", "sub") and len(operands) == 2 and factors[0] is factors[1]
    if summed and _same_labels(*(run.sheets(operand) for operand in operands)):
        return factors[0], []
    return ONE, list(bound)


def _made(run: LabelRun, found: Rule | None, out: Any, args: Sequence[Any]) -> Factor | None:
    """Return the factor of a layer's result: that of the rows of its weight and bias."""
    made = _weights(found, args)
    if made is None:
        return None
    weight, bias, dim = made
    tensors = [weight] if bias is None else [weight, bias]
    factors = [factor_of(run, tensor) for tensor in tensors]
    stored = [_along_rows(run.sheets(tensor), out.ndim, dim) for tensor in tensors]
    plain = all(factor is not ONE and _is_parameter(factor) for factor in factors) and all(stored)
    if not plain or (len(factors) > 1 and (factors[0].sizes or factors[1].sizes)):
        return None
    return Factor((Term(Rows(run.sheets(out), [laid[0] for laid in stored])),), factors[0].sizes)


def _weights(found: Rule | None, args: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None, int] | None:
    """Return weight, bias, and along which dimension of the result their rows lie."""
    if found in (contraction.linear, convolution.convolution):
        bias = args[2] if len(args) > 2 else None
        return args[1], bias, -1 if found is contraction.linear else 1 - args[1].ndim
    if found is normalization.channel_norm and isinstance(args[1], torch.Tensor):
        return args[1], args[2], 1
    if found is normalization.layer_norm and len(args) > 2 and isinstance(args[2], torch.Tensor):
        bias = args[3] if len(args) > 3 and isinstance(args[3], torch.Tensor) else None
        return args[2], bias, -1
    return None


# -- solving ---------------------------------------------------------------------------------------------------------


def solved(noticed: Sequence[Factor]) -> tuple[list[tuple[np.ndarray, Expression, float]], list[Size]]:
    """Return which rows (atoms) to multiply, for which size and power, so that no factor is noticed.

    A number proportional to `size ** power` is made up for by rows that are multiplied by (before / after) ** power.
    The sizes for which there are none are returned beside them.
    """
    involved = _involved(noticed)
    sizes = {_key(size.expression): size for factor in involved for size in factor.sizes}
    if not sizes:
        return [], []
    sets = [[(term.rows.atoms(term.sheets or ()), term.power) for term in factor.terms] for factor in involved]
    classes, members = _classes([atoms for terms in sets for atoms, _ in terms])
    width = int(classes.max(initial=-1)) + 1
    unlabelled = np.eye(1, width + len(sizes), classes[0]) if len(members) and members[0] == 0 else np.zeros((0, 0))
    equations = [*unlabelled]
    for factor, terms in zip(involved, sets, strict=True):
        wanted = np.array([sum(s.power for s in factor.sizes if _key(s.expression) == key) for key in sizes])
        for chosen in itertools.product(*(distinct(classes[np.searchsorted(members, atoms)]) for atoms, _ in terms)):
            left = np.zeros(width)
            np.add.at(left, np.array(chosen, np.int64), [power for _, power in terms])
            equations.append(np.concatenate([left, wanted]))
    powers, unsolved = _eliminated(np.array(equations), width)
    found = [
        (members[classes == number], size.expression, float(powers[number, column]))
        for column, size in enumerate(sizes.values())
        for number in ([] if unsolved[column] else np.flatnonzero(powers[:, column]))
    ]
    return found, [size for column, size in enumerate(sizes.values()) if unsolved[column]]


def _key(expression: Expression) -> object:
    """Return the same for sizes that are known to be equal."""
    if isinstance(expression, Extent):
        return expression.columns, expression.labels.shape, expression.labels.tobytes()
    if isinstance(expression, Operation):
        return expression.name, _key(expression.left), _key(expression.right)
    return expression


def _involved(noticed: Sequence[Factor]) -> list[Factor]:
    """Return the factors with sizes, and all others that share rows with them, or with those that do."""
    involved = [factor for factor in noticed if factor.sizes]
    rest = [factor for factor in noticed if factor.terms and not factor.sizes] if involved else []
    while touching := _touching(involved, rest):
        involved += touching
        rest = [factor for factor in rest if not any(factor is one for one in touching)]
    return involved


def _touching(involved: Sequence[Factor], rest: Sequence[Factor]) -> list[Factor]:
    """Return those of the rest that speak of rows which involved ones speak of, too."""
    rows = [term.rows for factor in (*involved, *rest) for term in factor.terms]
    known = np.zeros(1 + max((int(one.all.max()) for one in rows), default=0), bool)
    for term in [term for factor in involved for term in factor.terms]:
        known[term.rows.all] = True
    return [factor for factor in rest if any(known[term.rows.all].any() for term in factor.terms)]


def _classes(sets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for every atom of the sets, the same for those that lie in the same sets, and the atoms."""
    members = distinct(np.concatenate([np.zeros(0, np.int64), *sets]))
    marks = np.zeros(len(members), np.uint64)
    generator = np.random.default_rng(0)
    for one in sets:
        marks[np.searchsorted(members, one)] += generator.integers(0, 2**63, dtype=np.uint64)
    _, first, classes = np.unique(marks, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[classes.ravel()], members


def _eliminated(equations: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Solve `width` unknowns for several right sides at once, as many of them zero as can be.

    Returns:
        the unknowns (width, right sides), and for each right side whether it cannot be solved.
    """
    table, row = equations.copy(), 0
    unknowns = np.zeros((width, table.shape[1] - width))
    pivots = []
    for column in range(width):
        below = np.flatnonzero(np.abs(table[row:, column]) > 1e-9)
        if len(below):
            table[[row, row + below[0]]] = table[[row + below[0], row]]
            table[row] /= table[row, column]
            others = np.arange(len(table)) != row
            table[others] -= np.outer(table[others, column], table[row])
            pivots.append(column)
            row += 1
    unknowns[pivots] = np.where(np.abs(table[:row, width:]) > 1e-9, table[:row, width:], 0)
    return unknowns, (np.abs(table[row:, width:]) > 1e-9).any(axis=0)
