"""Sizes of inputs: other batches and pictures than the example's, and which of them a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secateur.errors import RuntimeUnfitError, better_sizes
from secateur.runtimes.forms import InferenceForm, evaluating

AXES = {0: "batch", 2: "height", 3: "width"}  # of pictures (N, C, H, W); of anything else only the batch
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Sizes:
    """A batch, and height and width of pictures; None: as in the example."""

    batch: int | None = None
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise RuntimeUnfitError(f"A {name} of {value} makes no sense. Give a whole number from 1.")

    def of(self, shapes: Sequence[Sequence[int]]) -> Shapes:
        """Return the shapes of inputs at this size.

        The batch is the first dimension of the first picture, or else input, and of those that have as many; pictures
        have four dimensions, and those of the first one's height and width change with it.
        """
        batches = batch_of(shapes)
        side = next((tuple(shape[2:]) for shape in shapes if len(shape) == 4), ())

        def of(shape: tuple[int, ...]) -> tuple[int, ...]:
            if shape and shape[0] == batches:
                shape = (self.batch or shape[0], *shape[1:])
            if len(shape) == 4 and shape[2:] == side:
                shape = (*shape[:2], self.height or shape[2], self.width or shape[3])
            return shape

        return tuple(of(tuple(shape)) for shape in shapes)

    def __str__(self) -> str:
        size = f" at {self.height}x{self.width}" if self.height and self.width else ""
        return f"batch {self.batch}{size}" if self.batch else (size.removeprefix(" at ") or "the example's size")


def batch_of(shapes: Sequence[Sequence[int]]) -> int:
    """Return the batch of inputs: that of the first picture, or of the first input if there is none."""
    found = sorted((shape for shape in shapes if shape), key=lambda shape: len(shape) != 4)
    return found[0][0] if found else 1


def random_inputs(shapes: Shapes, dtypes: Sequence[torch.dtype], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return inputs of these shapes: normal, as a prepared picture is; whole numbers and flags are zero."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(shape, generator=generator).to(dtype)
        if dtype.is_floating_point
        else torch.zeros(shape, dtype=dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    )


def output_shapes(form: InferenceForm, inputs: Sequence[torch.Tensor]) -> Shapes:
    """Return the shapes of what a model puts out.

    Raises:
        RuntimeUnfitError: it does not run on inputs of these sizes.
    """
    try:
        with evaluating(form), torch.no_grad():
            return tuple(tuple(output.shape) for output in form(*inputs))
    except Exception as error:
        shown = ", ".join("x".join(map(str, one.shape)) for one in inputs)
        raise RuntimeUnfitError(
            f"{type(form.model).__name__} does not take {shown}: {' '.join(str(error).split())[:300]}."
            + (better_sizes(one.shape for one in inputs) or " Try another size.")
        ) from error
