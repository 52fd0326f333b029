"""A student's features beside its teacher's: where channels were cut, beside those that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from secateur.errors import TrainingError, nearest
from secateur.planning.plans import Plan


class Teacher:
    """An unpruned network that a pruned one is compared with, layer by layer and at the outputs.

    Args:
        model: the teacher; it is put into evaluation mode and not trained.
        plan: what made the student of it. `plan.keep` says which of its channels the student still has; None: all.
        layers: names of the layers with weights whose outputs are compared: convolutions (N, C, ...), linear ones and
            norms of layers (..., C).

    Raises:
        TrainingError: there is no such layer, or it has no weight, or other channels than the plan speaks of.
    """

    def __init__(self, model: nn.Module, plan: Plan | None, layers: Sequence[str] = ()) -> None:
        self.model = model.eval().requires_grad_(requires_grad=False)
        modules = dict(model.named_modules())
        for layer in layers:
            if layer not in modules:
                raise TrainingError(f"The teacher has no layer {layer!r}.{nearest(layer, modules)}")
            if not isinstance(getattr(modules[layer], "weight", None), torch.Tensor):
                raise TrainingError(f"{layer} has no weight, so its channels are not known. Name a layer that has one.")
        self.layers = tuple(layers)
        self.kept = {layer: _kept(plan, layer, modules[layer]) for layer in layers}

    @torch.no_grad()
    def __call__(self, *inputs: torch.Tensor) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return the teacher's outputs, and its features, of each layer those channels that the student still has."""
        with watched(self.model.to(inputs[0].device), self.layers) as features:
            outputs = self.model(*inputs)
        return outputs, {
            layer: value if (kept := self.kept[layer]) is None else _selected(value, *kept)
            for layer, value in features.items()
        }


@contextmanager
def watched(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Fill a dictionary with what layers put out while the network runs."""
    found: dict[str, torch.Tensor] = {}
    modules = dict(model.named_modules())

    def keeper(layer: str) -> Any:
        def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            found[layer] = output

        return keep

    handles = [modules[layer].register_forward_hook(keeper(layer)) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def feature_loss(student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean over the layers of the squared error as a share of the teacher's own variance.

    Features have the same channels in both: those of FitNets (Romero et al., arXiv 1412.6550), but without a
    regressor, because the plan says which channel is which.
    """
    errors = []
    for layer, wanted in teacher.items():
        error = (student[layer].float() - wanted.float()).square().mean()
        errors.append(error / wanted.float().var().clamp_min(1e-6))
    return torch.stack(errors).mean()


def _selected(value: torch.Tensor, dim: int, kept: torch.Tensor) -> torch.Tensor:
    return value.index_select(dim, kept.to(value.device))


def _kept(plan: Plan | None, layer: str, module: nn.Module) -> tuple[int, torch.Tensor] | None:
    """Return along which dimension of a layer's output its channels lie, and which the student has; None: all."""
    weight: Any = module.weight
    name, dim = f"{layer}.weight", -1 if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding)) else 1
    known = None if plan is None else plan.fingerprint.get(name)
    if plan is None or known is None:
        return None
    axis = 1 if isinstance(module, (nn.modules.conv._ConvTransposeNd, nn.Embedding)) else 0
    if known[axis] != weight.shape[axis]:
        raise TrainingError(
            f"The teacher's {layer} has {weight.shape[axis]} channels, and the network that the student was cut out of "
            f"had {known[axis]}. Give that one as the teacher."
        )
    if axis == 1 and getattr(module, "groups", 1) > 1 and name in plan.keep:
        raise TrainingError(f"{layer} is a grouped transposed convolution, whose channels are cut apart. Leave it out.")
    kept = plan.keep.get(name, {}).get(axis)
    return None if kept is None else (dim, torch.as_tensor(list(kept)))
