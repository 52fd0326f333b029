"""What is coupled with what: the nouns that tracing hands to planning and surgery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from torch import nn

from secateur.graph.calls import Call
from secateur.graph.costs import Costs

if TYPE_CHECKING:
    from secateur.graph.coupling import Coupling
    from secateur.graph.explanation.explaining import Explanation

Axis = int | Literal["grouped"]
Indices = np.ndarray  # int64
Attention = Literal["auto", "dims", "heads"]  # what is cut of attention: channels of every head, or whole heads


class TensorInfo(NamedTuple):
    """A parameter or buffer of the full model, by its first name."""

    name: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...]  # every name, the first one included
    is_buffer: bool
    conv_groups: int = 1  # > 1: axis "grouped" exists, with conv_groups rows of shape[1] inputs each


class Member(NamedTuple):
    """One axis of one tensor, seen from a group: unit `u` owns `indices[u]` along it.

    Along the axis `"grouped"` of a grouped convolution's weight (O, I/groups, *k) the index is
    `group * (I/groups) + row`, that is, the input channel.
    """

    tensor: str
    axis: Axis
    indices: Indices  # (units, k): k indices a unit, ascending

    @property
    def layer(self) -> str:
        """The module that holds the tensor ('' for the model itself)."""
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True)
class Group:
    """Units with the same members: they go one by one, and any one of them may go."""

    name: str  # the first layer that writes these channels, e.g. "features.3.conv.0"; unique (a suffix "[1]" if needed)
    size: int  # how many units
    members: tuple[Member, ...]
    statistics: bool = False  # some normalisation takes its statistics across these channels
    leaves: bool = False  # these channels leave the model, which was traced with free outputs

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers that take part, in the order in which they run."""
        return tuple(dict.fromkeys(member.layer for member in self.members))


@dataclass(frozen=True)
class Reason:
    """Why channels stay: the operation, where in the user's code, and what it wants."""

    text: str  # one sentence
    op: str = ""
    source: str = ""  # "file.py:123" of the user's code
    module: str = ""  # the module whose forward was running


@dataclass(frozen=True)
class Protected:
    """Channels along one axis that are never cut, with the first reason found."""

    tensor: str
    axis: Axis
    indices: Indices
    reason: Reason


@dataclass(frozen=True)
class Layer:
    """A module that owns parameters or buffers, as configuration and tables name it."""

    name: str
    type: str  # class name, e.g. "Conv2d"
    tensors: tuple[str, ...]  # first names
    aliases: tuple[str, ...] = ()  # every name of the module, the first one included


@dataclass(frozen=True)
class CallShape:
    """Shapes and dtypes of the tensors of one call of the example, in order, and how they are passed."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]  # "float32", "int64", ...
    arguments: str = ""  # names, nesting and other values, as JSON; "": tensors alone, by position


@dataclass(frozen=True)
class Equalities:
    """Whole-number conditions on how many units of each group are kept: `matrix @ kept == target`."""

    matrix: np.ndarray  # (conditions, groups) int64
    target: np.ndarray  # (conditions,) int64
    reasons: tuple[Reason, ...] = field(default=())

    def hold(self, kept: Sequence[int]) -> bool:
        """Tell whether the numbers of kept units satisfy every condition."""
        return bool((self.matrix @ np.asarray(kept) == self.target).all())


@dataclass(frozen=True)
class Scale:
    """Rows of a tensor, along axis 0, that are multiplied by a factor so that the function stays."""

    factor: float
    rows: tuple[int, ...] | None = None  # of the full tensor; None: all


@dataclass(frozen=True)
class Realized:
    """What a choice of units means for every tensor and integer of the model."""

    # kept indices in order, every alias named; "grouped": see `Plan.keep`
    keep: dict[str, dict[Axis, list[int] | list[list[int]]]]
    attributes: dict[str, int]  # "path.key" or "path.key[0]" to the new value
    scales: dict[str, tuple[Scale, ...]]  # every alias named


@dataclass(frozen=True, repr=False)
class Graph:
    """Which channels of a model go together, what each costs, and what must stay.

    Made by `secateur.trace`. Everything in it is about the full-size model.
    """

    groups: tuple[Group, ...]
    protected: tuple[Protected, ...]
    tensors: dict[str, TensorInfo]  # by first name, in state-dict order
    layers: tuple[Layer, ...]  # in the order in which they run, those never run last
    unreached: tuple[str, ...]  # layers that no call ran
    calls: tuple[CallShape, ...]  # shapes and dtypes of the example
    find_equalities: Callable[[], Equalities] = field(repr=False, compare=False)
    find_costs: Callable[[], Costs] = field(repr=False, compare=False)
    model: nn.Module | None = field(default=None, repr=False, compare=False)  # whose code is run to settle orders
    coupling: Coupling | None = field(default=None, repr=False, compare=False)
    example: tuple[Call, ...] = field(default=(), repr=False, compare=False)
    free_outputs: bool = False
    on_data: bool = False  # the forward reads values, so it was run on real tensors
    attention: Attention = "auto"  # as it was asked for
    heads: frozenset[tuple[str, Axis]] = frozenset()  # where whole heads are cut
    training_batch: int = 0  # the example's batch times this was traced in training, too; 0: training is not checked

    @cached_property
    def equalities(self) -> Equalities:
        """The conditions on how many units of each group are kept."""
        return self.find_equalities()

    @cached_property
    def costs(self) -> Costs:
        """Parameters and MACs for any numbers of kept units."""
        return self.find_costs()

    def __repr__(self) -> str:
        params, macs = self.costs.params() / 1e6, self.costs.macs() / 1e9
        return f"Graph({len(self.groups)} groups, {params:.2f} M parameters, {macs:.3f} GMACs)"

    def explain(self, layer: str) -> Explanation:
        """Tell with what a layer's channels are coupled and through which operations, or why they stay.

        The model's code runs once more, as in `trace`. `print` it for a text; its fields hold the same as data.

        Args:
            layer: the name of a layer, under any alias, or of one of its tensors.

        Raises:
            ExplainError: there is no such layer (the nearest names are offered), or it has no weights.

        Example:
            >>> print(graph.explain("layer1.0.conv3"))  # doctest: +SKIP
        """
        from secateur.graph.explanation.explaining import explain

        return explain(self, layer)

    def harmonize(self, counts: Sequence[int]) -> list[int] | None:
        """Return how many units of each group the model's own code has at the widths that `counts` give.

        Where channels are shuffled, the parts of a layer that take different ways are as large as the code makes them,
        whatever `counts` would like; layers' widths stay as given. None: no choice of units fits these widths.

        Raises:
            PlanError: the model does not run at these widths.
        """
        from secateur.graph.settling import harmonize

        return harmonize(self, counts)

    def realize(self, kept: Sequence[np.ndarray]) -> Realized:
        """Return what every tensor keeps, in order, and the integers to rewrite.

        Args:
            kept: for each group the numbers of the units that stay, ascending.

        Raises:
            PlanError: the numbers do not satisfy `equalities`, or an integer of the model has no value for them.
        """
        from secateur.graph.settling import realize

        return realize(self, kept)
