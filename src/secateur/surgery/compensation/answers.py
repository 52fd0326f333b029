"""How far a pruned model's outputs are from the original's, on samples that were not fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from secateur.calibration.batches import Part
from secateur.calibration.calibrating import device_of, on_part
from secateur.graph.calls import Call
from secateur.graph.staging import same_dice
from secateur.graph.tracing import tensors_in
from secateur.surgery.cutting import copied

MOST_ELEMENTS = 1 << 15  # of each output of a part; more say no more


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Run the body with a model in evaluation, without gradients; modes and random states are as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with same_dice(), torch.no_grad():
            torch.manual_seed(0)  # a model that draws, draws the same each time
            yield
    finally:
        for module, training in modes:
            module.training = training


def answers_of(model: nn.Module, call: Call) -> list[torch.Tensor]:
    """Return the outputs of a call that are floating point numbers."""
    device = device_of(model)
    call = call.map(lambda tensor: tensor.to(device, copy=True))
    return [tensor for tensor in tensors_in(model(*call.args, **call.kwargs)) if tensor.is_floating_point()]


class Answers:
    """What the original answers to some samples, each output thinned out to what tells."""

    def __init__(self, full: nn.Module, parts: Sequence[Part]) -> None:
        self.parts = parts
        full = copied(full)  # whose code may write into it
        with in_evaluation(full):
            outputs = []
            for number, part in enumerate(parts):
                with on_part(part, number):
                    outputs.append(answers_of(full, part.call))
        self._shapes = [[tuple(tensor.shape) for tensor in part] for part in outputs]
        self._values = [[_thinned(tensor).double() for tensor in part] for part in outputs]

    def error(self, model: nn.Module) -> float | None:
        """Return the relative error of a model's outputs: of each the root of the mean square, over its deviation.

        None: no output has the shape that the original's has.
        """
        count = min(len(part) for part in self._values)
        squares, spreads = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        same = [True] * count
        means = [torch.cat([part[at].ravel() for part in self._values]).mean() for at in range(count)]
        with in_evaluation(model):
            for number, part in enumerate(self.parts):
                found = answers_of(model, part.call)
                for at, (wanted, shape) in enumerate(
                    zip(self._values[number][:count], self._shapes[number], strict=False)
                ):
                    if at >= len(found) or tuple(found[at].shape) != shape:
                        same[at] = False
                        continue
                    squares[at] += float((_thinned(found[at]).double() - wanted).square().sum())
                    spreads[at] += float((wanted - means[at]).square().sum())
        errors = [
            float((square / spread).sqrt())
            for square, spread, fits in zip(squares, spreads, same, strict=True)
            if fits and spread > 0
        ]
        return sum(errors) / len(errors) if errors else None


def _thinned(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.reshape(-1)
    if len(flat) <= MOST_ELEMENTS:
        return flat
    generator = torch.Generator().manual_seed(0)
    return flat[torch.randint(len(flat), (MOST_ELEMENTS,), generator=generator).to(flat.device)]
