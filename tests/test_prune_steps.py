"""`prune_steps`: what is handed out is what is trained and cut next, and every plan is of the full-size model."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import nn

import secateur
from secateur.models import MobileNetV2
from tests.generator import EXAMPLE, Network, Program, program
from tests.zoo import ZOO
from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head

COUPLED = (
    "IdentityResidual", "ConcatAddedToStream", "DenseGrowth", "GroupedAfterCat", "InvertedResidual",
    "GroupedTransposed", "ShuffledGroups", "ShuffleUnitEven", "ShuffledThenChunked", "TemporalShift",
    "InstanceBatchNorm", "TiedAutoencoder", "TwoNames", "FlattenByProduct", "PatchMerging", "WindowTransformer",
    "MixtureOfExperts", "WeightNorm",
)  # fmt: skip


class Residual(nn.Module):
    """A stem, two blocks on its stream, a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 32), pooled_head(32)
        self.blocks = nn.ModuleList(nn.Sequential(conv_norm(32, 48), conv(48, 32)) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual().eval()


def tensors_of(model):
    return {name: one for name, one in model.state_dict().items() if isinstance(one, torch.Tensor)}


def assert_same_values(one, other):
    one, other = tensors_of(one), tensors_of(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, equal_nan=True, msg=name)


def shapes_of(plan):
    return {name: plan.shape_after(name) for name in plan.fingerprint}


def disturb(model):
    """Stand in for training: change every weight."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)


def all_steps(model, **options):
    """Walk all steps, as if training in between, and return the last plan."""
    plans = []
    for small, plan in secateur.prune_steps(model, PICTURE, **options):
        disturb(small)
        plans.append(plan)
    return plans[-1]


@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("budget", [{"ratio": 0.6}, {"params": "0.7x", "ranking": "isomorphic"}], ids=["ratio", "cap"])
def test_every_plan_makes_the_steps_model_of_the_full_size_one(name, budget):
    torch.manual_seed(0)
    model = ZOO[name].build().eval()
    steps = secateur.prune_steps(model, ZOO[name].example, steps=3, criterion="random", min_channels=1, **budget)
    for small, plan in steps:
        whole = secateur.cut(model, plan)
        assert_same_values(small, whole)
        for one, other in zip(small.modules(), whole.modules(), strict=True):
            assert {key: value for key, value in vars(one).items() if isinstance(value, int)} == {
                key: value for key, value in vars(other).items() if isinstance(value, int)
            }
        assert secateur.Plan.from_json(plan.to_json()) == plan


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Draw a network."""
    return program(lambda options: draw(st.sampled_from(options)))


@hypothesis.settings(
    max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(program=programs(), ratios=st.sampled_from([[0.4, 0.7], [0.2, 0.4, 0.6]]))
def test_random_networks_come_out_as_the_composed_plan_says(program, ratios):
    torch.manual_seed(0)
    model = Network(program).eval()
    full = secateur.trace(model, EXAMPLE)
    options = {"criterion": "random", "min_channels": 1}
    done = secateur.plan(full, model, ratio=ratios[0], **options)
    small = secateur.cut(model, done)
    for ratio in ratios[1:]:  # and not `prune_steps`, whose proofs take their time
        graph = secateur.trace(small, EXAMPLE)
        step = secateur.plan(graph, small, ratio=ratio, after=(full, done), **options)
        small, done = secateur.cut(small, step), step.after(done)
        assert_same_values(small, secateur.cut(model, done))


@pytest.mark.parametrize("schedule", ["linear", "geometric", "cubic", [0.2, 0.9, 1]])
def test_a_ratio_is_met_as_prune_meets_it(model, schedule):
    _, at_once = secateur.prune(model, PICTURE, ratio=0.7, min_channels=2)
    widths = []
    for small, plan in secateur.prune_steps(model, PICTURE, steps=3, schedule=schedule, ratio=0.7, min_channels=2):
        disturb(small)
        widths.append(plan.shape_after("stem.0.weight")[0])
    assert shapes_of(plan) == shapes_of(at_once)
    assert widths == sorted(set(widths), reverse=True)
    assert widths[-1] == 10


@pytest.mark.parametrize(
    ("schedule", "widths"), [("linear", [24, 16, 8]), ("geometric", [21, 13, 8]), ("cubic", [16, 9, 8])]
)
def test_schedules_say_how_much_goes_when(model, schedule, widths):
    steps = secateur.prune_steps(model, PICTURE, steps=3, schedule=schedule, ratio=0.75, min_channels=1)
    assert [small.stem[0].out_channels for small, _ in steps] == widths


@pytest.fixture(scope="module")
def mobilenet():
    torch.manual_seed(0)
    model, picture = MobileNetV2(num_classes=10).eval(), torch.zeros(1, 3, 64, 64)
    return model, picture, secateur.trace(model, picture)


@pytest.mark.parametrize(
    ("budget", "ranking"),
    [({"macs": "0.4x"}, "group"), ({"params": 900_000}, "global"), ({"macs": "0.5x", "params": "1.2M"}, "isomorphic")],
)
def test_caps_are_met_step_by_step(mobilenet, budget, ranking):
    model, picture, graph = mobilenet
    fills = []
    for small, _ in secateur.prune_steps(model, picture, steps=2, ranking=ranking, **budget):
        costs = secateur.trace(small, picture).costs
        disturb(small)
        caps = {name: float(value[:-1]) * getattr(graph.costs, name)() if isinstance(value, str) and value[-1] == "x"
                else float(str(value).replace("M", "e6")) for name, value in budget.items()}  # fmt: skip
        fills.append(max(getattr(costs, name)() / cap for name, cap in caps.items()))
    assert fills[0] > 1
    assert 0.99 <= fills[1] <= 1


def test_what_was_trained_is_what_is_cut_next(model):
    before = None
    for small, plan in secateur.prune_steps(model, PICTURE, steps=3, ratio=0.5, min_channels=1):
        if before is not None:
            width = small.stem[0].out_channels
            rows = [row for row in before.stem[0].weight if (small.stem[0].weight == row).all(dim=(1, 2, 3)).any()]
            assert len(rows) == width
            assert small is not before
        assert plan.proof.values
        assert plan.proof.mask_error < 1e-9
        disturb(small)
        before = small


def test_the_next_step_judges_the_trained_weights(model):
    steps = secateur.prune_steps(model, PICTURE, steps=2, ratio=0.5, min_channels=1)
    small, first = next(steps)
    kept = np.array(first.keep["blocks.0.0.0.weight"][0])
    with torch.no_grad():
        small.blocks[0][0][0].weight[::3] = 0
    _, second = next(steps)
    assert set(second.removed("blocks.0.0.0.weight", 0)) >= set(kept[::3])


def test_the_users_model_stays_as_it_was(model):
    before = copy.deepcopy(model)
    for small, _ in secateur.prune_steps(model, PICTURE, steps=2, ratio=0.5):
        disturb(small)
    assert_same_values(model, before)


def test_modules_and_scores_of_the_full_size_model_hold_at_every_step(model):
    scores = {"blocks.0.0.0": torch.arange(48)}
    options = {"max_ratio": {model.blocks[1]: 0.25}, "ignore": [model.stem], "scores": scores}
    budget = {"ratio": {model.blocks: 0.5}, "min_channels": 1, **options}
    plan = all_steps(model, steps=3, **budget)
    assert plan.keep["blocks.0.0.0.weight"][0] == tuple(range(24, 48))
    assert plan.shape_after("blocks.1.0.0.weight") == (36, 32, 3, 3)
    assert plan.shape_after("stem.0.weight") == (32, 3, 3, 3)


def test_limits_are_of_the_full_size_model(model):
    for _, plan in secateur.prune_steps(model, PICTURE, steps=4, ratio=0.9, max_ratio=0.6, round_to=4, min_channels=8):
        for name in ("stem.0.weight", "blocks.0.0.0.weight"):
            full, width = plan.fingerprint[name][0], plan.shape_after(name)[0]
            assert width % 4 == 0
            assert width >= 0.4 * full
    assert plan.shape_after("stem.0.weight")[0] == 16
    assert plan.shape_after("blocks.0.0.0.weight")[0] == 20


@pytest.mark.parametrize(
    "entry",
    [
        {"sparsity": 0.5},
        {"total_sparsity": 0.5},
        {"target_settings": {"weight": {"sparse_ratio": 0.5, "global_group_id": 1}}},
    ],
)
def test_a_configuration_is_met_step_by_step(model, entry):
    config = [{"op_partial_names": ["blocks"], "op_types": ["Conv2d"], "exclude_op_names": ["blocks.0.1"], **entry}]
    kept = []
    for small, plan in secateur.prune_steps(model, PICTURE, steps=2, config=config, min_channels=1):
        disturb(small)
        assert plan.shape_after("stem.0.weight") == (32, 3, 3, 3)
        kept.append(sum(plan.shape_after(f"blocks.{number}.0.0.weight")[0] for number in range(2)))
    assert kept == [72, 48]


def test_more_steps_than_channels_are_no_error(model):
    widths = [small.stem[0].out_channels for small, _ in secateur.prune_steps(model, PICTURE, steps=8, ratio=0.1)]
    assert len(widths) == 8
    assert widths[-1] == 29


def test_the_last_model_is_saved_with_the_plan_for_all_steps(model, tmp_path):
    *_, (small, plan) = secateur.prune_steps(model, PICTURE, steps=2, ratio=0.5)
    disturb(small)
    secateur.save(tmp_path / "small.safetensors", small, plan)
    assert_same_values(secateur.load(tmp_path / "small.safetensors", into=Residual()), small)
    assert [step["budget"] for step in plan.recipe["steps"]] == [{"ratio": 0.25}, {"ratio": 0.5}]


def widen(small):
    small.head[2] = nn.Linear(small.head[2].in_features, 7)


def rename(small):
    small.last = small.head
    del small.head


def freeze_norm(small):
    small.stem[1] = nn.Identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (widen, r"changed after step 1: head\.2\.weight has shape \(7, 24\) now and had shape \(.*, 24\) when it was"),
        (rename, r"changed after step 1: head\.2\.weight is gone now"),
        (freeze_norm, r"changed after step 1: stem\.1\.weight is gone now"),
        (lambda small: small.register_parameter("extra", nn.Parameter(torch.ones(3))), "extra .* was not there"),
    ],
)
def test_a_model_whose_layers_were_changed_is_refused(model, change, message):
    steps = secateur.prune_steps(model, PICTURE, steps=2, ratio=0.5)
    small, _ = next(steps)
    change(small)
    with pytest.raises(secateur.PlanError, match=message):
        next(steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "No budget was given"),
        ({"ratio": 1.5}, r"ratio=1\.5 is no share"),
        ({"macs": "0.0001x"}, "is below the smallest reachable"),
        ({"macs": "2x"}, "removes nothing"),
        ({"ratoi": 0.5}, "no argument 'ratoi'.*ratio"),
        ({"ratio": 0.5, "after": None}, "no argument 'after'"),
        ({"ratio": 0.5, "ranking": "isomorph"}, "Did you mean isomorphic"),
        ({"ratio": 0.5, "steps": 0}, "steps=0 makes no sense"),
        ({"ratio": 0.5, "steps": 2.5}, r"steps=2\.5 makes no sense"),
        ({"ratio": 0.5, "schedule": "lineal"}, "Did you mean linear"),
        ({"ratio": 0.5, "schedule": [0.5, 0.4, 1]}, r"schedule=\[0.5, 0.4, 1\] is none\. Give a name \(linear"),
        ({"ratio": 0.5, "schedule": [0.5, 0.8]}, "growing up to 1"),
        ({"ratio": 0.5, "schedule": 3}, "schedule=3 is none"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_first_step(model, arguments, message):
    with pytest.raises(secateur.PlanError, match=message):
        secateur.prune_steps(model, PICTURE, **arguments)


def test_plans_made_one_by_one_are_composed_by_hand(model):
    full = secateur.trace(model, PICTURE)
    first = secateur.plan(full, model, ratio=0.25)
    half_way = secateur.cut(model, first)
    here = secateur.trace(half_way, PICTURE)
    second = secateur.plan(here, half_way, macs="0.3x", after=(full, first))
    assert_same_values(secateur.cut(half_way, second), secateur.cut(model, second.after(first)))
    left = secateur.trace(secateur.cut(half_way, second), PICTURE).costs.macs() / full.costs.macs()
    assert 0.29 < left <= 0.3
    with pytest.raises(secateur.PlanError, match=r"The plan in after= makes another model: .* has shape"):
        secateur.plan(full, model, ratio=0.5, after=(full, first))
    with pytest.raises(secateur.PlanError, match="was made for another full-size model"):
        secateur.plan(here, half_way, ratio=0.5, after=(here, first))


def test_the_optimizer_goes_along_from_step_to_step(model):
    torch.manual_seed(1)
    before, last = model, None
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for small, plan in secateur.prune_steps(model, PICTURE, ratio=0.5, steps=2, min_channels=1):
        step = plan if last is None else plan.since(last)
        optimizer = secateur.transfer(optimizer, step, before, small)
        for _ in range(2):
            optimizer.zero_grad()
            small(PICTURE).square().mean().backward()
            optimizer.step()
        before, last = small, plan
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    assert [moment.shape for moment in moments] == [parameter.shape for parameter in small.parameters()]
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}


def test_with_samples_every_step_is_compensated_and_loses_less() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 48, 3), nn.ReLU(), nn.Conv2d(48, 4, 1)).eval()
    example, batches = torch.zeros(1, 3, 16, 16), torch.rand(32, 3, 16, 16).split(8)
    unseen = torch.rand(8, 3, 16, 16)
    full = secateur.trace(model, example).costs.macs()

    def errors(**data: Any) -> list[float]:
        found = []
        for small, plan in secateur.prune_steps(model, example, steps=2, macs="0.4x", **data):
            assert plan.proof is not None
            with torch.no_grad():
                found.append(float((small(unseen) - model(unseen)).norm() / model(unseen).norm()))
        assert secateur.trace(small, example).costs.macs() <= 0.4 * full
        return found

    with_samples, without = errors(calibrate=iter(batches)), errors()
    assert with_samples[0] < without[0] / 4
    assert with_samples[1] < without[1] / 4
