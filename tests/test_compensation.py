"""Compensation: what the kept channels can say of the cut ones goes into the weights that read them."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from secateur.errors import CutError, DataError
from secateur.surgery.compensation.compensating import Steps, compensated


def seeded(build, seed=0):
    torch.manual_seed(seed)
    return build().eval()


def batches(*shape, count=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def relative(small, full, x):
    with torch.no_grad():
        a, b = small(x), full(x)
    return float((a - b).norm() / (b - b.mean()).norm())


# -- exact where theory says so: channels that the kept ones make up, as those who read them see them ------------------


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 5, 3)

    def forward(self, x):
        return self.b(self.a(x))


class Stream(nn.Module):
    """Two layers write a residual stream, two read it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1), nn.Conv2d(12, 6, 1), nn.Linear(6, 4)

    def forward(self, x):
        x = self.a(x)
        x = x + self.b(x)
        return self.d(self.c(x).relu().mean((2, 3)))


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.p, self.b = nn.Conv2d(3, 12, 3), nn.Conv2d(3, 7, 3), nn.Conv2d(19, 5, 1)

    def forward(self, x):
        return self.b(torch.cat([self.p(x).relu(), self.a(x)], 1))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.dw, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        return self.b(self.dw(self.a(x)))


class Attending(nn.Module):
    """One head, whose values are linear in what it reads."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x):
        return self.b(F.scaled_dot_product_attention(self.q(x), self.k(x), self.a(x)))


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.ConvTranspose2d(12, 5, 2, stride=2)

    def forward(self, x):
        return self.b(self.a(x))


class Normed(nn.Module):
    """No bias after the reading layer: constants go into the norm's mean."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 5, 3, bias=False)
        self.norm, self.c = nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)

    def forward(self, x):
        return self.c(self.norm(self.b(self.a(x))).relu())


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 6, 3, groups=3)

    def forward(self, x):
        return self.b(self.a(x))


class Multiplied(nn.Module):
    """The weight is used without a layer."""

    def __init__(self):
        super().__init__()
        self.a, self.w, self.bias = nn.Linear(5, 12), nn.Parameter(torch.randn(12, 4)), nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return torch.addmm(self.bias, self.a(x), self.w)


MODELS = [Plain, Stream, Joined, Depthwise, Attending, Transposed, Normed, Grouped, Multiplied]
INPUTS = {Attending: (2, 9, 6), Multiplied: (16, 5)}


def combined(model, how):
    """Make some channels of layer `a` (and what adds to them) combinations of others; return which."""
    layers = [model.a] + ([model.b] if isinstance(model, Stream) else [])
    for layer in layers:
        with torch.no_grad():
            for vector in (layer.weight, layer.bias):
                if how == "duplicated":
                    vector[1], vector[2] = vector[0], vector[3]
                elif how == "scaled":
                    vector[1], vector[2] = -2.5 * vector[0], 0.3 * vector[3]
                elif how == "summed":
                    vector[1], vector[2] = vector[0] + vector[3], vector[3] - 0.5 * vector[0]
            if how == "constant":
                layer.weight[1], layer.weight[2] = 0, 0
    if isinstance(model, Depthwise):
        with torch.no_grad():
            model.dw.weight[1], model.dw.weight[2] = (model.dw.weight[3],) * 2
            model.dw.weight[0] = model.dw.weight[3]
    return [1, 2]


@pytest.mark.parametrize("how", ["duplicated", "scaled", "summed", "constant"])
@pytest.mark.parametrize("build", MODELS)
def test_what_others_make_up_goes_at_no_loss(build, how):
    if how == "constant" and build in (Stream, Transposed):
        pytest.skip("what reads it adds other sums of it at other places")
    model = seeded(build)
    gone = combined(model, how)
    shape = INPUTS.get(build, (2, 3, 9, 9))
    graph = secateur.trace(model, torch.zeros(shape))
    if build is Grouped:
        gone = [1, 5, 9]  # one of each group; each a copy of its neighbour
        with torch.no_grad():
            for vector in (model.a.weight, model.a.bias):
                vector[gone] = vector[[0, 4, 8]] if how != "constant" else vector[gone]
            if how == "constant":
                model.a.weight[gone] = 0
    plan = secateur.Plan.from_indices(graph, {"a": gone})
    small = secateur.cut(model, plan)
    x = batches(*shape, seed=7)[0]
    assert relative(small, model, x) > 1e-3
    better = secateur.compensate(small, plan, model, batches(*shape))
    assert relative(better.double(), model.double(), x.double()) < 1e-6


def test_the_pruned_model_and_the_original_stay_as_they_are():
    model = seeded(Stream)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 8, 8), ratio=0.5, min_channels=1)
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in (model, small)]
    small.train()
    better = secateur.compensate(small, plan, model, batches(2, 3, 8, 8))
    for one, state in zip((model, small), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    assert better.training
    assert small.training
    assert not model.training
    assert type(better) is Stream


def test_it_is_nearer_to_the_original_on_other_samples():
    model = seeded(Stream)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 8, 8), ratio=0.4, min_channels=1)
    found = compensated(small, plan, model, batches(8, 3, 8, 8))
    x = batches(16, 3, 8, 8, seed=9)[0]
    assert relative(found.model, model, x) < 0.7 * relative(small, model, x)
    errors = list(found.errors.values())
    assert errors == sorted(errors, reverse=True)  # what does not help is not kept
    assert set(found.layers) >= {"c.weight"}


def test_prune_compensates_and_says_so():
    model = seeded(Stream)
    small, plan = secateur.prune(
        model, torch.zeros(1, 3, 8, 8), macs="0.7x", calibrate=batches(8, 3, 8, 8), min_channels=1
    )
    assert plan.recipe["criterion"] == "obs"
    assert plan.recipe["ranking"] == "loss"
    told = plan.recipe["compensation"]
    assert told["samples"] == 64
    assert told["errors"]["cut"] > list(told["errors"].values())[-1]
    assert "before the weights were compensated" in str(plan.proof)
    secateur.verify(model, small, plan, torch.zeros(1, 3, 8, 8), values=False)


def test_dead_and_repeated_samples_do_no_harm():
    model = seeded(Plain)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 9, 9), ratio=0.5, min_channels=1)
    better = secateur.compensate(small, plan, model, [torch.zeros(2, 3, 9, 9)] * 4)
    assert all(torch.isfinite(value).all() for value in better.state_dict().values())


class TwiceNamed(Plain):
    """Its second layer has another name, too."""

    def __init__(self):
        super().__init__()
        self.head = nn.ModuleDict({"b": self.b})


def test_a_weight_of_two_names_is_told_of_once():
    samples = batches(2, 3, 9, 9)
    _, plan = secateur.prune(seeded(TwiceNamed), samples[0], ratio=0.5, calibrate=samples)
    told = plan.recipe["compensation"]
    assert not told["left"]
    assert list(told["layers"]) == ["b.weight"]


class Computed(nn.Module):
    """The weight that reads is computed at every call, so nothing can be put into it."""

    def __init__(self):
        super().__init__()
        self.a, self.w = nn.Linear(4, 12), nn.Parameter(torch.randn(3, 12))

    def forward(self, x):
        return F.linear(self.a(x).relu(), self.w.tanh())


def test_what_cannot_be_compensated_comes_out_as_it_went_in_with_the_reason(caplog):
    model = seeded(Computed)
    small, plan = secateur.prune(model, torch.zeros(1, 4), ratio=0.5, min_channels=1)
    with caplog.at_level(logging.WARNING, "secateur"):
        better = secateur.compensate(small, plan, model, batches(8, 4))
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in better.state_dict().items())
    assert "w is not read as it is" in caplog.text


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pruned():
    model = seeded(Plain)
    return model, *secateur.prune(model, torch.zeros(1, 3, 9, 9), ratio=0.5, min_channels=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(8, 3, 9, 9), "are one tensor"),
        (5, "are int"),
        ([], "There are no samples .* 128 would do"),
        ([torch.zeros(2, 3, 9, 9)], "There are 2 samples .* 128 would do"),
        ([torch.zeros(8, 9)], "Batch 0 has shape .* traced with"),
        ([torch.zeros(8, 3, 9, 9), torch.full((8, 3, 9, 9), torch.nan)], "Batch 1 holds NaN"),
        ([torch.zeros(8, 3, 9, 9, dtype=torch.uint8)], "Batch 0 has shape .*uint8"),
        ([torch.zeros(8, 4, 9, 9)], "does not run on samples of shape"),
        ([{"image": torch.zeros(8, 3, 9, 9)}], "holds no inputs"),
        (["cat.jpg"], "holds no inputs"),
    ],
)
def test_batches_that_do_not_fit_are_refused(pruned, given, message):
    model, small, plan = pruned
    with pytest.raises(DataError, match=message):
        secateur.compensate(small, plan, model, given)


def test_labels_are_ignored_and_a_generator_is_read_once(pruned):
    model, small, plan = pruned
    plain = batches(4, 3, 9, 9)
    wanted = secateur.compensate(small, plan, model, plain).state_dict()
    for given in (
        ((x, torch.zeros(4, dtype=torch.int64)) for x in plain),
        [[x, {"mask": torch.zeros(4, 1)}] for x in plain],
        [{"x": x, "label": torch.zeros(4)} for x in plain],
        [x.double() for x in plain],
    ):
        found = secateur.compensate(small, plan, model, given).state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_another_plan_is_refused(pruned):
    model, _small, plan = pruned
    with pytest.raises(CutError, match="not cut by this plan: a"):
        secateur.compensate(model, plan, model, batches(4, 3, 9, 9))


def test_an_interruption_leaves_everything_as_it_was(pruned):
    model, small, plan = pruned

    class Interrupting(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    before = {name: value.clone() for name, value in small.state_dict().items()}
    handle = model.b.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        with pytest.raises(KeyboardInterrupt):
            secateur.compensate(small, plan, model, batches(4, 3, 9, 9))
    finally:
        handle.remove()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert isinstance(model.a.weight, nn.Parameter)
    assert not hasattr(model.a.weight, "_secateur_read_as")


def test_wide_flattened_inputs_are_made_up_for_channel_by_channel():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 90, 1), nn.Linear(90 * 49, 3)

        def forward(self, x):
            return self.b(self.a(x).flatten(1))

    model = seeded(Flat)
    with torch.no_grad():
        for vector in (model.a.weight, model.a.bias):
            vector[1], vector[5] = vector[0] - vector[2], 2 * vector[3]
    plan = secateur.Plan.from_indices(secateur.trace(model, torch.zeros(1, 3, 7, 7)), {"a": [1, 5]})
    better = secateur.compensate(secateur.cut(model, plan), plan, model, batches(4, 3, 7, 7))
    assert relative(better, model, batches(4, 3, 7, 7, seed=5)[0]) < 1e-5


def test_a_constant_stays_out_of_a_norm_that_is_not_alone_in_reading():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 5, 1, bias=False), nn.BatchNorm2d(5)

        def forward(self, x):
            x = self.b(self.a(x))
            return self.norm(x) + x

    model = seeded(Beside)
    with torch.no_grad():
        model.norm.running_var.fill_(0.01)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 5, 5), ratio=0.5, min_channels=1)
    better = secateur.compensate(small, plan, model, batches(8, 3, 5, 5))
    assert torch.equal(better.norm.running_mean, model.norm.running_mean)


class InPlace(nn.Module):
    """Writes into what it is given, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.calls = nn.Linear(4, 12), nn.Linear(12, 3), 0
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.count += 1
        return self.b(self.a(F.relu(x, inplace=True)).relu())

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


def test_models_that_write_change_neither_themselves_nor_the_batches():
    model, given = seeded(InPlace), batches(8, 4)
    before = [x.clone() for x in given]
    dice = torch.random.get_rng_state()
    small, plan = secateur.prune(model, torch.zeros(1, 4), ratio=0.5, min_channels=1, calibrate=given)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))
    assert (model.calls, model.count.item()) == (0, 0)
    assert torch.equal(torch.random.get_rng_state(), dice)
    assert type(small) is InPlace
    assert plan.recipe["compensation"]["samples"] == 64


@pytest.mark.parametrize("sizes", [(8, 1), (1, 16), (1, 3), (1, 1, 1, 1)])
def test_batches_of_any_sizes_leave_some_out(pruned, sizes):
    model, small, plan = pruned
    found = compensated(small, plan, model, [torch.randn(size, 3, 9, 9) for size in sizes])
    assert found.errors["cut"] is not None


def test_norms_are_not_trained_on_a_single_value():
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    secateur.prune(model, torch.zeros(2, 6), ratio=0.5, min_channels=1, calibrate=[torch.randn(1, 6) for _ in range(8)])


@pytest.mark.parametrize("budget", [{"ratio": 0.5}, {"macs": "0.5x"}])
def test_what_is_not_finite_is_refused(budget):
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)))
    nn.init.constant_(model[2].weight, float("nan"))
    with pytest.raises(DataError, match="reads of the batches is not finite"):
        secateur.prune(model, torch.zeros(1, 6), min_channels=1, calibrate=batches(8, 6), **budget)


def test_a_part_of_a_weight_gets_no_constant():
    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.o = nn.Linear(4, 12), nn.Linear(8, 2)
            self.w, self.b = nn.Parameter(torch.randn(20, 12)), nn.Parameter(torch.zeros(8))

        def forward(self, x):
            return self.o(F.linear(self.a(x).relu(), self.w[:8], self.b).relu())

    model = seeded(Sliced)
    small, _ = secateur.prune(
        model, torch.zeros(1, 4), ratio={"a": 0.5}, min_channels=1, calibrate=batches(8, 4), criterion="l1"
    )
    assert torch.equal(small.b, model.b)


def test_named_tuples_and_numbers_go_to_the_model_as_they_are():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.seen = nn.Linear(4, 12), nn.Linear(12, 3), set()

        def forward(self, x, scale=1.0):
            return self.b(self.a(x).relu()) * scale

    class Pair(NamedTuple):
        x: torch.Tensor
        y: torch.Tensor

    model = seeded(Scaled)
    small, plan = secateur.prune(model, (torch.zeros(1, 4), 5.0), ratio=0.5, min_channels=1)
    one = compensated(small, plan, model, [(x, 5.0) for x in batches(8, 4)])
    other = compensated(small, plan, model, [Pair(x, torch.zeros(8)) for x in batches(8, 4)])
    assert one.errors["cut"] == pytest.approx(other.errors["cut"], rel=1e-5)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(value, other.model.state_dict()[name])


def test_mimicking_brings_the_outputs_nearer():
    model = seeded(Stream)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 8, 8), ratio=0.4, min_channels=1)
    asked = [parameter.requires_grad for parameter in small.parameters()]
    found = compensated(small, plan, model, batches(8, 3, 8, 8), Steps(passes=0, mimic=40))
    assert found.errors["mimicking"] < found.errors["ridge"]
    assert [parameter.requires_grad for parameter in found.model.parameters()] == asked
    assert all(parameter.grad is None for parameter in (*found.model.parameters(), *model.parameters()))


def test_free_outputs_are_not_compared_and_that_is_said(caplog):
    model = seeded(Stream)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 8, 8), ratio=0.4, min_channels=1, free_outputs=True)
    with caplog.at_level(logging.WARNING, "secateur"):
        found = compensated(small, plan, model, batches(8, 3, 8, 8))
    assert "cannot be compared" in caplog.text
    assert list(found.errors) == ["cut", "ridge"]


def test_twice_the_same_is_the_same():
    model = seeded(Normed)
    small, plan = secateur.prune(model, torch.zeros(1, 3, 9, 9), ratio=0.5, min_channels=1)
    one, other = (secateur.compensate(small, plan, model, batches(4, 3, 9, 9)).state_dict() for _ in range(2))
    assert all(np.array_equal(value, other[name]) for name, value in one.items())
