import logging
import re

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import PlanError
from secateur.graph.tracing import trace
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.planning.outputs import kinds_of, outputs_of, producing_axes
from secateur.planning.planning import plan
from secateur.planning.plans import Plan
from tests.zoo import ZOO


class Small(nn.Module):
    """A stem, a residual block, a grouped convolution, a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32))
        self.a = nn.Conv2d(32, 48, 3, padding=1)
        self.b = nn.Conv2d(48, 32, 1)
        self.grouped = nn.Conv2d(32, 64, 3, groups=4)
        self.fc1 = nn.Linear(64, 40)
        self.fc2 = nn.Linear(40, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.b(self.a(x).relu())
        x = self.grouped(x).relu().mean((2, 3))
        return self.fc2(self.fc1(x).relu())


def small(seed=0):
    torch.manual_seed(seed)
    model = Small().eval()
    return trace(model, torch.zeros(1, 3, 16, 16)), model


@pytest.fixture(scope="module")
def traced():
    return small()


def kept_of(graph, found):
    """Return how many units of each group a plan keeps."""
    counts = []
    for group in graph.groups:
        lists = [(m, found.keep.get(m.tensor, {}).get(m.axis)) for m in group.members if m.axis != "grouped"]
        counts.append(
            next((int(np.isin(m.indices[:, 0], kept).sum()) for m, kept in lists if kept is not None), group.size)
        )
    return np.array(counts)


def test_a_ratio_holds_for_every_group(traced):
    graph, model = traced
    found = plan(graph, model, ratio=0.5)
    assert found.shape_after("stem.0.weight") == (16, 3, 3, 3)
    assert found.shape_after("a.weight") == (24, 16, 3, 3)
    assert found.shape_after("grouped.weight") == (32, 4, 3, 3)
    assert found.shape_after("fc2.weight") == (10, 20)
    assert found.fingerprint["fc1.weight"] == (40, 64)
    assert Plan.from_json(found.to_json()) == found


def test_the_filters_with_the_largest_norm_stay(traced):
    graph, model = traced
    found = plan(graph, model, ratio=0.5)
    norms = model.a.weight.detach().double().abs().sum((1, 2, 3)).numpy()
    assert found.keep["a.weight"][0] == tuple(np.sort(np.argsort(-norms, kind="stable")[:24]))
    assert found.keep["a.bias"][0] == found.keep["b.weight"][1] == found.keep["a.weight"][0]


@pytest.mark.parametrize(
    "budget", [{"macs": "0.4x"}, {"params": "0.4x"}, {"macs": "0.5x", "params": "0.4x"}, {"params": 20_000}]
)
@pytest.mark.parametrize("ranking", ["group", "global"])
def test_caps_are_met(traced, budget, ranking):
    graph, model = traced
    found = plan(graph, model, ranking=ranking, min_channels=2, **budget)
    kept = kept_of(graph, found)
    assert graph.equalities.hold(kept)
    fills = []
    for name, value in budget.items():
        full = getattr(graph.costs, name)()
        limit = float(value[:-1]) * full if isinstance(value, str) else value
        fills.append(getattr(graph.costs, name)(kept) / limit)
        assert found.recipe["reached"][name] == getattr(graph.costs, name)(kept)
    assert max(fills) <= 1
    assert max(fills) >= 0.99 or found.recipe["step"]


def test_the_same_seed_gives_the_same_plan(traced):
    graph, model = traced
    one, again, other = (plan(graph, model, ratio=0.5, criterion="random", seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.to_json() == again.to_json()
    assert one.keep != other.keep


def test_a_plan_applies_to_another_checkpoint_of_the_model(traced):
    graph, _ = traced
    _, other = small(seed=1)
    found = plan(graph, other.to(torch.float16), ratio=0.5)
    norms = other.a.weight.detach().double().abs().sum((1, 2, 3)).numpy()
    assert found.keep["a.weight"][0] == tuple(np.sort(np.argsort(-norms, kind="stable")[:24]))


def test_scores_and_ignored_modules_are_heeded(traced):
    graph, model = traced
    found = plan(graph, model, ratio=0.5, scores={"a": -np.arange(48)}, ignore=[model.stem, "fc1"])
    assert found.keep["a.weight"][0] == tuple(range(24))
    assert found.shape_after("stem.0.weight") == (32, 3, 3, 3)
    assert found.shape_after("fc1.weight") == (40, 32)


def test_the_articles_list_selects_whole_groups(traced):
    graph, model = traced
    config = [{"sparsity": 0.8, "op_types": ["Conv2d"]}]
    found = plan(graph, model, config=config, min_channels=1)
    assert found.shape_after("a.weight") == (10, 8, 3, 3)  # 2 of 8 units in each of the stem's four groups
    assert found.shape_after("fc1.weight")[0] == 40
    assert found == plan(graph, model, config=str(config), min_channels=1)


def test_total_sparsity_takes_that_share_of_the_weights(traced):
    graph, model = traced
    found = plan(graph, model, config=[{"total_sparsity": 0.5, "op_types": ["Linear"]}], min_channels=1)
    assert found.shape_after("fc1.weight") == (20, 64)
    capped = plan(
        graph, model, config=[{"total_sparsity": 0.5, "max_sparsity_per_layer": 0.25, "op_types": ["Linear"]}]
    )
    assert capped.shape_after("fc1.weight") == (30, 64)


def test_a_global_group_of_nni_shares_a_ratio_out(traced):
    graph, model = traced
    scores = {"a": np.linspace(1, 2, 48), "fc1": np.linspace(0.0, 0.1, 40)}
    entry = {"op_names": ["a", "fc1"], "sparse_ratio": 0.5, "global_group_id": 1}

    def widths(**bounds):
        found = plan(graph, model, config=[{**entry, **bounds}], scores=scores, min_channels=1)
        return [found.shape_after(name)[0] for name in ("a.weight", "fc1.weight")]

    free = widths()
    assert sum(free) == 44
    assert free[0] > free[1]
    assert widths(max_sparse_ratio=0.5) == [24, 20]
    assert widths(min_sparse_ratio=0.4)[0] <= 28
    assert sum(widths(min_sparse_ratio=0.4)) == 44


def test_a_config_without_sparsity_is_the_scope_of_a_cap(traced):
    graph, model = traced
    found = plan(graph, model, config=[{"op_types": ["Linear"]}], params="0.97x")
    assert found.shape_after("fc1.weight")[0] < 40
    assert found.shape_after("a.weight") == (48, 32, 3, 3)


def test_numbers_may_be_numpys(traced):
    graph, model = traced
    found = plan(graph, model, params=np.int64(20_000), min_channels=np.int64(4), round_to=np.int32(2))
    assert Plan.from_json(found.to_json()) == found
    assert plan(graph, model, ratio=np.float32(0.5)).keep == plan(graph, model, ratio=0.5).keep


def test_limits_are_kept(traced):
    graph, model = traced
    assert plan(graph, model, ratio=0.9, max_ratio=0.25).shape_after("a.weight")[0] == 36
    assert plan(graph, model, ratio=0.9).shape_after("a.weight")[0] == 8
    assert plan(graph, model, ratio=0.9, min_channels=1).shape_after("a.weight")[0] == 5
    assert plan(graph, model, ratio=0.3, round_to=8).shape_after("a.weight")[0] % 8 == 0


def test_a_ratio_of_all_units_together(traced):
    graph, model = traced
    kept = kept_of(graph, plan(graph, model, ratio=0.5, ranking="global", min_channels=1))
    sizes = np.array([group.size for group in graph.groups])
    assert kept.sum() == pytest.approx(sizes.sum() / 2, rel=0.02)
    assert len(set(kept / sizes)) > 2


@pytest.mark.parametrize("ratio", [0, 1, 1.2, -0.5, "abc", float("nan"), True])
def test_a_ratio_that_makes_no_sense_is_refused(traced, ratio):
    with pytest.raises(PlanError, match=r"is no share of the channels to remove\. Give a number between 0 and 1"):
        plan(*traced, ratio=ratio)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, 'No budget was given. Pass ratio=0.5, macs="0.5x"'),
        ({"config": [{"op_types": ["Conv2d"]}]}, "No budget was given"),
        ({"ratio": 0.5, "macs": "0.5x"}, "ratio and macs are budgets of different kinds"),
        ({"ratio": 0.5, "params": "0.5x"}, "ratio and params are budgets of different kinds"),
        ({"ratio": 0.5, "config": [{"sparsity": 0.5}]}, "ratio and the sparsities of config are budgets"),
        ({"macs": "0.5x", "params": "1x"}, "params='1x' removes nothing"),
        ({"macs": "1000G"}, "within the budget already"),
        ({"macs": "0.0001x"}, "is below the smallest reachable"),
        ({"params": 10}, "is below the smallest reachable"),
        ({"macs": "half"}, "macs='half' is no amount"),
        ({"ratio": 0.5, "criterion": "l11"}, "There is no criterion 'l11'. Did you mean l1"),
        ({"ratio": 0.5, "ranking": "globl"}, "There is no ranking 'globl'. Did you mean global"),
        ({"ratio": 0.5, "min_channels": 0}, "min_channels=0 makes no sense here. Give a whole number of at least 1"),
        ({"ratio": 0.5, "round_to": 2.5}, "round_to=2.5 makes no sense"),
        ({"ratio": 0.5, "max_ratio": 1.5}, "max_ratio=1.5 is no share"),
        ({"ratio": 0.5, "seed": -1}, "seed=-1 makes no sense"),
        ({"ratio": 0.5, "ignore": ["fc3"]}, "'fc3', nor of that type. Did you mean fc"),
        ({"ratio": 0.5, "ignore": [nn.ReLU()]}, "ignore has ReLU, which is no part of the model"),
        ({"ratio": 0.5, "ignore": [7]}, "ignore has 7"),
        ({"ratio": 0.5, "scores": {"zz": [1]}}, "scores has 'zz'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(traced, arguments, message):
    with pytest.raises(PlanError, match=re.escape(message)) as raised:
        plan(*traced, **arguments)
    assert "\n" not in str(raised.value)


def test_the_smallest_reachable_is_reachable(traced):
    with pytest.raises(PlanError) as raised:
        plan(*traced, macs="0.001x")
    smallest = int(re.search(r"which is macs=(\d+)", str(raised.value))[1])
    assert plan(*traced, macs=smallest).recipe["reached"]["macs"] == smallest


@pytest.mark.parametrize("ranking", ["group", "global", "isomorphic"])
@pytest.mark.parametrize(
    "name", ["IdentityResidual", "DenseGrowth", "ShuffleUnitEven", "SplitByAttributeList", "ChunkInTwo"]
)
def test_multiples_and_floors_hold_where_channels_are_coupled(name, ranking):
    torch.manual_seed(0)
    model = ZOO[name].build().eval()
    graph = trace(model, ZOO[name].example)
    outputs = outputs_of(graph, kinds_of(graph, model))
    for options in ({"ratio": 0.6}, {"params": "0.7x"}):
        found = plan(graph, model, round_to=4, min_channels=3, max_ratio=0.7, ranking=ranking, **options)
        for tensor, axis in producing_axes(outputs):
            full, kept = graph.tensors[tensor].shape[axis], found.shape_after(tensor)[axis]
            assert kept % 4 == 0 or kept == full
            assert kept >= min(3, full)
        kept, sizes = kept_of(graph, found), np.array([group.size for group in graph.groups])
        assert (sizes - kept <= np.floor(np.round(0.7 * sizes, 9))).all()


def test_another_model_than_the_graphs_is_refused(traced):
    graph, _ = traced
    with pytest.raises(PlanError, match=r"another model: stem\.0\.weight has shape .* this model has no such tensor"):
        plan(graph, nn.Linear(3, 3), ratio=0.5)
    wider = Small()
    wider.a = nn.Conv2d(32, 50, 3)
    with pytest.raises(PlanError, match=r"a.weight has shape \(48, 32, 3, 3\) there, and this model has shape \(50,"):
        plan(graph, wider, ratio=0.5)
    longer = Small()
    longer.extra = nn.Linear(2, 2)
    with pytest.raises(PlanError, match=r"this one has extra\.weight, and that one had not"):
        plan(graph, longer, ratio=0.5)


def test_a_plan_that_removes_nothing_says_so(caplog):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    with caplog.at_level(logging.WARNING, logger="secateur"):
        assert plan(trace(model, torch.zeros(1, 3, 8, 8)), model, ratio=0.5).is_empty
    assert "removes nothing" in caplog.text


def test_a_thin_stem_is_warned_of(caplog):
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 4, 3))
    with caplog.at_level(logging.WARNING, logger="secateur"):
        plan(trace(model, torch.zeros(1, 3, 8, 8)), model, ratio=0.95, min_channels=1)
    assert [record.getMessage() for record in caplog.records] == [
        "The stem 0 keeps 2 of 32 channels. Raise min_channels."
    ]


def test_a_thin_residual_stream_is_warned_of(caplog):
    model = MobileNetV2(num_classes=10)
    names = [f"features.{number}.conv.6" for number in (7, 8, 9, 10)]
    with caplog.at_level(logging.WARNING, logger="secateur"):
        config = [{"sparsity": 0.95, "op_names": names}]
        plan(trace(model, torch.zeros(1, 3, 64, 64)), model, config=config, min_channels=1)
    assert "The residual stream written by features.7.conv.6 keeps 4 of 64 channels" in caplog.text


@pytest.fixture(scope="module")
def mobilenet():
    """The article's network at the article's size."""
    model = MobileNetV2()
    return trace(model, torch.zeros(1, 3, 512, 512)), model


def test_eighty_percent_of_every_group_of_mobilenet_goes(mobilenet):
    graph, model = mobilenet
    for seed in range(20):
        found = plan(graph, model, ratio=0.8, min_channels=1, criterion="random", seed=seed)
        kept = kept_of(graph, found)
        assert [group.size - count for group, count in zip(graph.groups, kept, strict=True)] == [
            int(0.8 * group.size) for group in graph.groups
        ]
        assert found.shape_after("features.0.0.weight")[0] >= 6
    assert 362_000 <= graph.costs.params(kept) <= 363_000
    assert 88e6 <= graph.costs.macs(kept, ("conv", "linear")) <= 95e6
    assert np.prod(found.shape_after("classifier.weight")) + 1000 == 257_000


def test_the_articles_numbers_are_reached_with_a_living_stem(mobilenet):
    graph, model = mobilenet
    found = plan(graph, model, macs="41.54M", params="309.76k", min_channels=4)
    kept = kept_of(graph, found)
    assert 0.99 * 41.54e6 <= graph.costs.macs(kept) <= 41.54e6
    assert graph.costs.params(kept) <= 309.76e3
    assert found.shape_after("features.0.0.weight")[0] >= 6


@pytest.mark.parametrize("ranking", ["group", "global"])
@pytest.mark.parametrize("share", ["0.75x", "0.5x", "0.24x", "0.1x", "0.05x"])
def test_no_group_of_mobilenet_starves(mobilenet, share, ranking):
    graph, model = mobilenet
    kept = kept_of(graph, plan(graph, model, macs=share, ranking=ranking))
    sizes = np.array([group.size for group in graph.groups])
    shares = kept / sizes
    assert ((shares >= np.median(shares) / 4) | (kept == np.minimum(sizes, 8))).all()
