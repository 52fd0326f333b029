"""`transfer`: after a prune in the middle of training the pruned network trains as the masked one would."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn, optim
from torch.nn.utils import parametrizations, parametrize
from torch.optim import lr_scheduler, swa_utils

import secateur
from secateur.surgery.cutting import kept_values, scale_factors
from secateur.surgery.masking import removed_slices
from tests.test_attention_policy import Fused
from tests.zoo.blocks import conv, conv_norm, pooled_head
from tests.zoo.tokens import TOKENS

STEPS = 20
BEFORE, AFTER = range(STEPS), range(STEPS, 2 * STEPS)
DICE = torch.Generator().manual_seed(1)
PICTURES = torch.randn(2 * STEPS, 4, 3, 6, 6, generator=DICE, dtype=torch.float64)
WANTED = torch.randn(2 * STEPS, 4, 3, generator=DICE, dtype=torch.float64)
SGD = partial(optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01)
ADAMW = partial(optim.AdamW, lr=0.01, weight_decay=0.05)
OPTIMIZERS = {
    "sgd": SGD,
    "adamw": ADAMW,
    "adam": partial(optim.Adam, lr=0.01, weight_decay=0.01),
    "amsgrad": partial(ADAMW, amsgrad=True),
    "nadam": partial(optim.NAdam, lr=0.01),
    "radam": partial(optim.RAdam, lr=0.01),
    "rmsprop": partial(optim.RMSprop, lr=0.003, momentum=0.9, centered=True),
}
SCHEDULES = {
    "step": partial(lr_scheduler.StepLR, step_size=7),
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=2 * STEPS),
    "one cycle": partial(lr_scheduler.OneCycleLR, max_lr=0.05, total_steps=2 * STEPS + 1),
    "chained": lambda own: lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(own), lr_scheduler.StepLR(own, 7)]),
}


class Residual(nn.Module):
    """A stem, a grouped block on its stream, a tied pair of layers, a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = conv_norm(3, 8), nn.Sequential(conv_norm(8, 12, groups=2), conv(12, 8))
        self.first, self.second, self.head = conv(8, 8, 1), conv(8, 8, 1), pooled_head(8, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        x = self.stem(x)
        x = x + self.block(x)
        return self.head(self.second(torch.tanh(self.first(x))) + x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual().double()


def pruned(model):
    """Return a plan for half of all channels, and the pruned model."""
    plan = secateur.plan(secateur.trace(model, PICTURES[0]), model, ratio=0.5, min_channels=1)
    return plan, secateur.cut(model, plan)


def begun(model, kind):
    """Train for a while, and prune; return optimizer, plan and pruned model."""
    optimizer = kind(model.parameters())
    train(model, optimizer, BEFORE)
    return optimizer, *pruned(model)


def train(model, optimizer, steps, after=lambda: None, before=lambda: None):
    for step in steps:
        optimizer.zero_grad()
        (model(PICTURES[step]) - WANTED[step]).square().mean().backward()
        before()
        optimizer.step()
        after()


def silence(model, optimizer, plan):
    """Set to zero what the plan removes of the parameters, their gradients and what the optimizer remembers."""
    for name, parameter in model.named_parameters():
        state = [one for one in optimizer.state.get(parameter, {}).values() if one.shape == parameter.shape]
        for axis, index in removed_slices(plan, name, parameter.shape):
            for tensor in (parameter.data, parameter.grad, *state):
                if tensor is not None:
                    tensor[(slice(None),) * axis + (index,)] = 0


def train_masked(model, optimizer, plan, steps, after=lambda: None):
    """Train the full-size model with the cut channels held at zero."""
    hold = partial(silence, model, optimizer, plan)
    hold()
    train(model, optimizer, steps, after=lambda: (hold(), after()), before=hold)


def difference(full, small, plan):
    """Return the largest difference of a kept weight, relative to the largest weight of its tensor."""
    named = zip(full.named_parameters(), small.parameters(), strict=True)
    pairs = [(kept_values(one.detach(), plan.keep.get(name, {})), other.detach()) for (name, one), other in named]
    return max(((kept - other).abs().max() / kept.abs().max()).item() for kept, other in pairs)


def goes_on_alike(masked, small, plan):
    """Train the masked and the pruned network, each with its optimizer, to the end, and tell whether they agree."""
    train_masked(*masked, plan, AFTER)
    train(*small, AFTER)
    return difference(masked[0], small[0], plan) < 1e-8


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_the_masked_networks(model, name):
    optimizer, plan, small = begun(model, OPTIMIZERS[name])
    moved = secateur.transfer(optimizer, plan, model, small)
    assert type(moved) is type(optimizer)
    assert goes_on_alike((model, optimizer), (small, moved), plan)


def test_a_new_optimizer_would_not_go_on(model):
    optimizer, plan, small = begun(model, SGD)
    assert not goes_on_alike((model, optimizer), (small, SGD(small.parameters())), plan)


def test_groups_keep_their_order_options_and_parameters_frozen_ones_too(model):
    model.stem.requires_grad_(False)
    groups = [
        {"params": [*model.head.parameters(), *model.first.parameters()], "lr": 0.002, "betas": (0.8, 0.99)},
        {"params": [*model.block.parameters(), *model.stem.parameters()], "weight_decay": 0.0},
    ]
    optimizer, plan, small = begun(model, lambda _: ADAMW(groups))
    moved = secateur.transfer(optimizer, plan, model, small)
    wanted = ([small.head, small.first], [small.block, small.stem])
    for new, old, parts in zip(moved.param_groups, optimizer.param_groups, wanted, strict=True):
        assert [id(one) for one in new["params"]] == [id(one) for part in parts for one in part.parameters()]
        assert {**new, "params": 0} == {**old, "params": 0}
    assert small.first.weight is small.second.weight
    assert goes_on_alike((model, optimizer), (small, moved), plan)


def test_the_old_optimizer_stays_as_it_is_and_its_hooks_come_along(model):
    calls, optimizer = [], ADAMW(model.parameters())
    optimizer.register_step_post_hook(lambda *_: calls.append("step"))
    train(model, optimizer, range(2))
    before, (plan, small) = copy.deepcopy(optimizer.state_dict()), pruned(model)
    train(small, secateur.transfer(optimizer, plan, model, small), range(2, 4))
    assert len(calls) == 4
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", [SGD, ADAMW])
def test_schedulers_go_on_with_an_optimizer_that_is_moved_itself(model, kind, name):
    twins = [model, copy.deepcopy(model)]
    optimizers = [kind(one.parameters()) for one in twins]
    schedules = [SCHEDULES[name](one) for one in optimizers]
    for number in range(2):
        train(twins[number], optimizers[number], BEFORE, after=schedules[number].step)
    plan, small = pruned(twins[1])
    assert secateur.transfer(optimizers[1], plan, twins[1], small, inplace=True) is optimizers[1]
    train_masked(model, optimizers[0], plan, AFTER, after=schedules[0].step)
    train(small, optimizers[1], AFTER, after=schedules[1].step)
    assert difference(model, small, plan) < 1e-8
    assert schedules[0].get_last_lr() == schedules[1].get_last_lr() == [optimizers[1].param_groups[0]["lr"]]


def test_an_optimizer_without_a_step_behind_it(model):
    optimizer, (plan, small) = ADAMW(model.parameters()), pruned(model)
    moved = secateur.transfer(optimizer, plan, model, small)
    assert not moved.state
    assert goes_on_alike((model, optimizer), (small, moved), plan)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_model_that_was_cut_in_place(model, inplace):
    twin = copy.deepcopy(model)
    (optimizer, plan, _), (other, *_) = begun(model, SGD), begun(twin, SGD)
    before = dict(twin.named_parameters())
    secateur.cut(twin, plan, inplace=True)
    other = secateur.transfer(other, plan, before, twin, inplace=inplace)
    assert goes_on_alike((model, optimizer), (twin, other), plan)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averages_of_the_weights_are_cut_like_the_model(model, use_buffers):
    ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.8), use_buffers=use_buffers)
    optimizer = SGD(model.parameters())
    train(model, optimizer, BEFORE, after=lambda: ema.update_parameters(model))
    (plan, small), small_ema = pruned(model), copy.deepcopy(ema)
    secateur.cut(small_ema.module, plan, inplace=True)
    moved = secateur.transfer(optimizer, plan, model, small)
    train_masked(model, optimizer, plan, AFTER, after=lambda: ema.update_parameters(model))
    train(small, moved, AFTER, after=lambda: small_ema.update_parameters(small))
    assert difference(ema.module, small_ema.module, plan) < 1e-8


@pytest.mark.parametrize(("name", "power"), [("sgd", 2), ("amsgrad", 1), ("rmsprop", 1)])
def test_rows_that_the_plan_multiplies_move_as_documented(name, power):
    """The function changes as the masked network's does if such rows move by 1 / f ** power times their steps."""
    torch.manual_seed(0)
    model, tokens = Fused().double(), torch.randn(TOKENS.shape, dtype=torch.float64)
    plan = secateur.plan(secateur.trace(model, tokens), model, ratio={"qkv": 0.5}, min_channels=1)
    assert set(plan.scales) == {"qkv.weight", "qkv.bias"}
    optimizer = OPTIMIZERS[name](model.parameters(), weight_decay=0, **({} if name == "sgd" else {"eps": 1e-15}))

    def step(one, own):
        own.zero_grad()
        (one(tokens) - 1).square().sum().backward()
        own.step()

    for _ in range(3):
        step(model, optimizer)
    silence(model, optimizer, plan)
    before, small = copy.deepcopy(model), secateur.cut(model, plan)
    step(small, secateur.transfer(optimizer, plan, model, small))
    step(model, optimizer)
    silence(model, optimizer, plan)
    with torch.no_grad():
        for (tensor, now), then in zip(model.named_parameters(), before.parameters(), strict=True):
            now.copy_(then + (now - then) / scale_factors(now, plan, tensor) ** power)
    torch.testing.assert_close(small(tokens), model(tokens), rtol=1e-9, atol=1e-12)


def test_a_parametrised_model_goes_on_alike(model):
    parametrize.register_parametrization(model.block[1], "weight", nn.Tanh())
    optimizer, plan, small = begun(model, ADAMW)
    assert small.block[1].parametrizations.weight.original.shape == (4, 6, 3, 3)
    assert goes_on_alike((model, optimizer), (small, secateur.transfer(optimizer, plan, model, small)), plan)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_a_distributed_model_is_cut_unwrapped(model, tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer, plan, small = begun(wrapped.module, SGD)
        with pytest.raises(secateur.CutError, match=r"Pass `model\.module`; wrap the pruned model afterwards"):
            secateur.transfer(optimizer, plan, wrapped, small)
        moved = secateur.transfer(optimizer, plan, wrapped.module, small)
        assert goes_on_alike((model, optimizer), (nn.parallel.DistributedDataParallel(small), moved), plan)
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture
def refused(model):
    """Check that a transfer is refused, and that the optimizer goes on with what it had."""

    def check(reason, **given):
        optimizer, (plan, small) = SGD(model.parameters()), pruned(model)
        given = {"optimizer": optimizer, "model": model, "small": small, "inplace": True, **given}
        with pytest.raises(secateur.CutError, match=reason):
            secateur.transfer(plan=plan, **given)
        assert given["optimizer"].param_groups[0]["params"][0] is model.stem[0].weight

    return check


@pytest.mark.parametrize("kind", [optim.Adagrad, optim.LBFGS, optim.Adafactor, type("Mine", (optim.SGD,), {})])
def test_other_optimizers_are_refused(refused, model, kind):
    optimizer = kind(model.parameters(), lr=0.1)
    refused(rf"{kind.__name__} is none of torch\.optim's SGD, .* make a new optimizer", optimizer=optimizer)


def test_what_is_wrapped_is_refused(refused, model):
    refused(r"Pass `model\.module`; wrap the pruned model afterwards", small=nn.DataParallel(pruned(model)[1]))
    refused(r"Pass `model\._orig_mod`", model=torch.compile(model, backend="eager"))
    refused(r"`cut\(ema\.module, plan, inplace=True\)`", model=swa_utils.AveragedModel(model))


def test_what_was_parametrised_in_between_is_refused(refused, model):
    for part, reason in [("small", "`cut` returned .* parametrise it afterwards"), ("model", "which the plan expects")]:
        other = pruned(model)[1] if part == "small" else copy.deepcopy(model)
        parametrizations.weight_norm(other.stem[0])
        refused(rf"has no tensor stem\.0\.weight.* {reason}", **{part: other})


def test_models_and_plans_that_do_not_belong_together_are_refused(refused, model):
    small, copied = pruned(model)[1], copy.deepcopy(model)
    refused(r"stem\.0\.weight has shape \(4, 3, 3, 3\), the plan expects \(8, 3, 3, 3\)", model=small)
    refused(r"stem\.0\.weight of the pruned .* the plan leaves \(4, 3, 3, 3\)", small=copied)
    refused(r"same module.* dict\(model\.named_parameters\(\)\) was before the cut", model=small, small=small)
    other = {name.replace("stem", "root"): one for name, one in model.named_parameters()}
    refused(r"root\.0\.weight has shape .* the plan expects no such tensor", model=other)
    refused(r"Group 0 of SGD has a parameter of shape \(8, 3, 3, 3\) that `model` does not hold", model=copied)


def test_optimizers_that_leave_something_behind_are_refused(refused, model):
    optimizer = SGD(model.parameters())
    SCHEDULES["step"](optimizer)
    refused(r"scheduler steers this SGD.* Say inplace=True", optimizer=optimizer, inplace=False)
    optimizer.state[model.stem[0].weight]["rows"] = torch.zeros(8)
    refused(r"SGD remembers 'rows' of stem\.0\.weight, of shape \(8,\)", optimizer=optimizer)
