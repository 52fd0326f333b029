"""A few gradient steps towards what the original computes, layer by layer and at the outputs; no labels."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from secateur.calibration.batches import Part
from secateur.surgery.compensation.answers import answers_of, in_evaluation
from secateur.surgery.compensation.consumers import Consumer
from secateur.surgery.cutting import copied, named_tensor

RATE = 1e-4  # of Adam, falling to 0 along a half cosine
SPREAD = 1e-6  # the least variance that an error is divided by

progress = logging.getLogger("secateur.progress")


class Channels(NamedTuple):
    """Which channels of a layer's input are left."""

    from_end: int  # -1: the last dimension; else how many a batched input has, less one
    kept: torch.Tensor

    def dim(self, inputs: torch.Tensor) -> int:
        """Return the dimension of the channels in an input of the layer, with or without a batch."""
        return -1 if self.from_end == -1 else inputs.ndim - self.from_end


def mimic(model: nn.Module, full: nn.Module, parts: Sequence[Part], consumers: Sequence[Consumer], steps: int) -> None:
    """Train a pruned model, in place and in evaluation, to read in every layer what the original reads.

    The loss is the mean relative error of what convolutions and linear layers read, in the channels that are left, and
    of the outputs (after PRACTISE, Wang et al., CVPR 2023, arXiv 2202.07861). Statistics of norms stay.

    Args:
        model: the pruned model.
        full: the original.
        parts: samples.
        consumers: the weights that read.
        steps: of Adam, each on one part.
    """
    full = copied(full)  # its code may write into buffers
    kept = _layers(model, full, consumers)
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    asked = [parameter.requires_grad for parameter in parameters]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    begun = time.monotonic()
    try:
        for step in range(steps):
            part = parts[step % len(parts)]
            with in_evaluation(full):
                wanted = _read(full, part, list(kept))
            with in_evaluation(model), torch.enable_grad():
                for parameter in parameters:
                    parameter.requires_grad_(True)
                loss = _distance(_read(model, part, list(kept)), wanted, kept)
                optimizer.zero_grad()
                loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            left = (time.monotonic() - begun) / (step + 1) * (steps - step - 1)
            progress.info("mimicking: step %d of %d, error %.3f, %.0f s left", step + 1, steps, loss.item(), left)
    finally:
        for parameter, before in zip(parameters, asked, strict=True):
            parameter.requires_grad_(before)
            parameter.grad = None


def _layers(model: nn.Module, full: nn.Module, consumers: Sequence[Consumer]) -> dict[str, Channels]:
    """Return the layers that read in one block, by name, with the channels that are left of what they read."""
    found = {}
    for consumer in consumers:
        layer, _, key = consumer.site[0].rpartition(".")
        module = full.get_submodule(layer)
        plain = len(consumer.blocks) == 1 and consumer.run == 1 and key == "weight"
        own = 0 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 1
        if plain and consumer.site[1] == own and isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            dim = -1 if isinstance(module, nn.Linear) else module.weight.ndim - 1
            found[layer] = Channels(dim, consumer.kept[0].to(named_tensor(model, consumer.site[0]).device))
    return found


def _read(model: nn.Module, part: Part, layers: Sequence[str]) -> dict[str, Any]:
    """Return what some layers read of a part, and under "" the outputs."""
    read: dict[str, Any] = {}

    def keeper(name: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs:
                read[name] = inputs[0]

        return keep

    handles = [model.get_submodule(name).register_forward_pre_hook(keeper(name)) for name in layers]
    try:
        read[""] = answers_of(model, part.call)
    finally:
        for handle in handles:
            handle.remove()
    return read


def _distance(read: Mapping[str, Any], wanted: Mapping[str, Any], kept: Mapping[str, Channels]) -> torch.Tensor:
    inner = [
        _relative(read[name], wanted[name].index_select(channels.dim(wanted[name]), channels.kept))
        for name, channels in kept.items()
        if name in read and name in wanted
    ]
    outer = [_relative(one, other) for one, other in zip(read[""], wanted[""], strict=True) if one.shape == other.shape]
    return torch.stack([torch.stack(each).mean() for each in (inner, outer) if each]).sum()


def _relative(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one - other).square().mean() / other.var().clamp_min(SPREAD)
