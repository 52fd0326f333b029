import numpy as np
import pytest
import torch
from torch import nn

from secateur.graph.tracing import trace
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.planning.manual import kept_units
from secateur.planning.planning import plan
from secateur.planning.structures import structures_of
from tests.planning.graphs import chain, parts, residual
from tests.zoo import ZOO
from tests.zoo.blocks import PICTURE, conv_norm, pooled_head


class TwoStreams(nn.Module):
    """Two streams of one structure, a branch of another; the weights of one stream are a hundred times the other's."""

    def __init__(self):
        super().__init__()
        self.stems = nn.ModuleList([conv_norm(3, 32), conv_norm(3, 24)])
        self.inner = nn.ModuleList([conv_norm(32, 40), conv_norm(24, 56)])
        self.outer = nn.ModuleList([conv_norm(40, 32), conv_norm(56, 24)])
        self.heads = nn.ModuleList([pooled_head(32), pooled_head(24)])

    def forward(self, x):
        outs = []
        for stem, inner, outer, head in zip(self.stems, self.inner, self.outer, self.heads, strict=True):
            y = stem(x)
            outs.append(head(y + outer(inner(y))))
        return outs[0] + outs[1]


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    model = TwoStreams().eval()
    return trace(model, PICTURE), model


def counts(graph, found):
    return {group.name: int(kept_units(found, group).sum()) for group in graph.groups}


def test_the_size_of_a_group_is_no_part_of_its_structure(traced):
    graph, _ = traced
    numbers = dict(zip((group.name for group in graph.groups), structures_of(graph), strict=True))
    assert numbers["stems.0.0"] == numbers["stems.1.0"]
    assert numbers["inner.0.0"] == numbers["inner.1.0"]
    assert numbers["stems.0.0"] != numbers["inner.0.0"]


def test_types_axes_and_multiplicities_are(traced):
    assert len(set(structures_of(chain(8, 9, 10)))) == 1
    assert len(set(structures_of(residual()))) == 2
    assert structures_of(parts(4, 6)).tolist() == [0, 0]
    several = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(32, 2)
    )
    assert structures_of(trace(several, torch.zeros(1, 3, 2, 2))).tolist() == [0, 1, 2]


def test_groups_of_one_structure_share_its_ratio(traced):
    graph, model = traced
    scores = {"stems.0.0": torch.ones(32), "stems.1.0": torch.cat([torch.full((12,), 9.0), torch.full((12,), 0.1)])}
    scores |= {"outer.0.0": scores["stems.0.0"], "outer.1.0": scores["stems.1.0"]}
    kept = counts(graph, plan(graph, model, ratio=0.25, ranking="isomorphic", scores=scores, min_channels=1))
    assert kept["stems.0.0"] + kept["stems.1.0"] == 42
    assert kept["inner.0.0"] + kept["inner.1.0"] == 72
    assert kept["stems.1.0"] == 12  # its worst half is worse than anything in the other stream
    assert kept["stems.0.0"] == 30


def test_another_structure_does_not_compete(traced):
    graph, model = traced
    worthless = {f"inner.{number}.0": torch.full((size,), 1e-9) for number, size in ((0, 40), (1, 56))}
    one, other = (plan(graph, model, ratio=0.5, ranking="isomorphic", scores=scores) for scores in ({}, worthless))
    assert counts(graph, one)["stems.0.0"] == counts(graph, other)["stems.0.0"]


@pytest.mark.parametrize("share", ["0.7x", "0.4x", "0.2x"])
def test_under_a_cap_every_structure_keeps_the_same_share(share):
    torch.manual_seed(0)
    model = MobileNetV2(num_classes=10).eval()
    graph = trace(model, torch.zeros(1, 3, 64, 64))
    found = plan(graph, model, macs=share, ranking="isomorphic", min_channels=1)
    kept = np.array(list(counts(graph, found).values()))
    sizes, structures = np.array([group.size for group in graph.groups]), structures_of(graph)
    shares = np.bincount(structures, kept) / np.bincount(structures, sizes)
    wide = np.bincount(structures, sizes) > 300
    assert shares[wide].max() - shares[wide].min() < 0.05
    assert 0.99 * float(share[:-1]) <= graph.costs.macs(kept) / graph.costs.macs() <= float(share[:-1])
    assert len(set(kept / sizes)) > structures.max() + 1  # within a structure groups do differ


@pytest.mark.parametrize("name", ["ResNeXtBlock", "DenseGrowth", "ShuffleUnitEven", "C2f", "PictureTransformer"])
def test_rankings_hold_where_channels_are_coupled(name):
    torch.manual_seed(0)
    model = ZOO[name].build().eval()
    graph = trace(model, ZOO[name].example)
    for ranking in ("global", "isomorphic"):
        found = plan(graph, model, ratio=0.5, ranking=ranking, min_channels=1)
        kept = np.array(list(counts(graph, found).values()))
        assert graph.equalities.hold(kept)
        assert kept.sum() < sum(group.size for group in graph.groups)
