"""Steps of convolutional networks: convolutions of all kinds, sums, concatenations, splits, gates, norms."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.generator.registry import Layer, kind
from tests.zoo.blocks import conv
from tests.zoo.shuffling import shuffled


@kind
class Convolution(Layer):
    """A convolution, with or without bias, norm and activation."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(1, 13)), choose([1, 3]), choose(range(4)))

    def __init__(self, inputs: list[int], width: int, kernel: int, style: int):
        super().__init__()
        self.widths = (width,)
        self.conv = conv(inputs[0], width, kernel, bias=style % 2 == 0)
        self.norm = nn.BatchNorm2d(width) if style > 1 else nn.Identity()

    def forward(self, x):
        return [torch.relu(self.norm(self.conv(x)))]


@kind
class Grouped(Layer):
    """A convolution in two or three groups."""

    @classmethod
    def fits(cls, *widths):
        return widths[0] % 6 == 0

    @classmethod
    def numbers(cls, choose, width):
        return (choose([2, 3]), choose([1, 2, 3]))

    def __init__(self, inputs: list[int], groups: int, each: int):
        super().__init__()
        self.widths = (groups * each,)
        self.conv = conv(inputs[0], groups * each, groups=groups)

    def forward(self, x):
        return [torch.relu(self.conv(x))]


@kind
class Depthwise(Layer):
    """A depthwise convolution with a multiplier."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose([1, 2]),)

    def __init__(self, inputs: list[int], multiplier: int):
        super().__init__()
        self.widths = (inputs[0] * multiplier,)
        self.conv = conv(inputs[0], self.widths[0], groups=inputs[0])

    def forward(self, x):
        return [self.conv(x)]


@kind
class Residual(Layer):
    """Two convolutions around the features."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(2, 9)),)

    def __init__(self, inputs: list[int], hidden: int):
        super().__init__()
        self.widths = (inputs[0],)
        self.inner, self.outer = conv(inputs[0], hidden, 1), conv(hidden, inputs[0])

    def forward(self, x):
        return [x + self.outer(torch.relu(self.inner(x)))]


@kind
class Sum(Layer):
    """Two features of one width added."""

    inputs = 2

    @classmethod
    def fits(cls, *widths):
        return widths[0] == widths[1]

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (inputs[0],)

    def forward(self, a, b):
        return [a + b]


@kind
class Concatenation(Layer):
    """Two features side by side."""

    inputs = 2

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (sum(inputs),)

    def forward(self, a, b):
        return [torch.cat([a, b], dim=1)]


@kind
class Chunk(Layer):
    """Equal parts."""

    @classmethod
    def fits(cls, *widths):
        return widths[0] % 6 == 0

    @classmethod
    def numbers(cls, choose, width):
        return (choose([2, 3]),)

    def __init__(self, inputs: list[int], parts: int):
        super().__init__()
        self.parts = parts
        self.widths = (inputs[0] // parts,) * parts

    def forward(self, x):
        return x.chunk(self.parts, dim=1)


@kind
class Split(Layer):
    """Two parts with their sizes in an attribute."""

    @classmethod
    def fits(cls, *widths):
        return widths[0] > 5

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(1, 6)),)

    def __init__(self, inputs: list[int], first: int):
        super().__init__()
        self.sizes = [first, inputs[0] - first]
        self.widths = (first, inputs[0] - first)

    def forward(self, x):
        return torch.split(x, self.sizes, dim=1)


@kind
class Slice(Layer):
    """The channels before a bound: an attribute, or a number in the code."""

    @classmethod
    def fits(cls, *widths):
        return widths[0] > 5

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(1, 6)), choose([False, True]))

    def __init__(self, inputs: list[int], bound: int, literal: bool):
        super().__init__()
        self.widths = (min(bound, 3) if literal else bound,)
        self.literal, self.bound = literal, bound

    def forward(self, x):
        if not self.literal:
            return [x[:, : self.bound]]
        return [{1: x[:, :1], 2: x[:, :2]}.get(self.bound, x[:, :3])]


@kind
class Shuffle(Layer):
    """ShuffleNet's shuffle."""

    @classmethod
    def fits(cls, *widths):
        return widths[0] % 6 == 0

    @classmethod
    def numbers(cls, choose, width):
        return (choose([2, 3]),)

    def __init__(self, inputs: list[int], groups: int):
        super().__init__()
        self.groups = groups
        self.widths = (inputs[0],)

    def forward(self, x):
        return [shuffled(x, self.groups)]


@kind
class SqueezeExcite(Layer):
    """Channels weighed by channels, through linear layers or 1x1 convolutions."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(1, 5)), choose([False, True]))

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


@kind
class Norm(Layer):
    """Batch, instance, group or layer norm; the last two with statistics across channels."""

    @classmethod
    def fits(cls, *widths):
        return widths[0] > 1

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(4)),)

    def __init__(self, inputs: list[int], which: int):
        super().__init__()
        width = inputs[0]
        self.widths, self.last = (width,), which == 3
        makers = (nn.BatchNorm2d, nn.InstanceNorm2d, lambda width: nn.GroupNorm(2 - width % 2, width), nn.LayerNorm)
        self.norm = makers[which](width)

    def forward(self, x):
        return [self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.last else self.norm(x)]


@kind
class Repeated(Layer):
    """A convolution applied twice, to its own output."""

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (inputs[0],)
        self.conv = conv(inputs[0], inputs[0])

    def forward(self, x):
        return [torch.relu(self.conv(torch.relu(self.conv(x))))]


@kind
class Shared(Layer):
    """One convolution over two features."""

    inputs = 2

    @classmethod
    def fits(cls, *widths):
        return widths[0] == widths[1]

    def __init__(self, inputs: list[int]):
        super().__init__()
        self.widths = (4, 4)
        self.conv = conv(inputs[0], 4)

    def forward(self, a, b):
        return [self.conv(a), self.conv(b)]


@kind
class Pointwise(Layer):
    """Activations, a scale of each channel, a constant, pooling that keeps the size."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(4)),)

    def __init__(self, inputs: list[int], which: int):
        super().__init__()
        self.widths = (inputs[0],)
        self.scale = nn.Parameter(torch.ones(1, inputs[0], 1, 1)) if which == 0 else None
        self.which = which

    def forward(self, x):
        if self.scale is not None:
            return [x * self.scale]
        return [(F.gelu(x), torch.sigmoid(x) + 1, F.max_pool2d(x, 3, 1, 1))[self.which - 1]]
