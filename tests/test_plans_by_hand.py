"""Plans at the edge, chosen by hand: one channel left, or uneven shares. Either refused, or cut right and proved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from secateur import PlanError
from tests.oracle import relative_error
from tests.zoo import ZOO
from tests.zoo.blocks import PICTURE, conv, pooled_head
from tests.zoo.shuffling import shuffled


class Shuffled(nn.Module):
    """A shuffle of two rows of three."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 6), pooled_head(6)

    def forward(self, x):
        return self.head(shuffled(self.stem(x), 2))


class BesidePicture(nn.Module):
    """Channels beside the picture's three."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 8), conv(11, 2, 1)

    def forward(self, x):
        return self.head(torch.cat([self.stem(x), x], dim=1))


class Grouped(nn.Module):
    """Three groups of four inputs and two outputs."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped, self.head = conv(3, 12), conv(12, 6, groups=3), pooled_head(6)

    def forward(self, x):
        return self.head(self.grouped(torch.relu(self.stem(x))))


CASES = {
    "one channel in each row of a shuffle": (Shuffled, {"stem": [0, 1, 4, 5]}),
    "one channel beside the picture": (BesidePicture, {"stem": range(7)}),
    "one input in each group": (Grouped, {"stem": [0, 1, 2, 4, 5, 7, 8, 10, 11]}),
    "one output in each group": (Grouped, {"grouped": [0, 3, 5]}),
    "uneven shares of two shuffled branches": (
        ZOO["ShuffledThenChunked"].build,
        {"left.0": [0, 1, 4], "right.0": [0, 4, 5]},
    ),
}


@pytest.mark.parametrize(("build", "removed"), CASES.values(), ids=CASES)
def test_plan_by_hand_is_refused_or_right(build, removed):
    torch.manual_seed(3)
    model = build().eval()
    graph = secateur.trace(model, PICTURE)
    try:
        plan = secateur.Plan.from_indices(graph, removed)
    except PlanError:
        return
    small = secateur.cut(model, plan)
    assert relative_error(model, plan, small, PICTURE) < 1e-9
    secateur.verify(model, small, plan, PICTURE)
