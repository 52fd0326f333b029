"""Graphs made by hand: small, every number known, without a model behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse

from secateur.graph.costs import Costs, Term
from secateur.graph.groups import CallShape, Equalities, Graph, Group, Layer, Member, Realized, Reason, TensorInfo

AREA = 64  # positions that every convolution here runs over


@dataclass(frozen=True)
class HandMade(Graph):
    """A graph whose kept indices are simply the kept units' own, ascending."""

    def realize(self, kept: Sequence[np.ndarray]) -> Realized:
        keep: dict = {}
        for number, group in enumerate(self.groups):
            for member in group.members:
                place = keep.setdefault(member.tensor, {}).setdefault(member.axis, set())
                place.update(member.indices[kept[number]].reshape(-1).tolist())
        for tensor, axes in keep.items():
            for axis, indices in axes.items():
                covered = {
                    i
                    for g in self.groups
                    for m in g.members
                    if (m.tensor, m.axis) == (tensor, axis)
                    for i in m.indices.flat
                }
                width = self.tensors[tensor].shape[axis]
                axes[axis] = sorted(indices | (set(range(width)) - covered))
        shrinking = {
            tensor: {axis: kept for axis, kept in axes.items() if len(kept) < self.tensors[tensor].shape[axis]}
            for tensor, axes in keep.items()
        }
        return Realized({tensor: axes for tensor, axes in shrinking.items() if axes}, {}, {})


def graph_of(
    tensors: Mapping[str, tuple[int, ...]],
    groups: Sequence[tuple[str, Sequence[tuple[str, int, Sequence[int]]]]],
    equalities: Sequence[tuple[Mapping[int, int], int]] = (),
    types: Mapping[str, str] | None = None,
) -> HandMade:
    """Build a graph: shapes of tensors; groups as (name, members as (tensor, axis, index of each unit)).

    Equalities are (coefficients by group number, target). Layers with a weight of four dimensions are convolutions.
    """
    made = tuple(
        Group(
            name,
            len(members[0][2]),
            tuple(Member(t, axis, np.array(index).reshape(-1, 1)) for t, axis, index in members),
        )
        for name, members in groups
    )
    matrix = np.zeros((len(equalities), len(made)), dtype=np.int64)
    for row, (coefficients, _) in enumerate(equalities):
        for number, coefficient in coefficients.items():
            matrix[row, number] = coefficient
    infos = {name: TensorInfo(name, shape, (name,), is_buffer=False) for name, shape in tensors.items()}
    conditions = Equalities(
        matrix,
        np.array([target for _, target in equalities], dtype=np.int64),
        tuple(Reason("the rows of a table are equally long") for _ in equalities),
    )
    return HandMade(
        groups=made,
        find_equalities=lambda: conditions,
        protected=(),
        find_costs=partial(_costs, infos, made),
        tensors=infos,
        layers=_layers(tensors, types or {}),
        unreached=(),
        calls=(CallShape(((1, 3, 8, 8),), ("float32",)),),
    )


def chain(*widths: int, outputs: int = 5) -> HandMade:
    """Return convolutions c0, c1, ..., each with a norm, and a last one to protected outputs."""
    tensors: dict[str, tuple[int, ...]] = {}
    groups = []
    for number, width in enumerate(widths):
        tensors[f"c{number}.weight"] = (width, 3 if number == 0 else widths[number - 1], 3, 3)
        tensors[f"n{number}.weight"] = (width,)
        following = f"c{number + 1}.weight" if number + 1 < len(widths) else "last.weight"
        units = range(width)
        groups.append(
            (f"c{number}", [(f"c{number}.weight", 0, units), (f"n{number}.weight", 0, units), (following, 1, units)])
        )
    tensors["last.weight"] = (outputs, widths[-1], 3, 3)
    return graph_of(tensors, groups)


def residual(width: int = 32, hidden: int = 48) -> HandMade:
    """Return a stream that `stem` and `b` write to, with `a` between: x + b(a(x))."""
    tensors = {
        "stem.weight": (width, 3, 3, 3),
        "a.weight": (hidden, width, 3, 3),
        "b.weight": (width, hidden, 3, 3),
        "last.weight": (5, width, 1, 1),
    }
    stream, inner = range(width), range(hidden)
    groups = [
        (
            "stem",
            [("stem.weight", 0, stream), ("a.weight", 1, stream), ("b.weight", 0, stream), ("last.weight", 1, stream)],
        ),
        ("a", [("a.weight", 0, inner), ("b.weight", 1, inner)]),
    ]
    return graph_of(tensors, groups)


def parts(*sizes: int, fixed: int = 0, equal: bool = False) -> HandMade:
    """Return one convolution whose channels are several groups (and `fixed` protected ones), and its consumer."""
    width = sum(sizes) + fixed
    starts = np.cumsum([0, *sizes])
    groups = []
    for number, size in enumerate(sizes):
        units = range(starts[number], starts[number] + size)
        groups.append((f"c[{number}]", [("c.weight", 0, units), ("last.weight", 1, units)]))
    pairs = [({number: 1, number + 1: -1}, 0) for number in range(len(sizes) - 1)] if equal else []
    return graph_of({"c.weight": (width, 3, 3, 3), "last.weight": (5, width, 1, 1)}, groups, pairs)


def table(*sizes: int) -> HandMade:
    """Return four convolutions whose widths form a table: a + b == c + d."""
    tensors = {f"{name}.weight": (size, 3, 3, 3) for name, size in zip("abcd", sizes, strict=True)}
    groups = [(name, [(f"{name}.weight", 0, range(size))]) for name, size in zip("abcd", sizes, strict=True)]
    return graph_of(tensors, groups, [({0: 1, 1: 1, 2: -1, 3: -1}, 0)])


def _layers(tensors: Mapping[str, tuple[int, ...]], types: Mapping[str, str]) -> tuple[Layer, ...]:
    owned: dict[str, list[str]] = {}
    for name in tensors:
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    kind = {4: "Conv2d", 2: "Linear", 1: "BatchNorm2d"}
    return tuple(
        Layer(name, types.get(name, kind[max(len(tensors[t]) for t in own)]), tuple(own), (name,))
        for name, own in owned.items()
    )


def _costs(infos: Mapping[str, TensorInfo], groups: Sequence[Group]) -> Costs:
    rows: dict[tuple[str, int], int] = {}
    units: Counter[tuple[int, int]] = Counter()
    for name, info in infos.items():
        for axis in range(len(info.shape)):
            rows[name, axis] = len(rows)
    fixed = np.array([infos[name].shape[axis] for name, axis in rows], dtype=np.float64)
    for number, group in enumerate(groups):
        for member in group.members:
            row = rows[member.tensor, member.axis]
            units[row, number] += member.indices.shape[1]
            fixed[row] -= member.indices.size
    per_unit = sparse.lil_array((len(rows), len(groups)))
    for (row, number), count in units.items():
        per_unit[row, number] = count
    terms = []
    for name, info in infos.items():
        layer, extents = name.rpartition(".")[0], tuple(rows[name, axis] for axis in range(len(info.shape)))
        kind = "norm" if len(info.shape) == 1 else "conv"
        terms.append(Term("params", layer, kind, 1, extents))
        if kind == "conv":
            terms.append(Term("macs", layer, kind, AREA, extents))
    return Costs(fixed, per_unit.tocsr(), tuple(terms), np.array([group.size for group in groups]))
