"""`mask`: the full-size model with the cut channels silenced, the article's *simulated inference*.

Where cut channels end in weights, zeroing what a plan removes is enough. Where a statistic is taken across channels
(LayerNorm, a mean over channels), the model must run with the cut ones left out of it: `Silencer` runs a model on
labels (docs/design.md, section 4) that say of every element whether it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map
from typing_extensions import override

from secateur.errors import CutError
from secateur.graph.labels import Sheet, along
from secateur.graph.registry import Rule, rule_for
from secateur.graph.rules.attention import attention
from secateur.graph.rules.contraction import addmm, bilinear, distances, einsum, linear, matmul
from secateur.graph.rules.convolution import convolution, transposed_convolution
from secateur.graph.rules.normalization import channel_norm, group_norm, layer_norm
from secateur.graph.rules.reduction import dim_argument, dims_of, reduce, softmax
from secateur.graph.running import LABELS, LabelRun, running
from secateur.graph.staging import staged, tensor_infos
from secateur.planning.plans import Plan
from secateur.surgery.cutting import check_fits, copied, named_tensor

KEPT, CUT = 1, 2
GONE = "_secateur_gone"  # attribute of a grouped convolution's weight: which (output, row) pairs are cut
CONTRACTIONS = (attention, addmm, bilinear, convolution, distances, einsum, linear, matmul, transposed_convolution)
STATISTICS = (channel_norm, layer_norm, group_norm, softmax, reduce)


def mask(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of `model` in which nothing sees the channels that `plan` removes.

    Shapes stay. Every removed slice of a parameter or buffer is zero; groups with statistics across channels (see
    `Plan.statistics`) are simulated while the model runs, without gradients.

    Raises:
        CutError: the plan was made for another model; when the copy runs, also where a statistic cannot be simulated.

    Example:
        >>> simulated = mask(model, plan)(picture)  # doctest: +SKIP
    """
    check_fits(model, plan)
    masked = copied(model)
    if plan.statistics:
        _Silence(masked, plan)
        return masked
    with torch.no_grad():
        for name, info in tensor_infos(masked).items():
            for axis, indices in removed_slices(plan, name, info.shape):
                tensor = named_tensor(masked, name)
                tensor[(slice(None),) * axis + (indices,)] = 0
    return masked


def removed_slices(plan: Plan, name: str, shape: Sequence[int]) -> list[tuple[int, Any]]:
    """Return what a plan removes of a tensor as (leading dimensions, index) pairs."""
    found: list[tuple[int, Any]] = [
        (axis, torch.tensor(plan.removed(name, axis), dtype=torch.int64))
        for axis in plan.keep.get(name, {})
        if axis != "grouped"
    ]
    gone = grouped_flags(plan, name, shape)
    if gone is not None:
        found.append((0, torch.from_numpy(gone)))
    return found


def grouped_flags(plan: Plan, name: str, shape: Sequence[int]) -> np.ndarray | None:
    """Return, for the weight (O, I/groups, *k) of a grouped convolution, which (output, row) pairs are cut."""
    axes = plan.keep.get(name, {})
    rows = axes.get("grouped")
    if not rows:
        return None
    outputs = np.asarray(axes.get(0, range(shape[0])))
    gone = np.ones(tuple(shape[:2]), bool)
    each = len(outputs) // len(rows)
    for position, output in enumerate(outputs):
        gone[output, list(rows[position // each])] = False  # type: ignore[arg-type]
    return gone


class _Silence:
    """Hooks that run a model's forward on labels, without its cut channels."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.plan = plan
        self.open: list[ExitStack] = []
        model.register_forward_pre_hook(self.begin)
        model.register_forward_hook(self.end, always_call=True)

    def begin(self, model: nn.Module, inputs: Any) -> None:
        stack = ExitStack()
        stack.enter_context(silenced(model, self.plan))
        self.open.append(stack)

    def end(self, model: nn.Module, inputs: Any, output: Any) -> None:
        if self.open:
            self.open.pop().close()


@contextmanager
def silenced(model: nn.Module, plan: Plan) -> Iterator[Silencer]:
    """Run the body with a model whose cut channels nothing sees; its weights stay as they are."""
    run = Silencer(plan)
    manager: AbstractContextManager[None] = staged(model, run.stand_in, run, None, training=None)
    with manager, running(run):
        yield run


class Silencer(LabelRun):
    """A run on labels KEPT and CUT: contractions read zeros, statistics skip what is cut."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def stand_in(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return an alias of a tensor with its labels."""
        alias = tensor.detach()
        if isinstance(tensor, nn.Parameter):
            alias = nn.Parameter(alias, requires_grad=tensor.requires_grad)
        if name:
            setattr(alias, LABELS, lambda: self._flags(name, tuple(tensor.shape)))
            self._grouped_flags(alias, name)
        return alias

    def _flags(self, name: str, shape: Sequence[int]) -> list[Sheet]:
        axes = self.plan.keep.get(name, {})
        sheets = []
        for axis, size in enumerate(shape):
            flags = np.full(size, KEPT, np.int64)
            if axis in axes:
                flags[list(self.plan.removed(name, axis))] = CUT
            if size > 1:
                sheets.append(along(flags, len(shape), axis))
        return sheets

    def _grouped_flags(self, alias: torch.Tensor, name: str) -> None:
        gone = grouped_flags(self.plan, name, alias.shape)
        if gone is not None:
            setattr(alias, GONE, gone)

    @override
    def grouped_inputs(self, weight: torch.Tensor, groups: int) -> np.ndarray | None:
        gone = getattr(weight, GONE, None)
        if gone is None:
            return np.full(groups * weight.shape[1], KEPT, np.int64)
        first = gone.reshape(groups, -1, gone.shape[1]).all(axis=1)
        return np.where(first.ravel(), CUT, KEPT).astype(np.int64)

    # -- events: nothing is recorded ---------------------------------------------------------------------------------

    @override
    def unify(self, one: Sheet, other: Sheet) -> None: ...

    @override
    def fix(self, sheet: Sheet, why: str) -> None: ...

    @override
    def rows(self, matrix: np.ndarray, why: str) -> None: ...

    # -- operations --------------------------------------------------------------------------------------------------

    @override
    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = rule_for(func)
        if found in CONTRACTIONS:
            return func(*tree_map(self._silent, args), **kwargs)
        if found is not None and found in STATISTICS:
            return self._on_kept(func, found, args, kwargs)
        return func(*args, **kwargs)

    def narrowed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return what is left of a tensor without the channels that are cut, where these lie along whole dimensions."""
        gone = self._gone(tensor)
        if gone is None:
            return tensor
        every = gone.expand(tensor.shape)
        others = ([other for other in range(tensor.ndim) if other != dim] for dim in range(tensor.ndim))
        kept = {dim: (~every.all(rest)).nonzero().ravel() for dim, rest in enumerate(others) if every.all(rest).any()}
        narrow = _selected(tensor, kept)
        return tensor if _selected(every, kept).any() else narrow

    def _silent(self, value: Any) -> Any:
        gone = self._gone(value)
        return value if gone is None else torch.where(gone, 0, value)

    def _gone(self, value: Any) -> torch.Tensor | None:
        """Return which elements of a tensor are cut, broadcastable to it."""
        flags = [sheet == CUT for sheet in self.sheets(value)]
        gone = getattr(value, GONE, None)
        if gone is not None:
            flags.append(gone.reshape(*gone.shape, *(1,) * (value.ndim - 2)))
        flags = [flag for flag in flags if flag.any()]
        if not flags:
            return None
        both = flags[0]
        for flag in flags[1:]:
            both = both | flag
        return torch.from_numpy(np.ascontiguousarray(both)).to(value.device)

    def _on_kept(self, func: Any, found: Rule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a statistic on the kept positions alone, and put the result back at their places."""
        x = args[0]
        dims = self._statistic_dims(found, x, args, kwargs)
        kept = {dim: positions for dim in dims if (positions := self._kept_positions(x, dim)) is not None}
        if not kept:
            return func(*args, **kwargs)
        narrow = _selected(x, kept)
        if found is reduce:
            return func(narrow, *args[1:], **kwargs)
        return _spread(func(narrow, *_narrow_arguments(found, args, kept), **kwargs), x, kept)

    def _statistic_dims(
        self, found: Rule, x: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Sequence[int]:
        if found is layer_norm:
            return range(x.ndim - len(args[1]), x.ndim)
        if found is group_norm:
            return [1]
        if found is channel_norm:
            return [dim for dim in range(x.ndim) if dim != 1]
        return dims_of(dim_argument(self, args[1:], kwargs), x.ndim)

    def _kept_positions(self, x: torch.Tensor, dim: int) -> torch.Tensor | None:
        for sheet in self.sheets(x):
            if sheet.shape[dim] > 1 and (sheet == CUT).any():
                flags = np.moveaxis(sheet, dim, 0).reshape(sheet.shape[dim], -1)
                if (flags != flags[:, :1]).any():
                    raise CutError(
                        "A statistic is taken across channels that the plan cuts differently at different positions, "
                        "which cannot be simulated. Leave these layers whole (ignore=)."
                    )
                return torch.from_numpy(np.flatnonzero(flags[:, 0] != CUT)).to(x.device)
        return None


def _narrow_arguments(found: Rule, args: tuple[Any, ...], kept: Mapping[int, torch.Tensor]) -> list[Any]:
    """Return what a normalisation of the kept positions takes beside its tensor: sizes and affine parameters."""
    if found in (softmax, channel_norm):
        return list(args[1:])
    x, sizes = args[:2]
    first = x.ndim - len(sizes) if found is layer_norm else 1  # the parameters' first dimension, seen from x
    inner = [_selected(value, kept, first) if isinstance(value, torch.Tensor) else value for value in args[1:]]
    if found is layer_norm:
        inner[0] = [len(kept[first + i]) if first + i in kept else size for i, size in enumerate(sizes)]
    elif sizes == x.shape[1]:  # a group norm with a group for each channel
        inner[0] = len(kept[1])
    return inner


def _selected(tensor: torch.Tensor, kept: Mapping[int, torch.Tensor], first: int = 0) -> torch.Tensor:
    """Select the kept positions along dimensions that are counted from `first`."""
    for dim, positions in kept.items():
        tensor = tensor.index_select(dim - first, positions)
    return tensor


def _spread(narrow: torch.Tensor, x: torch.Tensor, kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """Put values back to their places; cut places are zero."""
    wide = narrow
    for dim, positions in kept.items():
        shape = list(wide.shape)
        shape[dim] = x.shape[dim]
        wide = wide.new_zeros(shape).index_copy(dim, positions, wide)
    return wide
