"""The staircase of a runtime: how time grows with width, and in which steps.

A runtime computes a vector of channels at a time, so that some widths cost as much as the next larger multiple.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.errors import MeasurementError
from secateur.graph.calls import calls_of
from secateur.measurement.cache import remembered
from secateur.measurement.contest import contest
from secateur.runtimes.network import Network
from secateur.runtimes.session import Options
from secateur.runtimes.shapes import Sizes
from secateur.surgery.cutting import copied

WIDTHS = (16, 18, 20, 24, 28, 32, 33, 36, 40, 44, 48, 52, 56, 60, 64)
LARGEST_STEP = 16
DEPTH = 4  # layers of one kind in a row, so that they outweigh what surrounds them
WASTE = 0.10  # share of time above what channels need, that a step may waste
LEAST_SIDE, MOST_SIDE = 56, 128  # pixels: below, times are too short to tell, above, they are long for nothing
MOST_KINDS = 3


@dataclass(frozen=True)
class Kind:
    """A kind of layer that a model has: "conv 3x3", "depthwise 3x3" or "linear", at a size that it runs on."""

    name: str
    kernel: int
    depthwise: bool
    side: int  # height and width of its inputs; 0 for a linear layer
    share: float  # of the model's MACs in layers of these kinds

    def block(self, width: int) -> tuple[nn.Module, torch.Tensor]:
        """Return some layers of this kind in a row, and an example for them."""
        if not self.side:
            return nn.Sequential(*(nn.Linear(width, width) for _ in range(DEPTH))).eval(), torch.zeros(196, width)
        groups = width if self.depthwise else 1
        layers = [nn.Conv2d(width, width, self.kernel, padding=self.kernel // 2, groups=groups) for _ in range(DEPTH)]
        return nn.Sequential(*layers).eval(), torch.zeros(1, width, self.side, self.side)


@dataclass(frozen=True)
class Staircase:
    """What was measured.

    Attributes:
        kinds: the kinds of layer.
        milliseconds: by kind and width.
        step: the multiple of channels that wastes next to no time.
    """

    kinds: tuple[Kind, ...]
    milliseconds: Mapping[str, Mapping[int, float]]
    step: int


def probe(
    model: nn.Module,
    example: Any,
    runtime: str,
    options: Options,
    widths: Sequence[int] = WIDTHS,
    tell: Callable[[str], object] = len,
) -> Staircase:
    """Measure by width the kinds of layer that a model spends most of its MACs on, in a runtime.

    Raises:
        MeasurementError: the model has no convolution or linear layer, or the runtime runs none of the probes.
        RuntimeUnfitError: the runtime lacks the device or the precision.
    """
    found: dict[str, dict[int, float]] = {}
    kinds = kinds_of(model, example)
    for kind in kinds:
        times = remembered(
            "staircase",
            runtime,
            options,
            [kind.name, kind.side, list(widths)],
            partial(_times, kind, runtime, options, widths, tell),
        )
        found[kind.name] = {int(width): milliseconds for width, milliseconds in times.items()}
    return Staircase(tuple(kinds), found, step_of(kinds, found))


def _times(
    kind: Kind, runtime: str, options: Options, widths: Sequence[int], tell: Callable[[str], object]
) -> dict[str, float]:
    """Return milliseconds of a kind of layer by width."""
    networks = [Network.of_model(str(width), *kind.block(width)) for width in widths]
    cells = contest(
        networks, runtime, options, Sizes(), 1.0, lambda text: tell(f"{kind.name}: {text}"), alone=False, openings=2
    )
    failed = next((cell for cell in cells if not cell.milliseconds), None)
    if failed is not None:
        raise MeasurementError(f"{runtime} does not run a {kind.name} of {failed.network} channels: {failed.why}")
    return {cell.network: _least(cell.milliseconds) for cell in cells}


def _least(milliseconds: Sequence[Sequence[float]]) -> float:
    """Return what a call takes undisturbed: the least."""
    return min(min(opening) for opening in milliseconds)


def step_of(kinds: Sequence[Kind], milliseconds: Mapping[str, Mapping[int, float]]) -> int:
    """Return the smallest step whose multiples all make good use of the runtime, as the kinds weigh.

    A width makes good use of it if its time lies near the lower convex hull of the times by width: no mix of other
    widths has as many channels in less time.
    """
    weights, step = [kind.share for kind in kinds], LARGEST_STEP
    while step > 1:
        wasted = [_wasted(milliseconds[kind.name], step // 2) for kind in kinds]
        if float(np.average(wasted, weights=weights)) > WASTE:
            return step
        step //= 2
    return step


def _wasted(times: Mapping[int, float], step: int) -> float:
    """Return the mean share of time above the hull, of the widths that are odd multiples of a step."""
    widths = np.array(sorted(times), float)
    taken = np.array([times[int(width)] for width in widths])
    hull = _lower_hull(widths, taken)
    bounds = np.interp(widths, widths[hull], taken[hull])
    odd = (widths % step == 0) & (widths % (2 * step) != 0)
    return float(np.mean((taken / bounds - 1)[odd])) if odd.any() else 0.0


def _lower_hull(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Return the corners of the lower convex hull of points that are sorted by x (Andrew's monotone chain)."""
    hull: list[int] = []
    for at in range(len(x)):
        while len(hull) > 1:
            one, two = hull[-2:]
            if (x[two] - x[one]) * (y[at] - y[one]) > (y[two] - y[one]) * (x[at] - x[one]):
                break
            hull.pop()
        hull.append(at)
    return hull


def kinds_of(model: nn.Module, example: Any) -> list[Kind]:
    """Return the kinds of layer that take most of a model's MACs, the largest first.

    Raises:
        MeasurementError: it has neither 2-d convolutions nor linear layers.
    """
    macs: Counter[tuple[str, int, bool]] = Counter()
    sides: dict[tuple[str, int, bool], Counter[int]] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            key, side, cost = ("linear", 1, False), 0, output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            deep, kernel = module.groups == module.in_channels > 1, module.kernel_size[0]
            key = (f"{'depthwise' if deep else 'conv'} {kernel}x{kernel}", kernel, deep)
            side, cost = inputs[0].shape[-1], output.numel() * module.weight[0].numel()
        else:
            return
        macs[key] += cost
        sides.setdefault(key, Counter())[side] += cost

    watched = copied(model).eval()
    for module in watched.modules():
        module.register_forward_hook(note)
    with torch.no_grad():
        for call in calls_of(example):
            watched(*call.args, **call.kwargs)
    if not macs:
        raise MeasurementError(
            f"{type(model).__name__} has neither 2-d convolutions nor linear layers to measure. "
            "Say yourself in which steps channels are cut: round_to=8 (--round-to 8)."
        )
    total = sum(macs.values())
    return [
        Kind(name, kernel, deep, _side(sides[name, kernel, deep].most_common(1)[0][0]), cost / total)
        for (name, kernel, deep), cost in macs.most_common(MOST_KINDS)
    ]


def _side(side: int) -> int:
    return min(max(side, LEAST_SIDE), MOST_SIDE) if side else 0
