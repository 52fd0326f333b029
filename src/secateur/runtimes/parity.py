"""Whether a deployed file computes what the model does: at the example's size, at another batch, at another picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateur.errors import STEP, RuntimeUnfitError, SecateurError
from secateur.runtimes.forms import InferenceForm, evaluating
from secateur.runtimes.samples import Samples
from secateur.runtimes.session import Session
from secateur.runtimes.shapes import Shapes, Sizes, batch_of, random_inputs


@dataclass(frozen=True)
class Gap:
    """How far an output of a file is from the model's.

    Attributes:
        output: its name.
        sizes: of the inputs.
        error: the largest difference, as a share of the largest of the model's values; NaN where the file's are not
            finite and the model's are.
        snr: decibels of the model's output above the difference.
        mean: the mean absolute difference, in the output's own units: of a matte, its MAD from the model's.
        alike: for how many of the inputs the largest score is of the same class, as a share; None: these are no scores.
        pictures: on how many of the user's, all together; 0: on the example, or on random inputs.
    """

    output: str
    sizes: Shapes
    error: float
    snr: float
    mean: float
    alike: float | None = None
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
            found.append(_Sums().add(one, other.astype(np.float64)).gap(name, sizes))
    return found


def gaps_on_pictures(form: InferenceForm, session: Session, samples: Samples) -> list[Gap]:
    """Compare a model with a session on pictures of the user's, all in one figure for each output."""
    sums = [_Sums() for _ in form.outputs]
    for sample in samples:
        given = [torch.from_numpy(np.ascontiguousarray(one)) for one in sample]
        with evaluating(form), torch.no_grad():
            expected = [one.double().numpy() for one in form(*given)]
        for own, one, other in zip(sums, expected, _run(session, given), strict=True):
            own.add(one, other.astype(np.float64))
    sizes = tuple(tuple(one.shape) for one in samples[0])
    return [own.gap(name, sizes, len(samples)) for name, own in zip(form.outputs, sums, strict=True)]


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


@dataclass
class _Sums:
    """What is known of one output so far."""

    difference: float = 0.0  # the largest
    largest: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    differences: float = 0.0
    values: int = 0
    alike: int = 0  # of the rows of scores
    rows: int = 0

    def add(self, expected: np.ndarray, found: np.ndarray) -> _Sums:
        """Take in one output of the model and of the file."""
        with np.errstate(invalid="ignore"):
            same = (found == expected) | (np.isnan(found) & np.isnan(expected))  # infinities may be equal, too
            difference = np.where(same, 0.0, np.abs(found - expected))
        finite = expected[np.isfinite(expected)]
        self.difference = float(np.max([self.difference, difference.max(initial=0.0)]))  # NaN stays
        self.largest = max(self.largest, float(np.abs(finite).max(initial=0.0)))
        self.noise += float(np.square(difference).sum())
        self.signal += float(np.square(finite).sum())
        self.differences += float(difference.sum())
        self.values += expected.size
        if expected.ndim == 2 and expected.shape[1] > 1:
            self.alike += int((expected.argmax(1) == found.argmax(1)).sum())
            self.rows += len(expected)
        return self

    def gap(self, name: str, sizes: Shapes, pictures: int = 0) -> Gap:
        """Return what all of it comes to."""
        quiet = float("inf") if self.noise == 0 else float("-inf")
        snr = 10 * float(np.log10(self.signal / self.noise)) if self.noise and self.signal else quiet
        mean, alike = self.differences / max(self.values, 1), self.alike / self.rows if self.rows else None
        return Gap(name, sizes, self.difference / (self.largest or 1.0), snr, mean, alike, pictures)


def trial_inputs(
    example: Sequence[torch.Tensor], free: Sequence[str], takes: Callable[[Shapes], bool]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the example, then random inputs of its size, of a larger batch, and of larger pictures, as far as free.

    Whole numbers and flags are drawn from those that the example holds. `takes` tells whether the model runs on shapes.
    An example of one value all over is left out where the model takes anything else: norms make it rounding noise,
    which is nobody's result.
    """
    floating = [one for one in example if one.is_floating_point()]
    told = not floating or not all(_is_flat(one) for one in floating)
    if told:
        yield tuple(example)
    shapes = tuple(tuple(one.shape) for one in example)
    picture = next((shape for shape in shapes if len(shape) == 4), None)
    batch = batch_of(shapes)
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
            told = True
    if not told:
        yield tuple(example)


def _is_flat(tensor: torch.Tensor) -> bool:
    return tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())


def _like(drawn: torch.Tensor, example: torch.Tensor, seed: int) -> torch.Tensor:
    """Return what was drawn; of whole numbers and flags, elements of the example instead."""
    if drawn.is_floating_point() or not example.numel():
        return drawn
    chosen = torch.randint(example.numel(), drawn.shape, generator=torch.Generator().manual_seed(seed))
    return example.flatten()[chosen]
