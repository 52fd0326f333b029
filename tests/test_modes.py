"""What only training does is found, however the code asks for the mode; and asking costs a model nothing."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from tests.zoo.blocks import PICTURE, conv, pooled_head


class Coupling(nn.Module):
    """Two branches that are added in training, and stand side by side otherwise."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.drop = conv(3, 8), conv(3, 8), nn.Dropout(0.0)
        self.head, self.also = pooled_head(8), pooled_head(8)

    def trains(self):
        raise NotImplementedError

    def forward(self, x):
        a, b = self.one(x), self.other(x)
        if self.trains():
            a = a + b
        return self.head(a), self.also(b)


class Plainly(Coupling):
    def trains(self):
        return self.training


class ByIdentity(Coupling):
    def trains(self):
        return self.training is True


class OfAnother(Coupling):
    def trains(self):
        return self.drop.training


def helper(module):
    return module.training


class ByHelper(Coupling):
    def trains(self):
        return helper(self)


class ByProperty(Coupling):
    @property
    def mode(self):
        return self.training

    def trains(self):
        return self.mode


class ByName(Coupling):
    def trains(self):
        return getattr(self, "train" + "ing")


class ByNumber(Coupling):
    def trains(self):
        return int(self.training) * 2 > 1


class OnData(Coupling):
    """Its forward reads values, too."""

    def trains(self):
        return helper(self)

    def forward(self, x):
        return super().forward(x if float(x.sum()) > -1e9 else -x)


class HandedOnAndAsked(Coupling):
    """The flag goes to a dropout, and is looked at a line further on."""

    def trains(self):
        flag = self.training
        F.dropout(torch.ones(3), 0.0, training=flag)
        return flag


class SecondTime(nn.Module):
    """A block asks only when it is called again."""

    def __init__(self):
        super().__init__()
        self.inner, self.head, self.also = Plainly(), nn.Linear(4, 2), nn.Linear(4, 2)
        self.times = 0

    def forward(self, x):
        first = self.inner(x)
        second = self.inner(x) if self.training or self.times == 0 else first
        return self.head(first[0]), self.also(second[1])


ASKING = (
    Plainly, ByIdentity, OfAnother, ByHelper, ByProperty, ByName, ByNumber, OnData, HandedOnAndAsked, SecondTime,
)  # fmt: skip


@pytest.mark.parametrize("kind", ASKING)
def test_what_is_added_in_training_goes_together(kind):
    model = kind().eval()
    graph = secateur.trace(model, PICTURE)
    start = "inner." if kind is SecondTime else ""
    together = [set(group.layers) for group in graph.groups if f"{start}one" in group.layers]
    assert all(f"{start}other" in layers for layers in together)
    small, _ = secateur.prune(model, PICTURE, ratio=0.5, min_channels=1)
    small.train()(PICTURE.repeat(2, 1, 1, 1))
    assert not hasattr(nn.Module, "training")


class Harmless(nn.Module):
    """Asks for the mode in many ways, none of which changes what goes with what."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.p = conv(3, 8), conv(8, 8), 0.5
        self.head = pooled_head(8)

    def forward(self, x):
        with torch.set_grad_enabled(self.training):
            x = self.first(x)
        x = torch.dropout(x, self.p * self.training, self.training)
        x = F.dropout(
            x,
            self.p,
            training=self.training,
        )
        was = self.training
        self.eval()
        x = self.second(x)
        self.train(was)
        assert list(inspect.signature(self.forward).parameters) == ["x"]
        return self.head(x)


def test_the_flag_is_what_it_always_is():
    model = Harmless().eval()
    graph = secateur.trace(model, PICTURE)
    assert not graph.on_data
    assert [group.name for group in graph.groups] == ["first", "second"]
    assert secateur.prune(model, PICTURE, ratio=0.5, min_channels=1)[1].proof.structure


class Forgetful(nn.Module):
    """Hands the flag to torch's dropouts only."""

    def __init__(self):
        super().__init__()
        self.first, self.head = conv(3, 8), pooled_head(8)

    def forward(self, x):
        x = F.dropout(self.first(x), 0.3, training=self.training)
        return self.head(F.dropout2d(x, 0.3, self.training))


def test_a_flag_that_torch_alone_looks_at_makes_no_second_run():
    assert secateur.trace(Forgetful().eval(), PICTURE).training_batch == 0
    assert secateur.trace(Plainly().eval(), PICTURE).training_batch == 1
