"""One pass of a model over the samples: what its weights read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from secateur.calibration.batches import Batches, Part, batches_of
from secateur.calibration.gradients import Gradients, Loss, gradients_of
from secateur.calibration.moments import MOST_ROWS, WIDEST, Moments, blocked, rows_of
from secateur.calibration.observing import Reading, Site, Use, run_observed
from secateur.errors import DataError, SecateurError
from secateur.graph.calls import Call
from secateur.graph.groups import Graph

progress = logging.getLogger("secateur.progress")


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the weights of a model read of some samples, apart those to fit and those held out."""

    batches: Batches
    uses: Mapping[Site, Use]  # in the order of the first reading
    fit: Mapping[Site, Moments] = field(default_factory=dict)
    held: Mapping[Site, Moments] = field(default_factory=dict)
    gradients: Gradients | None = None  # where a loss was given
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of the model's tensors
    worked_out: dict[Any, Any] = field(default_factory=dict)  # from the moments, which takes its time


def calibrate(model: nn.Module, graph: Graph, batches: Any, loss: Loss | None = None) -> Calibration:
    """Run a model over batches, in evaluation, and return the moments of what each weight reads, and gradients.

    Weights that read more than 4096 channels are left out.

    Args:
        model: the model; untouched.
        graph: its graph.
        batches: what it is called with, as for `secateur.compensate`.
        loss: `loss(output, batch)`, a scalar, of the model's output and the batch as it came, labels included; for
            criteria that look at gradients.

    Raises:
        DataError: a batch does not fit the model, or there are too few samples.
    """
    found = batches_of(batches, model, graph.calls)
    uses: dict[Site, Use] = {}
    moments: tuple[dict[Site, Moments], dict[Site, Moments]] = ({}, {})
    for number, part, held in numbered(found):
        progress.info("calibrating: part %d of %d", number + 1, len(found.parts))
        calls: dict[Site, int] = {}

        def see(reading: Reading, held: bool = held, number: int = number, calls: dict[Site, int] = calls) -> None:
            width = reading.inputs.shape[reading.dim] // reading.blocks
            if width <= WIDEST:
                site = reading.site
                calls[site] = calls.get(site, 0) + 1
                rows = blocked(rows_of(reading, max(MOST_ROWS, width), 97 * number + calls[site]), reading.blocks)
                if site not in moments[held]:
                    moments[held][site] = Moments(reading.blocks, width, rows.device)
                moments[held][site].add(rows)

        for site, use in run_part(model, part, number, see).items():
            uses.setdefault(site, use)
    for site, own in moments[0].items():
        if not bool(torch.isfinite(own.products).all()):
            raise DataError(
                f"What {site[0]} reads of the batches is not finite: NaN or infinite weights before it, or values too "
                "large for half precision. Repair the weights, or calibrate in float32."
            )
    gradients = None if loss is None else gradients_of(model, graph, found.to_fit, loss)
    shapes = {name: info.shape for name, info in graph.tensors.items()}
    return Calibration(found, uses, *moments, gradients, shapes)


def numbered(batches: Batches) -> Iterator[tuple[int, Part, bool]]:
    """Walk the parts: number, part, and whether it is held out."""
    held = set(map(id, batches.held_out))
    for number, part in enumerate(batches.parts):
        yield number, part, id(part) in held


def run_part(model: nn.Module, part: Part, number: int, see: Callable[[Reading], None]) -> dict[Site, Use]:
    """Run a model on a part of the batches, under observation.

    Raises:
        DataError: the model does not run on it.
    """
    with on_part(part, number):
        return run_observed(model, fresh(part, model), see)


def fresh(part: Part, model: nn.Module) -> Call:
    """Return a call with tensors of its own, on the device of a model that may write into them."""
    device = device_of(model)
    return part.call.map(lambda tensor: tensor.to(device, copy=True))


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def on_part(part: Part, number: int) -> Iterator[None]:
    """Say on which samples a model failed.

    Raises:
        DataError: the body failed.
    """
    try:
        yield
    except SecateurError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in part.call.tensors())
        raise DataError(
            f"The model does not run on samples of shape {shapes} (part {number} of the batches): {error} "
            "Prepare the batches as the example was."
        ) from error
