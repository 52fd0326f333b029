"""Random small networks: a program of steps, and a module that interprets it.

Every step reads features made earlier, by number, and appends its own; all features have the same height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tests.generator import convolutions as convolutions
from tests.generator import tokens as tokens
from tests.generator import views as views
from tests.generator.registry import KINDS, SIDE, Choose, Step, drawn
from tests.zoo.blocks import conv

EXAMPLE = torch.zeros(2, 3, SIDE, SIDE)
WIDEST = 48


@dataclass(frozen=True)
class Program:
    """A network: its steps, and the way and the features of each head."""

    steps: tuple[Step, ...]
    heads: tuple[tuple[str, tuple[int, ...]], ...]


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
            layer = KINDS[step.kind]([widths[at] for at in step.reads], *step.numbers)
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


def program(choose: Choose, most: int = 9) -> Program:
    """Draw a network of a stem, up to `most` further steps, and one to three heads.

    The first head reads all features that nothing else reads, or only the last ones.
    """
    first = Step("Convolution", (0,), (choose([6, 8, 12]), 3, choose(range(4))))
    steps, widths = [first], [3, first.numbers[0]]
    for _ in range(choose(range(1, most + 1))):
        step = drawn(choose, widths) if max(widths) <= WIDEST else None
        if step is not None:
            steps.append(step)
            widths += KINDS[step.kind]([widths[at] for at in step.reads], *step.numbers).widths
    used = {at for step in steps for at in step.reads}
    loose = tuple(at for at in range(1, len(widths)) if at not in used)
    heads = [(choose(["pooled", "flat", "map"]), loose if choose(range(5)) else loose[-1:])]
    further = range(choose(range(3)))
    heads += [(choose(["pooled", "flat", "map", "raw"]), (choose(range(1, len(widths))),)) for _ in further]
    return Program(tuple(steps), tuple(heads))
