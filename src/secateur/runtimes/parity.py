"""Whether a deployed file computes what the model does: at the example's size, at another batch, at another picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateur.errors import RuntimeUnfitError, SecateurError
from secateur.runtimes.forms import InferenceForm, evaluating
from secateur.runtimes.quantizing import Samples
from secateur.runtimes.session import Session
from secateur.runtimes.shapes import STEP, Shapes, Sizes, random_inputs


@dataclass(frozen=True)
class Gap:
    """How far an output of a file is from the model's.

    Attributes:
        output: its name.
        sizes: of the inputs.
        error: the largest difference, as a share of the largest of the model's values; NaN where the file's are not
            finite and the model's are.
        snr: decibels of the model's output above the difference.
        pictures: on how many of the user's, all together; 0: on the example, or on random inputs.
    """

    output: str
    sizes: Shapes
    error: float
    snr: float
    pictures: int = 0


def gaps(form: InferenceForm, session: Session, inputs: Sequence[Sequence[torch.Tensor]]) -> list[Gap]:
    """Compare a model with a session on several inputs.

    Raises:
        RuntimeUnfitError: the session's outputs are of other shapes than the model's.
    """
    found = []
    for given in inputs:
        with evaluating(form), torch.no_grad():
            expected = [one.double().numpy() for one in form(*given)]
        outputs = _run(session, given)
        sizes = tuple(tuple(one.shape) for one in given)
        for name, one, other in zip(form.outputs, expected, outputs, strict=True):
            if one.shape != other.shape:
                raise RuntimeUnfitError(
                    f"Inputs of {sizes} give {name} of shape {one.shape} in the model and {other.shape} in the file: "
                    "the code computes this size in a way that no file keeps. Export with fewer free sizes (dynamic)."
                )
            found.append(_gap(name, sizes, one, other.astype(np.float64)))
    return found


def gaps_on_pictures(form: InferenceForm, session: Session, samples: Samples) -> list[Gap]:
    """Compare a model with a session on pictures of the user's, all in one figure for each output."""
    expected, found = [], []
    for sample in samples:
        given = [torch.from_numpy(np.ascontiguousarray(one)) for one in sample]
        with evaluating(form), torch.no_grad():
            expected.append([one.double().numpy() for one in form(*given)])
        found.append([one.astype(np.float64) for one in _run(session, given)])
    sizes = tuple(tuple(one.shape) for one in samples[0])
    return [
        _gap(name, sizes, np.concatenate(one), np.concatenate(other), len(samples))
        for name, one, other in zip(form.outputs, zip(*expected, strict=True), zip(*found, strict=True), strict=True)
    ]


def _run(session: Session, given: Sequence[torch.Tensor]) -> tuple[np.ndarray, ...]:
    try:
        return session(*(one.numpy() for one in given))
    except SecateurError:
        raise
    except Exception as error:
        shown = ", ".join("x".join(map(str, one.shape)) for one in given)
        raise RuntimeUnfitError(
            f"The file does not run on inputs of {shown}: {' '.join(str(error).split())[:300]}. Export with fewer free "
            "sizes (--dynamic)."
        ) from error


def _gap(name: str, sizes: Shapes, expected: np.ndarray, found: np.ndarray, pictures: int = 0) -> Gap:
    with np.errstate(invalid="ignore"):
        difference = np.where(found == expected, 0.0, np.abs(found - expected))  # infinities may be equal, too
    finite = expected[np.isfinite(expected)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    noise = float(np.square(difference).mean()) if difference.size else 0.0
    signal = float(np.square(finite).mean()) if finite.size else 0.0
    snr = float("inf") if noise == 0 else 10 * float(np.log10(signal / noise)) if signal else float("-inf")
    return Gap(name, sizes, float(difference.max(initial=0.0)) / largest, snr, pictures)


def trial_inputs(
    example: Sequence[torch.Tensor], free: Sequence[str], takes: Callable[[Shapes], bool]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the example, then random inputs of its size, of a larger batch, and of larger pictures, as far as free.

    Whole numbers and flags are drawn from those that the example holds. `takes` tells whether the model runs on shapes.
    """
    yield tuple(example)
    shapes = tuple(tuple(one.shape) for one in example)
    picture = next((shape for shape in shapes if len(shape) == 4), None)
    batch = shapes[0][0] if shapes and shapes[0] else 1
    trials = [Sizes()]
    if "batch" in free:
        trials.append(Sizes(batch + 2))
    if picture is not None and {"height", "width"} & set(free):
        height = picture[2] + STEP if "height" in free else None
        width = picture[3] + 2 * STEP if "width" in free else None
        trials.append(Sizes(3 if "batch" in free else None, height, width))
    for seed, sizes in enumerate(trials):
        wanted = sizes.of(shapes)
        if takes(wanted):
            drawn = random_inputs(wanted, [one.dtype for one in example], seed)
            yield tuple(_like(one, other, seed) for one, other in zip(drawn, example, strict=True))


def _like(drawn: torch.Tensor, example: torch.Tensor, seed: int) -> torch.Tensor:
    """Return what was drawn; of whole numbers and flags, elements of the example instead."""
    if drawn.is_floating_point() or not example.numel():
        return drawn
    chosen = torch.randint(example.numel(), drawn.shape, generator=torch.Generator().manual_seed(seed))
    return example.flatten()[chosen]
