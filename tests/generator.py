"""Random small convolutional networks: a program of steps, and a module that interprets it.

Every step reads features made earlier, by number, and appends its own; all features have the same height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import conv
from tests.zoo.shuffling import shuffled

SIDE = 5
EXAMPLE = torch.zeros(2, 3, SIDE, SIDE)


@dataclass(frozen=True)
class Step:
    """One operation: its kind, the features that it reads, and a few numbers."""

    kind: str
    reads: tuple[int, ...]
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """A network: its steps, and the way and the features of each head."""

    steps: tuple[Step, ...]
    heads: tuple[tuple[str, tuple[int, ...]], ...]


class Layer(nn.Module):
    """What carries out a step; `widths` are the channels of the features that it makes."""

    widths: tuple[int, ...] = ()


KINDS: dict[str, tuple[type[Layer], Callable[[list[int]], st.SearchStrategy[Step] | None]]] = {}


NO_NUMBERS = st.just(())


def kind(draw: Callable[[list[int]], st.SearchStrategy[Step] | None]) -> Callable[[type[Layer]], type[Layer]]:
    """Register a kind of step with how to draw one, given the widths so far (None: there is nothing for it to read)."""

    def register(layer: type[Layer]) -> type[Layer]:
        KINDS[layer.__name__] = (layer, draw)
        return layer

    return register


def _one_of(widths: list[int], name: str, numbers: Any = NO_NUMBERS, fits: Callable[[int], bool] = bool) -> Any:
    """Draw a step that reads one of the latest features of a width that fits, never the picture."""
    places = [place for place, width in enumerate(widths) if place and fits(width)][-4:]
    if not places:
        return None
    return st.builds(lambda at, ns: Step(name, (at,), ns), st.sampled_from(places), numbers)


def _pair(widths: list[int], name: str, same: bool) -> Any:
    pairs = [(a, b) for a in range(1, len(widths)) for b in range(a) if not same or widths[a] == widths[b]]
    return st.sampled_from(pairs).map(lambda pair: Step(name, pair)) if pairs else None


@kind(
    lambda widths: _one_of(
        widths, "Convolution", st.tuples(st.integers(1, 12), st.sampled_from([1, 3]), st.integers(0, 3))
    )
)
class Convolution(Layer):
    """A convolution, with or without bias, norm and activation."""

    def __init__(self, inputs: list[int], width: int, kernel: int, style: int):
        super().__init__()
        self.widths = (width,)
        self.conv = conv(inputs[0], width, kernel, bias=style % 2 == 0)
        self.norm = nn.BatchNorm2d(width) if style > 1 else nn.Identity()

    def forward(self, x):
        return [torch.relu(self.norm(self.conv(x)))]


@kind(
    lambda widths: _one_of(
        widths, "Grouped", st.tuples(st.integers(2, 3), st.integers(1, 3)), lambda width: width % 6 == 0
    )
)
class Grouped(Layer):
    """A convolution in two or three groups."""

    def __init__(self, inputs: list[int], groups: int, each: int):
        super().__init__()
        self.widths = (groups * each,)
        self.conv = conv(inputs[0], groups * each, groups=groups)

    def forward(self, x):
        return [torch.relu(self.conv(x))]


@kind(lambda widths: _one_of(widths, "Depthwise", st.tuples(st.integers(1, 2))))
class Depthwise(Layer):
    """A depthwise convolution with a multiplier."""

    def __init__(self, inputs: list[int], multiplier: int):
        super().__init__()
        self.widths = (inputs[0] * multiplier,)
        self.conv = conv(inputs[0], self.widths[0], groups=inputs[0])

    def forward(self, x):
        return [self.conv(x)]


@kind(lambda widths: _one_of(widths, "Residual", st.tuples(st.integers(2, 8))))
class Residual(Layer):
    """Two convolutions around the features."""

    def __init__(self, inputs: list[int], hidden: int):
        super().__init__()
        self.widths = (inputs[0],)
        self.inner, self.outer = conv(inputs[0], hidden, 1), conv(hidden, inputs[0])

    def forward(self, x):
        return [x + self.outer(torch.relu(self.inner(x)))]


@kind(lambda widths: _pair(widths, "Sum", same=True))
class Sum(Layer):
    """Two features of one width added."""

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (inputs[0],)

    def forward(self, a, b):
        return [a + b]


@kind(lambda widths: _pair(widths, "Concatenation", same=False))
class Concatenation(Layer):
    """Two features side by side."""

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (sum(inputs),)

    def forward(self, a, b):
        return [torch.cat([a, b], dim=1)]


@kind(lambda widths: _one_of(widths, "Chunk", st.tuples(st.integers(2, 3)), lambda width: width % 6 == 0))
class Chunk(Layer):
    """Equal parts."""

    def __init__(self, inputs: list[int], parts: int):
        super().__init__()
        self.parts = parts
        self.widths = (inputs[0] // parts,) * parts

    def forward(self, x):
        return x.chunk(self.parts, dim=1)


@kind(lambda widths: _one_of(widths, "Split", st.tuples(st.integers(1, 5)), lambda width: width > 5))
class Split(Layer):
    """Two parts with their sizes in an attribute."""

    def __init__(self, inputs: list[int], first: int):
        super().__init__()
        self.sizes = [first, inputs[0] - first]
        self.widths = (first, inputs[0] - first)

    def forward(self, x):
        return torch.split(x, self.sizes, dim=1)


@kind(lambda widths: _one_of(widths, "Slice", st.tuples(st.integers(1, 5), st.booleans()), lambda width: width > 5))
class Slice(Layer):
    """The channels before a bound: an attribute, or a number in the code."""

    def __init__(self, inputs: list[int], bound: int, literal: bool):
        super().__init__()
        self.widths = (min(bound, 3) if literal else bound,)
        self.literal, self.bound = literal, bound

    def forward(self, x):
        if not self.literal:
            return [x[:, : self.bound]]
        return [{1: x[:, :1], 2: x[:, :2]}.get(self.bound, x[:, :3])]


@kind(lambda widths: _one_of(widths, "Shuffle", st.sampled_from([(2,), (3,)]), lambda width: width % 6 == 0))
class Shuffle(Layer):
    """ShuffleNet's shuffle."""

    def __init__(self, inputs: list[int], groups: int):
        super().__init__()
        self.groups = groups
        self.widths = (inputs[0],)

    def forward(self, x):
        return [shuffled(x, self.groups)]


@kind(lambda widths: _one_of(widths, "SqueezeExcite", st.tuples(st.integers(1, 4), st.booleans())))
class SqueezeExcite(Layer):
    """Channels weighed by channels, through linear layers or 1x1 convolutions."""

    def __init__(self, inputs: list[int], hidden: int, linear: bool):
        super().__init__()
        self.widths = (inputs[0],)
        self.reduce = nn.Linear(inputs[0], hidden) if linear else conv(inputs[0], hidden, 1)
        self.expand = nn.Linear(hidden, inputs[0]) if linear else conv(hidden, inputs[0], 1)
        self.linear = linear

    def forward(self, x):
        n, c, _, _ = x.shape
        pooled = F.adaptive_avg_pool2d(x, 1)
        gate = self.expand(torch.relu(self.reduce(pooled.view(n, c) if self.linear else pooled)))
        return [x * torch.sigmoid(gate).view(n, c, 1, 1)]


@kind(lambda widths: _one_of(widths, "Norm", st.tuples(st.integers(0, 3)), lambda width: width > 1))
class Norm(Layer):
    """Batch, instance, group or layer norm; the last two with statistics across channels."""

    def __init__(self, inputs: list[int], which: int):
        super().__init__()
        width = inputs[0]
        self.widths, self.last = (width,), which == 3
        makers = (nn.BatchNorm2d, nn.InstanceNorm2d, lambda width: nn.GroupNorm(2 - width % 2, width), nn.LayerNorm)
        self.norm = makers[which](width)

    def forward(self, x):
        return [self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.last else self.norm(x)]


@kind(lambda widths: _one_of(widths, "Repeated"))
class Repeated(Layer):
    """A convolution applied twice, to its own output."""

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (inputs[0],)
        self.conv = conv(inputs[0], inputs[0])

    def forward(self, x):
        return [torch.relu(self.conv(torch.relu(self.conv(x))))]


@kind(lambda widths: _pair(widths, "Shared", same=True))
class Shared(Layer):
    """One convolution over two features."""

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (4, 4)
        self.conv = conv(inputs[0], 4)

    def forward(self, a, b):
        return [self.conv(a), self.conv(b)]


@kind(lambda widths: _one_of(widths, "Pointwise", st.tuples(st.integers(0, 3))))
class Pointwise(Layer):
    """Activations, a scale of each channel, a constant, pooling that keeps the size."""

    def __init__(self, inputs: list[int], which: int):
        super().__init__()
        self.widths = (inputs[0],)
        self.scale = nn.Parameter(torch.ones(1, inputs[0], 1, 1)) if which == 0 else None
        self.which = which

    def forward(self, x):
        if self.scale is not None:
            return [x * self.scale]
        return [(F.gelu(x), torch.sigmoid(x) + 1, F.max_pool2d(x, 3, 1, 1))[self.which - 1]]


class Head(nn.Module):
    """A way out: pooled and linear, flattened and linear, a 1x1 convolution, or the features as they are."""

    def __init__(self, width: int, way: str):
        super().__init__()
        self.way = way
        sizes = {"pooled": (width, 3), "flat": (width * SIDE * SIDE, 3), "map": (width, 2), "raw": (1, 1)}[way]
        self.out = nn.Identity() if way == "raw" else conv(*sizes, 1) if way == "map" else nn.Linear(*sizes)

    def forward(self, x):
        flat = {"pooled": lambda: x.mean((2, 3)), "flat": lambda: x.flatten(1)}.get(self.way, lambda: x)
        return self.out(flat())


class Network(nn.Module):
    """A program, ready to run."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        self.layers = nn.ModuleList()
        widths = [3]
        for step in program.steps:
            layer = KINDS[step.kind][0]([widths[at] for at in step.reads], *step.numbers)
            self.layers.append(layer)
            widths += layer.widths
        self.heads = nn.ModuleList(Head(sum(widths[at] for at in reads), way) for way, reads in program.heads)

    def forward(self, x):
        features = [x]
        for step, layer in zip(self.program.steps, self.layers, strict=True):
            features += layer(*(features[at] for at in step.reads))
        answers = [
            head(torch.cat([features[at] for at in reads], dim=1))
            for head, (_, reads) in zip(self.heads, self.program.heads, strict=True)
        ]
        return answers[0] if len(answers) == 1 else tuple(answers)


@st.composite
def programs(draw: st.DrawFn, most: int = 9) -> Program:
    """Draw a network of a stem, up to `most` further steps, and one to three heads.

    The first head reads all features that nothing else reads, or only the last ones.
    """
    first = Step("Convolution", (0,), (draw(st.sampled_from([6, 8, 12])), 3, draw(st.integers(0, 3))))
    steps, widths = [first], [3, first.numbers[0]]
    for _ in range(draw(st.integers(1, most))):
        name = draw(st.sampled_from(sorted(KINDS)))
        strategy = KINDS[name][1](widths)
        if strategy is None or max(widths) > 48:
            continue
        step = draw(strategy)
        steps.append(step)
        widths += KINDS[name][0]([widths[at] for at in step.reads], *step.numbers).widths
    used = {at for step in steps for at in step.reads}
    loose = tuple(at for at in range(1, len(widths)) if at not in used)
    heads = [(draw(st.sampled_from(["pooled", "flat", "map"])), loose if draw(st.integers(0, 4)) else loose[-1:])]
    ways = draw(st.lists(st.sampled_from(["pooled", "flat", "map", "raw"]), max_size=2))
    heads += [(way, (draw(st.integers(1, len(widths) - 1)),)) for way in ways]
    return Program(tuple(steps), tuple(heads))
