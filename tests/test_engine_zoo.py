"""Every odd little model: pruned, it runs, equals its masked self, and the original is as it was."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.graph.calls import calls_of
from tests.oracle import relative_error, sliced
from tests.zoo import ZOO, Specimen

BUDGETS = {
    "half": {"ratio": 0.5, "min_channels": 1},
    "random": {"ratio": 0.3, "min_channels": 1, "criterion": "random", "seed": 3},
    "uneven": {"ratio": 0.4, "min_channels": 1, "criterion": "random", "seed": 5, "ranking": "global"},
}

pytestmark = pytest.mark.parametrize("name", ZOO)


def built(name: str) -> tuple[Specimen, nn.Module]:
    torch.manual_seed(7)
    return ZOO[name], ZOO[name].build().eval()


def pruned(specimen: Specimen, model: nn.Module, budget: str) -> tuple[Any, nn.Module]:
    plan = secateur.plan(secateur.trace(model, specimen.example), model, **BUDGETS[budget])
    return plan, secateur.cut(model, plan)


@pytest.mark.parametrize("budget", BUDGETS)
def test_pruned_model_equals_masked_original(name, budget):
    specimen, model = built(name)
    plan, small = pruned(specimen, model, budget)
    assert type(small) is type(model)
    assert relative_error(model, plan, small, specimen.example, specimen.reference) < 1e-9


def test_layers_are_cut_or_whole_as_expected(name):
    specimen, model = built(name)
    plan, _ = pruned(specimen, model, "half")
    cut = {tensor.rpartition(".")[0] for tensor in plan.keep}
    outputs = {layer for layer in cut if _loses_outputs(plan, model, layer)}
    assert bool(plan.keep) == specimen.prunable
    assert set(specimen.cut) <= outputs, f"not cut: {sorted(set(specimen.cut) - outputs)}"
    assert outputs.isdisjoint(specimen.whole), f"cut: {sorted(outputs & set(specimen.whole))}"


def test_kept_tensors_are_slices_of_the_original(name):
    specimen, model = built(name)
    plan, small = pruned(specimen, model, "half")
    full = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for key, tensor in [*small.named_parameters(), *small.named_buffers()]:
        expected = sliced(rescaled(full[key].detach(), plan.scales.get(key, ())), plan.keep.get(key, {}))
        assert torch.equal(tensor.detach(), expected), key
        assert tensor.requires_grad == full[key].requires_grad, key


def rescaled(tensor, scales):
    """Multiply the rows that a plan scales, one by one."""
    tensor = tensor.clone()
    for scale in scales:
        for row in range(len(tensor)) if scale.rows is None else scale.rows:
            tensor[row] *= scale.factor
    return tensor


def test_every_proof_passes_without_repair(name, caplog):
    specimen, model = built(name)
    small, plan = secateur.prune(model, specimen.example, ratio=0.5, min_channels=1)
    assert plan.proof is not None
    assert "These layers are left whole" not in caplog.text
    assert bool(plan.keep) == specimen.prunable
    for call in calls_of(specimen.example):
        with torch.no_grad():
            small(*call.args, **call.kwargs)


def test_original_is_untouched(name):
    specimen, model = built(name)
    model.train()
    model.register_forward_hook(_ignored)
    before = _portrait(model)
    plan = secateur.plan(secateur.trace(model, specimen.example), model, ratio=0.5, min_channels=1)
    secateur.cut(model, plan)
    secateur.mask(model, plan)
    assert _portrait(model) == before


def _ignored(module: nn.Module, inputs: Any, output: Any) -> None:
    """A hook that changes nothing."""


def _loses_outputs(plan: Any, model: nn.Module, layer: str) -> bool:
    """Tell whether a layer's outputs shrink: a transposed convolution and an embedding have theirs on axis 1."""
    module = model.get_submodule(layer)
    key = "weight" if isinstance(getattr(module, "weight", None), torch.Tensor) else next(iter(module._parameters), "")
    axes = plan.keep.get(f"{layer}.{key}", {})
    if getattr(module, "transposed", False):
        return bool({1, "grouped"} & set(axes)) or (0 in axes and module.groups > 1)
    return (1 if isinstance(module, nn.Embedding) else 0) in axes


def _portrait(model: nn.Module) -> list[Any]:
    """Everything about a model that a pruner might disturb, and the state of the dice."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    modules = [
        (path, module.training, len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module)))
        for path, module in model.named_modules(remove_duplicate=False)
    ]
    values = [
        (path, key, type(value), repr(value))
        for path, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float, str, tuple, list, torch.Tensor))
    ]
    state = [
        (name, id(tensor), tensor.dtype, tensor.requires_grad, tensor.detach().numpy().tobytes())
        for name, tensor in tensors
    ]
    dice = (torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(np.random.get_state()))  # noqa: NPY002
    return [modules, values, state, dice]
