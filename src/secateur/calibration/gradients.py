"""What a loss would change by without each index of each parameter, to the first order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.calibration.batches import Part
from secateur.errors import DataError
from secateur.graph.groups import Axis, Graph
from secateur.graph.staging import same_dice

Loss = Callable[[Any, Any], torch.Tensor]  # of the model's output and the batch as it came, labels and all
Place = tuple[str, Axis]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradient times weight, summed over all that belongs to an index along an axis of a parameter."""

    first: Mapping[Place, torch.Tensor]  # for each part of the batches, (parts, size), float64
    second: Mapping[Place, torch.Tensor]  # the squares, summed, and averaged over parts, (size,)


def gradients_of(model: nn.Module, graph: Graph, parts: Sequence[Part], loss: Loss) -> Gradients:
    """Run a model and a loss over parts of the batches, in evaluation; the model keeps no gradients.

    Raises:
        DataError: the loss fails, is no single number, or does not hang on the weights.
    """
    names = [name for name, info in graph.tensors.items() if not info.is_buffer and info.shape]
    first: dict[Place, list[torch.Tensor]] = {}
    second: dict[Place, torch.Tensor] = {}
    for part in parts:
        for name, product in _products(model, names, part, loss).items():
            groups = graph.tensors[name].conv_groups
            axes: list[Axis] = [*range(min(product.ndim, 2)), *(["grouped"] if groups > 1 else [])]
            for axis in axes:
                lined = _lined(product, axis, groups)
                first.setdefault((name, axis), []).append(lined.sum(dim=1))
                squares = lined.square().sum(dim=1) / len(parts)
                second[name, axis] = second.get((name, axis), torch.zeros_like(squares)) + squares
    return Gradients({place: torch.stack(sums) for place, sums in first.items()}, second)


def _lined(product: torch.Tensor, axis: Axis, groups: int) -> torch.Tensor:
    along = laid_along(product, axis, groups)
    return along.reshape(len(along), -1)


def laid_along(tensor: torch.Tensor, axis: Axis, groups: int) -> torch.Tensor:
    """Return a parameter with an axis first; `"grouped"` is that of a grouped convolution's inputs."""
    if axis != "grouped":
        return tensor.movedim(axis, 0)
    # (O, I/groups, *k) -> (groups, O/groups, I/groups, *k) -> (groups * I/groups, O/groups, *k)
    split = tensor.reshape(groups, -1, *tensor.shape[1:]).transpose(1, 2)
    return split.reshape(-1, *split.shape[2:])


def _products(model: nn.Module, names: Sequence[str], part: Part, loss: Loss) -> dict[str, torch.Tensor]:
    own = dict(model.named_parameters())
    leaves = {name: own[name].detach().clone().requires_grad_() for name in names if own[name].is_floating_point()}
    modes = [(module, module.training) for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # the code may write into them
    try:
        model.eval()
        with same_dice(), torch.enable_grad():
            torch.manual_seed(0)  # a model that draws, draws the same each time
            device = next(iter(leaves.values())).device
            call = part.call.map(lambda tensor: tensor.to(device, copy=True))
            output = torch.func.functional_call(model, {**buffers, **leaves}, call.args, call.kwargs)
            value = loss(output, part.batch)
            if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
                raise DataError(
                    "The loss gives no single number that hangs on the weights. Return a scalar tensor, computed from "
                    "the model's output: loss(output, batch)."
                )
            found = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"The loss fails: {type(error).__name__}: {error}. It is called as loss(output, batch)."
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    return {
        name: (torch.zeros_like(leaf) if gradient is None else gradient * leaf).detach().double().cpu()
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
