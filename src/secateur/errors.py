"""The errors that secateur raises: each says what, why, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

STEP = 32  # pixels; what nets that halve their pictures five times are sure to take
_MOST_COMPARED, _LONGEST_COMPARED = 2000, 100  # names, and characters of each


class SecateurError(Exception):
    """Base of every error that secateur raises on purpose."""


class TraceError(SecateurError):
    """The model could not be run on the example."""


class ExplainError(SecateurError):
    """A question about a layer that is not there, or that has no channels of its own."""


class PlanError(SecateurError):
    """A budget, a configuration or a plan that makes no sense; `tensors` names those that cannot be cut as planned."""

    tensors: tuple[str, ...] = ()


class BudgetError(PlanError):
    """A budget that cannot be met with the channels that may go."""


class CutError(SecateurError):
    """A plan that does not fit the model it is applied to."""


class ProofError(SecateurError):
    """The pruned model is not what the plan promises; `tensors` names the ones at fault where they are known."""

    tensors: tuple[str, ...] = ()


class GraftError(SecateurError):
    """A pruned part that does not go into the host as it is."""


class ArtifactError(SecateurError):
    """A file that cannot be read, trusted or written."""


class DataError(SecateurError):
    """A picture or a data set that cannot be used."""


class RuntimeMissingError(SecateurError):
    """An optional package is missing; names the extra that brings it."""


class RuntimeUnfitError(SecateurError):
    """A runtime that is not known, or that cannot run this network so: the precision, the device, an operator."""


class ExportError(SecateurError):
    """A network that does not go into a deployable file, or whose file does not compute what the model does."""


class TrainingError(SecateurError):
    """Training that cannot go on: diverged, out of memory, or resumed from something else."""


class MeasurementError(SecateurError):
    """Something that cannot be measured as asked."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean a, b or c?"` for a misspelt word, or the known words if none is near."""
    known = sorted(set(known))
    # Comparing takes the product of the lengths, and a damaged file may hold names of any.
    short = [one for one in known[:_MOST_COMPARED] if len(one) <= _LONGEST_COMPARED]
    close = difflib.get_close_matches(word[:_LONGEST_COMPARED], short, n=3, cutoff=0.55)
    if close:
        return f" Did you mean {' or '.join(close)}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f" Known: {shown}." if known else ""


def better_sizes(shapes: Iterable[Sequence[int]]) -> str:
    """Return `" ... try 512x512 or 480x512."` if a picture (N, C, H, W) has a side that is no multiple of `STEP`.

    Networks that halve their pictures five times, and join what comes of that, take multiples alone.
    """
    odd = next((shape for shape in shapes if len(shape) == 4 and any(side % STEP for side in shape[2:])), None)
    if odd is None:
        return ""
    larger = "x".join(str(side + -side % STEP) for side in odd[2:])
    smaller = "x".join(str(max(STEP, side - side % STEP)) for side in odd[2:])
    tried = larger if larger == smaller else f"{larger} or {smaller}"
    return f" Many networks take multiples of {STEP} alone: try {tried}."
