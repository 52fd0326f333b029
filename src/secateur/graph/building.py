"""From units to the Graph: groups with their members, conditions between them, what is protected, what all costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from math import prod

import numpy as np
from scipy import sparse
from torch import nn

from secateur.graph.atoms import Atoms, Place
from secateur.graph.costs import Costs, Term
from secateur.graph.coupling import Coupling
from secateur.graph.forms import Form, Forms
from secateur.graph.groups import Group, Indices, Layer, Member, Protected, Reason, TensorInfo
from secateur.graph.provenance import Extent
from secateur.graph.recording import Count
from secateur.graph.staging import Modules


def groups_of(coupling: Coupling) -> tuple[Group, ...]:
    """Return the families as groups, named after the first layer that writes their channels."""
    family_of, rank_of = (of_unit[coupling.units.of_leads()] for of_unit in (coupling.family_of, coupling.rank_of))
    sizes = coupling.sizes.tolist()
    members: list[list[Member]] = [[] for _ in sizes]
    pieces = {key: index.reshape(sizes[key[0]], -1) for key, index in _pieces(coupling, family_of, rank_of).items()}
    for (tensor, axis), number, index in _placed(coupling, pieces):
        members[number].append(Member(tensor, axis, index))
    flags = coupling.averaged.tolist(), coupling.leaving.tolist()
    named = zip(_names(members), sizes, members, *flags, strict=True)
    return tuple(Group(name, size, tuple(own), averaged, leaves) for name, size, own, averaged, leaves in named)


def _pieces(coupling: Coupling, sort_of: np.ndarray, rank_of: np.ndarray | int = 0) -> dict[tuple[int, int], Indices]:
    """Return, by sort and axis, the indices of the units' atoms of that sort, by rank; a negative sort is left out."""
    units = coupling.units
    chosen = np.flatnonzero(sort_of >= 0)
    index = units.atoms - np.asarray(coupling.atoms.starts, np.int64)[units.axis]
    rank = np.broadcast_to(rank_of, sort_of.shape)
    order = chosen[np.lexsort((index[chosen], rank[chosen], sort_of[chosen], units.axis[chosen]))]
    sorts, axes, index = sort_of[order], units.axis[order], index[order]
    starts = np.flatnonzero(np.diff(axes, prepend=-1) | np.diff(sorts, prepend=-1))
    return {
        (int(sorts[start]), int(axes[start])): index[start:end]
        for start, end in pairwise([*starts.tolist(), len(order)])
    }


def _placed(coupling: Coupling, pieces: Mapping[tuple[int, int], Indices]) -> Iterator[tuple[Place, int, Indices]]:
    """Give every axis what its first twin has, in the order of the axes."""
    of_axis: dict[int, list[tuple[int, Indices]]] = {}
    for (sort, axis), index in pieces.items():
        of_axis.setdefault(axis, []).append((sort, index))
    for place, first in zip(coupling.atoms.axes, coupling.units.twin.tolist(), strict=True):
        for sort, index in of_axis.get(first, ()):
            yield place, sort, index


def _names(members: Sequence[Sequence[Member]]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for own in members:
        name = own[0].layer or own[0].tensor
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}[{seen[name] - 1}]"


# -- what stays ------------------------------------------------------------------------------------------------------


def protected_of(coupling: Coupling) -> tuple[Protected, ...]:
    """Return what must stay, an entry for each axis and reason."""
    numbers: dict[Reason, int] = {}
    reason_of = np.full(coupling.units.count, -1, np.int64)
    for reason, units in groupby(coupling.reasons, coupling.reasons.__getitem__):
        reason_of[list(units)] = numbers.setdefault(reason, len(numbers))
    listed = list(numbers)
    pieces = _pieces(coupling, reason_of[coupling.units.of_leads()])
    return tuple(Protected(*place, index, listed[number]) for place, number, index in _placed(coupling, pieces))


def layers_of(
    modules: Modules, tensors: dict[str, TensorInfo], coupling: Coupling
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """Return the layers in the order in which they ran, and the names of those that never did."""
    module_at = dict(modules)
    owned: dict[str, list[str]] = {}
    for name in tensors:
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    ran = dict.fromkeys(tensor.rpartition(".")[0] for tensor, _ in coupling.atoms.axes)
    idle = [path for path in owned if path not in ran and any(tensors[name].shape for name in owned[path])]
    names: dict[int, list[str]] = {id(module_at[path]): [] for path in owned}
    for path, module in modules:
        if id(module) in names:
            names[id(module)].append(path)
    layers = tuple(
        Layer(path, type(module_at[path]).__name__, tuple(owned[path]), tuple(names[id(module_at[path])]))
        for path in [*ran, *idle]
    )
    return layers, tuple(idle)


def with_conv_groups(tensors: dict[str, TensorInfo], atoms: Atoms) -> dict[str, TensorInfo]:
    """Note the number of groups at the weights of grouped convolutions."""
    result = dict(tensors)
    for (tensor, axis), size in zip(atoms.axes, atoms.sizes(), strict=True):
        if axis == "grouped":
            result[tensor] = tensors[tensor]._replace(conv_groups=int(size) // tensors[tensor].shape[1])
    return result


# -- costs -----------------------------------------------------------------------------------------------------------


def kind_of(module: nn.Module | None) -> str:
    """Return the kind of a layer: "conv", "linear", "norm" or "other"."""
    return _kind(type(module))


@lru_cache(maxsize=256)
def _kind(layer: type) -> str:
    kinds = {
        "conv": nn.modules.conv._ConvNd,
        "linear": nn.Linear,
        "norm": (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm),
    }
    return next((name for name, bases in kinds.items() if issubclass(layer, bases)), "other")


class _Extents:
    """Linear forms, numbered."""

    def __init__(self) -> None:
        self.forms: list[Form] = []
        self._numbers: dict[int, int] = {}  # by identity: twins have one form

    def add(self, form: Form) -> int:
        """Return the number of a form."""
        number = self._numbers.setdefault(id(form), len(self.forms))
        if number == len(self.forms):
            self.forms.append(form)
        return number

    def fixed(self) -> np.ndarray:
        """Return what stays of each size."""
        return np.array([form.fixed for form in self.forms])

    def per_unit(self, groups: int) -> sparse.csr_array:
        """Return what a unit of each group adds to each size: (sizes, groups)."""
        ends = np.cumsum([0, *(len(form.counts) for form in self.forms)])
        counts = [count for form in self.forms for count in form.counts.values()]
        used = [group for form in self.forms for group in form.counts]
        return sparse.csr_array((np.array(counts, float), np.array(used, np.int64), ends), (len(self.forms), groups))


def costs_of(modules: Modules, tensors: dict[str, TensorInfo], forms: Forms, counts: Sequence[Count]) -> Costs:
    """Return parameters and MACs as polynomials in the numbers of kept units."""
    extents, coupling = _Extents(), forms.coupling
    module_at = dict(modules)
    terms = []
    ran = {tensor: at for at, (tensor, _) in reversed(list(enumerate(coupling.atoms.axes)))}
    for name in sorted(tensors, key=lambda name: ran.get(name, len(ran) + 1)):
        if not tensors[name].is_buffer:
            layer = name.rpartition(".")[0]
            factor, used = _product(extents, _sizes(forms, tensors[name]))
            terms.append(Term("params", layer, kind_of(module_at.get(layer)), factor, used))
    for count in counts:
        factor, used = _product(extents, [forms.of(extent) for extent in count.extents])
        terms.append(Term("macs", count.layer, count.op, factor * count.factor, used))
    return Costs(extents.fixed(), extents.per_unit(len(coupling.sizes)), tuple(terms), coupling.sizes)


def _product(extents: _Extents, forms: Sequence[Form]) -> tuple[int, tuple[int, ...]]:
    """Return (coefficient, extents) of a product of sizes; those that nothing can change go into the coefficient."""
    coefficient = prod(round(form.fixed) for form in forms if not form.counts)
    return coefficient, tuple(extents.add(form) for form in forms if form.counts)


def _sizes(forms: Forms, info: TensorInfo) -> list[Form]:
    """Return the size of every axis of a tensor."""
    atoms, sizes = forms.coupling.atoms, []
    for axis, size in enumerate(info.shape):
        number = atoms.number(info.name, axis)
        if axis == 1 and (info.name, "grouped") in atoms:
            inputs = atoms.known(info.name, "grouped").reshape(-1, size)
            sizes.append(forms.of(Extent(inputs.T, columns=True)))
        else:
            sizes.append(Form(size, {}) if number is None else forms.of_axis(number))
    return sizes
