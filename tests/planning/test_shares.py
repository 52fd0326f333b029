import logging
import re

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import PlanError
from secateur.graph.tracing import trace
from secateur.planning.planning import plan
from tests.zoo import ZOO
from tests.zoo.blocks import PICTURE, conv_norm


class Wide(nn.Conv2d):
    """A convolution of a class of its own."""


class Named(nn.Module):
    """Four convolutions with norms in two modules, of two classes, and two linear layers."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"first": conv_norm(3, 40), "second": conv_norm(40, 40)})
        self.tail = nn.Sequential(Wide(40, 40, 1), nn.BatchNorm2d(40), nn.Conv2d(40, 40, 1))
        self.hidden, self.last = nn.Linear(40, 40), nn.Linear(40, 2)

    def forward(self, x):
        x = self.tail(self.body["second"](self.body["first"](x)))
        return self.last(self.hidden(x.mean((2, 3))).relu())


WEIGHTS = ("body.first.0", "body.second.0", "tail.0", "tail.2", "hidden")


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    model = Named().eval()
    return trace(model, PICTURE), model


def widths(found):
    return [found.shape_after(f"{name}.weight")[0] for name in WEIGHTS]


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.5, [20, 20, 20, 20, 20]),
        ({"*": 0.5}, [20, 20, 20, 20, 20]),
        ({"*": 0.5, "hidden": 0}, [20, 20, 20, 20, 40]),
        ({"Conv2d": 0.5}, [20, 20, 20, 20, 40]),
        ({nn.Conv2d: 0.5}, [20, 20, 20, 20, 40]),
        ({"Conv2d": 0.5, "Wide": 0.2}, [20, 20, 32, 20, 40]),
        ({Wide: 0.2, "Conv2d": 0.5}, [20, 20, 32, 20, 40]),
        ({"Conv2d": 0.5, "body": 0.2}, [32, 32, 20, 20, 40]),
        ({"Conv2d": 0.5, "body.*": 0.2}, [32, 32, 20, 20, 40]),
        ({"*.0": 0.5, "body.*.0": 0.2, "body.first.*": 0.1}, [36, 32, 20, 40, 40]),
        ({"body.first.0": 0.75, "body.first.*": 0.1, "Conv2d": 0.5}, [10, 20, 20, 20, 40]),
        ({"body.first.0": 0.75, "*": 0.1}, [10, 36, 36, 36, 36]),
        ({"BatchNorm2d": 0.25}, [30, 30, 30, 40, 40]),
        ({"body.first.1": 0.25}, [30, 40, 40, 40, 40]),
        ({"ConvTranspose2d": 0.5, "*": 0.1}, [36, 36, 36, 36, 36]),
        ({"last": 0.5, "*": 0.1}, [36, 36, 36, 36, 36]),
    ],
)
def test_the_closest_word_counts(traced, ratio, expected):
    assert widths(plan(*traced, ratio=ratio, min_channels=1)) == expected


def test_modules_are_words_too(traced):
    graph, model = traced
    assert widths(plan(graph, model, ratio={model.body: 0.5, model.hidden: 0.25})) == [20, 20, 40, 40, 30]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0.25, [30, 30, 30, 30, 30]),
        (1, [8, 8, 8, 8, 8]),
        ({"body": 0.5}, [20, 20, 8, 8, 8]),
        ({"*": 0.5, "tail.*": 0.25, "hidden": 0, "tail.0": 1}, [20, 20, 8, 30, 40]),
    ],
)
def test_limits_may_be_by_layer(traced, limit, expected):
    assert widths(plan(*traced, ratio=0.9, max_ratio=limit)) == expected


@pytest.mark.parametrize("ranking", ["group", "global", "isomorphic"])
def test_limits_hold_under_a_cap(traced, ranking):
    found = plan(*traced, params="0.4x", max_ratio={"body.first": 0.1, "hidden": 0}, min_channels=1, ranking=ranking)
    assert widths(found)[0] >= 36
    assert widths(found)[4] == 40


@pytest.mark.parametrize("ranking", ["global", "isomorphic"])
def test_groups_asked_for_different_ratios_do_not_compete(traced, ranking):
    found = widths(plan(*traced, ratio={"body": 0.25, "tail": 0.5}, ranking=ranking, min_channels=1))
    assert found[0] + found[1] == 60
    assert found[2] + found[3] == 40
    assert found[4] == 40


def test_coupled_layers_take_the_smallest_share_and_the_log_says_whose(caplog):
    model = ZOO["IdentityResidual"].build().eval()
    graph = trace(model, PICTURE)
    with caplog.at_level(logging.WARNING, logger="secateur"):
        found = plan(graph, model, ratio={"stem.0": 0.75, "outer.0": 0.25, "inner": 0.5}, min_channels=1)
    assert found.shape_after("outer.0.weight") == (6, 8, 3, 3)
    assert found.shape_after("stem.0.weight")[0] == 6
    assert [record.getMessage() for record in caplog.records] == [
        "Coupled layers of stem.0 ask for different shares (ratio: stem.0 0.75): outer.0 decides, with 0.25."
    ]


def test_a_layer_that_is_not_named_does_not_decide_for_those_that_are():
    model = ZOO["IdentityResidual"].build().eval()
    graph = trace(model, PICTURE)
    found = plan(graph, model, ratio={"stem.0": 0.5, "*": 0.25}, min_channels=1)
    assert found.shape_after("outer.0.weight")[:2] == (4, 12)


def test_shares_are_written_into_the_recipe(traced):
    graph, model = traced
    found = plan(graph, model, ratio={model.body: np.float32(0.5), nn.Linear: 0.25}, max_ratio={"*": 0.5})
    assert found.recipe["budget"] == {"ratio": {"body": 0.5, "Linear": 0.25}}
    assert found.recipe["limits"]["max_ratio"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": {"bdy": 0.5}}, "called 'bdy', nor of that type. Did you mean body"),
        ({"ratio": {"Conv2D": 0.5}}, "Did you mean Conv2d"),
        ({"ratio": {nn.Conv2d(3, 3, 1): 0.5}}, "ratio has Conv2d, which is no part of the model"),
        ({"ratio": {3: 0.5}}, "ratio has 3, which is no part"),
        ({"ratio": {"body": 1}}, "ratio gives 'body' 1, which is no share"),
        ({"ratio": {"body": "half"}}, "ratio gives 'body' 'half', which is no share"),
        ({"ratio": {"body": -0.1}}, "at least 0 and below 1"),
        ({"ratio": {}}, "ratio is an empty dict"),
        ({"ratio": [0.5]}, "ratio=[0.5] is no share"),
        ({"ratio": 0.5, "max_ratio": {"body": 1.5}}, "max_ratio gives 'body' 1.5"),
        ({"ratio": 0.5, "max_ratio": {"hiden": 0.5}}, "Did you mean hidden"),
        ({"ratio": {"body": 0.5}, "macs": "0.5x"}, "budgets of different kinds"),
    ],
)
def test_shares_that_make_no_sense_are_refused(traced, arguments, message):
    with pytest.raises(PlanError, match=re.escape(message)):
        plan(*traced, **arguments)


def test_a_mapping_of_zeros_removes_nothing(traced, caplog):
    with caplog.at_level(logging.WARNING, logger="secateur"):
        assert plan(*traced, ratio={"Conv2d": 0}).is_empty
    assert "removes nothing" in caplog.text
