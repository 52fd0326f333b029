"""Kinds of steps: what carries one out, what it can read, and how its numbers are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import nn

Choose = Callable[[Sequence[Any]], Any]  # draws one of several options

SIDE = 4  # all features are squares of this many places


@dataclass(frozen=True)
class Step:
    """One operation: its kind, the features that it reads, and a few numbers."""

    kind: str
    reads: tuple[int, ...]
    numbers: tuple[int, ...] = ()


class Layer(nn.Module):
    """What carries out a step, made from the widths of what it reads and its numbers: features in, a list of them out.

    `widths` are the channels of the features that it makes.
    """

    widths: tuple[int, ...] = ()
    inputs: ClassVar[int] = 1  # how many features it reads

    @classmethod
    def fits(cls, *widths: int) -> bool:
        """Tell whether it can read features of these widths."""
        return True

    @classmethod
    def numbers(cls, choose: Choose, width: int) -> tuple[int, ...]:
        """Draw what it is made with beside the widths; `width` is the first one's."""
        return ()


KINDS: dict[str, type[Layer]] = {}
L = TypeVar("L", bound=type[Layer])


def kind(layer: L) -> L:
    """Register a kind of step."""
    KINDS[layer.__name__] = layer
    return layer


def drawn(choose: Choose, widths: Sequence[int]) -> Step | None:
    """Draw a step, given the widths of the features so far; None if there is nothing that it could read."""
    name = choose(sorted(KINDS))
    layer = KINDS[name]
    places = range(1, len(widths))  # 0 is the picture
    if layer.inputs == 1:
        readable = [(place,) for place in places if layer.fits(widths[place])][-4:]
    else:
        readable = [(a, b) for a in places for b in range(1, a) if layer.fits(widths[a], widths[b])]
    if not readable:
        return None
    reads = choose(readable)
    return Step(name, reads, layer.numbers(choose, widths[reads[0]]))
