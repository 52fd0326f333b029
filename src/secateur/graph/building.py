"""From units to the Graph: groups with their members, conditions between them, what is protected, what all costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain, pairwise

import numpy as np
from scipy import sparse
from torch import nn

from secateur.graph.atoms import Atoms
from secateur.graph.costs import Costs, Term
from secateur.graph.coupling import Coupling
from secateur.graph.groups import Axis, Equalities, Group, Layer, Member, Protected, Reason, TensorInfo
from secateur.graph.provenance import Attribute, Expression, Extent, Operation, attributes_in
from secateur.graph.recording import Count

Linear = tuple[float, np.ndarray]  # fixed + counts @ kept


def groups_of(coupling: Coupling) -> tuple[Group, ...]:
    """Return the families as groups, named after the first layer that writes their channels."""
    atoms = np.arange(1, coupling.atoms.total + 1)
    family = coupling.families(atoms)
    atoms = atoms[family >= 0]
    family = coupling.families(atoms)
    rank = coupling.rank_of[coupling.unit_of[atoms]]
    axis, index = coupling.atoms.axis_of()[atoms], coupling.atoms.index_of()[atoms]
    order = np.lexsort((index, rank, axis, family))
    family, axis, index = family[order], axis[order], index[order]
    starts = np.flatnonzero(np.diff(family, prepend=-1) | np.diff(axis, prepend=-1))
    members: list[list[Member]] = [[] for _ in coupling.sizes]
    for start, end in pairwise([*starts.tolist(), len(axis)]):
        tensor, which = coupling.atoms.axes[axis[start]]
        number = family[start]
        members[number].append(Member(tensor, which, index[start:end].reshape(coupling.sizes[number], -1)))
    return _named(
        Group("", int(size), tuple(own), bool(averaged))
        for size, own, averaged in zip(coupling.sizes, members, coupling.averaged, strict=True)
    )


def _named(groups: Iterator[Group]) -> tuple[Group, ...]:
    seen: Counter[str] = Counter()
    result = []
    for group in groups:
        name = group.members[0].layer or group.members[0].tensor
        seen[name] += 1
        result.append(replace(group, name=name if seen[name] == 1 else f"{name}[{seen[name] - 1}]"))
    return tuple(result)


# -- conditions ------------------------------------------------------------------------------------------------------


def equalities_of(coupling: Coupling) -> Equalities:
    """Return the tables' and the integers' conditions, each once."""
    found: dict[bytes, tuple[np.ndarray, Reason]] = {}
    for (fixed, counts), reason in chain(_table_conditions(coupling), _integer_conditions(coupling)):
        if counts.any():
            scale = _whole(counts[counts != 0])
            row = np.rint(np.append(counts, -fixed) * scale).astype(np.int64)
            found.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), (row, reason))
    rows = np.zeros((len(found), len(coupling.sizes) + 1), np.int64)
    for place, (row, _) in enumerate(found.values()):
        rows[place] = row
    return Equalities(rows[:, :-1], rows[:, -1], tuple(reason for _, reason in found.values()))


def _whole(counts: np.ndarray) -> int:
    """Return the smallest factor that makes the coefficients whole numbers."""
    return next(
        (scale for scale in range(1, 4097) if np.allclose(counts * scale, np.rint(counts * scale), atol=1e-6)), 1
    )


def _table_conditions(coupling: Coupling) -> Iterator[tuple[Linear, Reason]]:
    for matrix, reason in coupling.tables:
        forms = [_row_form(coupling, row) for row in matrix]
        for one, other in pairwise(forms):
            yield (one[0] - other[0], one[1] - other[1]), reason


def _row_form(coupling: Coupling, row: np.ndarray) -> Linear:
    families = coupling.families(row)
    cut = families[families >= 0]
    counts = np.bincount(cut, minlength=len(coupling.sizes)) / np.maximum(coupling.sizes, 1)
    return float(len(families) - len(cut)), counts


def _integer_conditions(coupling: Coupling) -> Iterator[tuple[Linear, Reason]]:
    first: dict[Attribute, Linear] = {}
    for use in coupling.uses:
        size = coupling.linear(use.extent)
        if isinstance(use.expression, Attribute):
            known = first.setdefault(use.expression, size)
            yield (size[0] - known[0], size[1] - known[1]), use.reason
        elif not attributes_in(use.expression):
            wanted = _linear(coupling, use.expression)
            if wanted is not None:
                yield (size[0] - wanted[0], size[1] - wanted[1]), use.reason


def _linear(coupling: Coupling, expression: Expression) -> Linear | None:
    """Return an expression of sizes alone as a linear form; None if it is not linear."""
    if isinstance(expression, int):
        return float(expression), np.zeros(len(coupling.sizes))
    if isinstance(expression, Extent):
        return coupling.linear(expression)
    if not isinstance(expression, Operation):
        return None
    left, right = _linear(coupling, expression.left), _linear(coupling, expression.right)
    return None if left is None or right is None else _combined(expression.name, left, right)


def _combined(name: str, left: Linear, right: Linear) -> Linear | None:
    """Compute with two linear forms; None if the result is not linear."""
    if name in "+-":
        sign = 1 if name == "+" else -1
        return left[0] + sign * right[0], left[1] + sign * right[1]
    if name == "*" and not left[1].any():
        left, right = right, left
    if right[1].any() or (name == "//" and not right[0]):
        return None
    factor = right[0] if name == "*" else 1 / right[0]
    return left[0] * factor, left[1] * factor


# -- what stays ------------------------------------------------------------------------------------------------------


def protected_of(coupling: Coupling) -> tuple[Protected, ...]:
    """Return what must stay, an entry for each axis and reason."""
    atoms = np.arange(1, coupling.atoms.total + 1)
    units = coupling.unit_of[atoms]
    numbers: dict[Reason, int] = {}
    reason_of = np.full(len(coupling.family_of), -1, np.int64)
    for unit, reason in coupling.reasons.items():
        reason_of[unit] = numbers.setdefault(reason, len(numbers))
    listed = list(numbers)
    reason = reason_of[units]
    axis, index = coupling.atoms.axis_of()[atoms], coupling.atoms.index_of()[atoms]
    keep = reason >= 0
    order = np.lexsort((index[keep], reason[keep], axis[keep]))
    axis, index, reason = axis[keep][order], index[keep][order], reason[keep][order]
    starts = np.flatnonzero(np.diff(axis, prepend=-1) | np.diff(reason, prepend=-1))
    places = coupling.atoms.axes
    return tuple(
        Protected(places[axis[start]][0], places[axis[start]][1], index[start:end], listed[reason[start]])
        for start, end in pairwise([*starts.tolist(), len(axis)])
    )


def layers_of(
    model: nn.Module, tensors: dict[str, TensorInfo], coupling: Coupling
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """Return the layers in the order in which they ran, and the names of those that never did."""
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(path)
    modules = dict(model.named_modules())
    owned: dict[str, list[str]] = {}
    for name in tensors:
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    ran = list(dict.fromkeys(tensor.rpartition(".")[0] for tensor, _ in coupling.atoms.axes))
    idle = [path for path in owned if path not in set(ran) and any(tensors[name].shape for name in owned[path])]
    layers = tuple(
        Layer(path, type(modules[path]).__name__, tuple(owned[path]), tuple(names[id(modules[path])]))
        for path in [*ran, *idle]
    )
    return layers, tuple(idle)


def with_conv_groups(tensors: dict[str, TensorInfo], atoms: Atoms) -> dict[str, TensorInfo]:
    """Note the number of groups at the weights of grouped convolutions."""
    result = dict(tensors)
    for (tensor, axis), size in zip(atoms.axes, atoms.sizes(), strict=True):
        if axis == "grouped":
            result[tensor] = replace(tensors[tensor], conv_groups=int(size) // tensors[tensor].shape[1])
    return result


# -- costs -----------------------------------------------------------------------------------------------------------


def kind_of(module: nn.Module | None) -> str:
    """Return the kind of a layer: "conv", "linear", "norm" or "other"."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    if isinstance(module, nn.Linear):
        return "linear"
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    return "norm" if isinstance(module, norms) else "other"


class _Extents:
    """Linear forms, numbered."""

    def __init__(self) -> None:
        self.fixed: list[float] = []
        self.groups: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []

    def add(self, form: Linear) -> tuple[int, tuple[int, ...]]:
        """Return (coefficient, extents) of a size: a number if nothing can change it."""
        used = np.flatnonzero(form[1])
        if not len(used):
            return round(form[0]), ()
        self.fixed.append(form[0])
        self.groups.append(used)
        self.counts.append(form[1][used])
        return 1, (len(self.fixed) - 1,)

    def per_unit(self, groups: int) -> sparse.csr_array:
        """Return what a unit of each group adds to each size: (sizes, groups)."""
        ends = np.cumsum([0, *(len(used) for used in self.groups)])
        if not self.fixed:
            return sparse.csr_array((0, groups))
        data = np.concatenate(self.counts), np.concatenate(self.groups), ends
        return sparse.csr_array(data, shape=(len(self.fixed), groups))


def costs_of(
    model: nn.Module,
    tensors: dict[str, TensorInfo],
    groups: Sequence[Group],
    coupling: Coupling,
    counts: Sequence[Count],
) -> Costs:
    """Return parameters and MACs as polynomials in the numbers of kept units."""
    extents = _Extents()
    modules = dict(model.named_modules())
    terms = []
    ran = {tensor: at for at, (tensor, _) in reversed(list(enumerate(coupling.atoms.axes)))}
    widths = _widths(groups)
    for name in sorted(tensors, key=lambda name: ran.get(name, len(ran) + 1)):
        info = tensors[name]
        if not info.is_buffer:
            layer = name.rpartition(".")[0]
            factor, used = _product(extents, _sizes(info, widths, coupling))
            terms.append(Term("params", layer, kind_of(modules.get(layer)), factor, used))
    for count in counts:
        factor, used = _product(extents, [coupling.linear(extent) for extent in count.extents])
        terms.append(Term("macs", count.layer, count.op, factor * count.factor, used))
    return Costs(np.array(extents.fixed), extents.per_unit(len(groups)), tuple(terms), coupling.sizes)


def _product(extents: _Extents, forms: Sequence[Linear]) -> tuple[int, tuple[int, ...]]:
    parts = [extents.add(form) for form in forms]
    return int(np.prod([factor for factor, _ in parts], dtype=object)), tuple(at for _, used in parts for at in used)


def _widths(groups: Sequence[Group]) -> dict[tuple[str, Axis], dict[int, int]]:
    """Return how many indices a unit of each group has along every axis that is cut."""
    widths: dict[tuple[str, Axis], dict[int, int]] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            widths.setdefault((member.tensor, member.axis), {})[number] = member.indices.shape[1]
    return widths


def _sizes(info: TensorInfo, widths: dict[tuple[str, Axis], dict[int, int]], coupling: Coupling) -> list[Linear]:
    """Return the size of every axis of a tensor."""
    forms = []
    for axis, size in enumerate(info.shape):
        if axis == 1 and (info.name, "grouped") in coupling.atoms:
            inputs = coupling.atoms.known(info.name, "grouped").reshape(-1, size)
            forms.append(coupling.linear(Extent(inputs.T, columns=True)))
        else:
            used = widths.get((info.name, axis), {})
            counts = np.zeros(len(coupling.sizes))
            counts[list(used)] = list(used.values())
            forms.append((size - float(counts @ coupling.sizes), counts))
    return forms
