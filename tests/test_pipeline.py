"""`prune` as a whole: what fails the proof is left whole, and typing errors are answered."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import secateur
from tests.test_attention_policy import Apart
from tests.zoo.adversary import LoopsByWidth
from tests.zoo.blocks import PICTURE, conv
from tests.zoo.tokens import TOKENS


def test_channels_that_only_the_proof_finds_at_fault_are_left_whole(caplog):
    model = LoopsByWidth().eval()
    small, plan = secateur.prune(model, torch.zeros(2, 3, 12, 12), ratio=0.5, min_channels=1)
    assert plan.proof.mask_error < 1e-9
    assert small.stem[0].weight.shape == model.stem[0].weight.shape
    assert small.last[0].weight.shape[0] < model.last[0].weight.shape[0]
    assert "stem.0" in caplog.text


def test_a_misspelt_argument_is_answered_with_the_nearest():
    with pytest.raises(secateur.PlanError, match="ratio"):
        secateur.prune(nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8), ratoi=0.5)


def test_one_layer_to_ignore_needs_no_list():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    small, _ = secateur.prune(model, torch.zeros(1, 3, 16, 16), ratio=0.5, ignore="0")
    assert [layer.weight.shape[0] for layer in small if isinstance(layer, nn.Conv2d)] == [16, 8, 4]


class Small(nn.Module):
    """Two convolutions and a head, to be called in odd ways."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 5)

    def features(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))))


class FromBytes(Small):
    """Takes pictures as bytes, and insists on single precision."""

    def forward(self, x):
        return self.head(self.features(x.float() / 255).mean((2, 3)))


def test_a_model_that_insists_on_single_precision_is_proved_in_it():
    pictures = torch.randint(0, 255, (2, 3, 12, 12), dtype=torch.uint8)
    small, plan = secateur.prune(FromBytes(), pictures, ratio=0.5)
    assert small.second.weight.shape == (8, 8, 3, 3)
    assert plan.proof.precision == "float32"
    assert plan.proof.mask_error < 1e-4


class Namespace(Small):
    """Returns features in an object of no known kind."""

    def forward(self, x):
        features = self.features(x)
        return SimpleNamespace(features=features, logits=self.head(features.mean((2, 3))))


def test_what_leaves_the_model_in_any_object_is_never_cut():
    small, _ = secateur.prune(Namespace(), torch.zeros(2, 3, 12, 12), ratio=0.5)
    assert small.first.weight.shape[0] == 8
    assert small.second.weight.shape[0] == 16


class Memory:
    """An object that keeps what it is given."""

    def __init__(self):
        self.ramps = {}


class Remembering(Small):
    """Fills a cache inside an object while it runs."""

    def __init__(self):
        super().__init__()
        self.memory = Memory()

    def forward(self, x):
        features = self.features(x)
        width = features.shape[-1]
        if width not in self.memory.ramps:
            self.memory.ramps[width] = torch.linspace(0, 1, width, device=x.device)
        return self.head((features * self.memory.ramps[width]).mean((2, 3)))


def test_a_cache_in_the_model_is_left_as_it_was():
    model = Remembering()
    secateur.prune(model, torch.zeros(2, 3, 12, 12), ratio=0.5)
    assert model.memory.ramps == {}
    model(torch.zeros(2, 3, 12, 12))


class Compares(Small):
    """Goes one way or the other by a width and a size of the picture."""

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = x * 2 if x.shape[1] < x.shape[2] else x * 3
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


def test_a_width_that_is_compared_in_size_stays():
    small, _ = secateur.prune(Compares(), torch.zeros(2, 3, 24, 24), ratio=0.5)
    assert small.first.weight.shape[0] == 16
    assert small.second.weight.shape[0] == 8


class Decides(nn.Module):
    """Returns whole numbers alone, which a plan that is wrong changes."""

    def __init__(self, right=True):
        super().__init__()
        self.conv, self.head, self.right = conv(3, 8), conv(8, 6), right

    def forward(self, x):
        x = torch.relu(self.conv(x))
        if not self.right:
            x = x * abs(int(str(x.shape[1])) - 4)
        return self.head(x).argmax(1)


def test_a_model_that_returns_whole_numbers_is_compared_by_them():
    _, plan = secateur.prune(Decides().eval(), PICTURE, ratio=0.5, min_channels=1)
    assert not plan.is_empty
    assert plan.proof.mask_error == 0
    model = Decides(right=False).eval()
    plan = secateur.plan(secateur.trace(model, PICTURE), model, ratio=0.5, min_channels=1)
    if not plan.is_empty:
        with pytest.raises(secateur.ProofError):
            secateur.verify(model, secateur.cut(model, plan), plan, PICTURE)


class Cache:
    """An object of the user's own that can be called and remembers."""

    def __init__(self):
        self.table, self.parts = None, ([], 0)

    def __call__(self, x):
        self.table = torch.ones(1, device=x.device) if self.table is None else self.table
        self.parts[0].append(x)
        return x * self.table


class Caches(nn.Module):
    """Remembers things in a callable, in a list within a tuple, and in a buffer made on the way."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.cache = conv(3, 8), conv(8, 2), Cache()
        self.pair = ([], "name")

    def forward(self, x):
        self.pair[0].append(1)
        self.register_buffer("step", torch.zeros(1), persistent=False)
        return self.head(self.cache(self.conv(x)))


def test_what_a_forward_remembers_is_forgotten_after_a_trace():
    model = Caches().eval()
    before = set(model._non_persistent_buffers_set)
    small, _ = secateur.prune(model, PICTURE, ratio=0.5, min_channels=1)
    assert model.cache.table is None
    assert model.cache.parts == ([], 0)
    assert model.pair == ([], "name")
    assert model._non_persistent_buffers_set == before
    for each in (model, small):
        assert each(PICTURE).device.type == "cpu"


class Frozen(nn.Module):
    """A layer norm across channels behind a batch norm whose statistics are frozen."""

    def __init__(self):
        super().__init__()
        self.conv, self.frozen = conv(3, 8), nn.BatchNorm2d(8)
        self.norm, self.head = nn.GroupNorm(1, 8), conv(8, 2)

    def forward(self, x):
        return self.head(self.norm(self.frozen(self.conv(x))))


def test_a_mask_with_statistics_leaves_each_module_in_its_own_mode():
    torch.manual_seed(0)
    model = Frozen().train()
    model.frozen.eval()
    plan = secateur.plan(secateur.trace(model, PICTURE), model, ratio=0.5, min_channels=1)
    assert plan.statistics
    mean = model.frozen.running_mean.clone()
    masked, small = secateur.mask(model, plan), secateur.cut(model, plan)
    torch.testing.assert_close(masked(PICTURE), small(PICTURE))
    assert torch.equal(masked.frozen.running_mean, mean)


class SharedBias(Apart):
    """Queries and values have one bias, so that the scale can only be made up for by the keys."""

    def __init__(self):
        super().__init__()
        self.v.bias = self.q.bias


class Floored(Apart):
    """Queries are rounded to steps: they cannot be multiplied."""

    def parts(self, x):
        q, k, v = super().parts(x)
        return torch.div(q, 0.01, rounding_mode="floor"), k, v


@pytest.mark.parametrize("kind", [SharedBias, Floored])
def test_rows_that_something_else_notices_are_not_rescaled(kind):
    torch.manual_seed(0)
    model = kind().eval()
    plan = secateur.plan(secateur.trace(model, TOKENS), model, ratio=0.5, min_channels=1)
    assert secateur.verify(model, secateur.cut(model, plan), plan, TOKENS).mask_error < 1e-9
    assert "q.weight" not in plan.scales
