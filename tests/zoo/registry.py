"""The zoo: odd little models by name, each with an example of how it is called and what is known of it beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import nn

Builder = Callable[[], nn.Module]
B = TypeVar("B", bound=Builder)


@dataclass(frozen=True)
class Specimen:
    """A model, how it is called, and what pruning must and must not do to it."""

    build: Builder
    example: Any
    cut: tuple[str, ...]  # layers that lose output channels at ratio 0.5
    whole: tuple[str, ...]  # layers that keep every output channel, whatever the ratio
    prunable: bool  # something can be cut
    reference: Literal["zeros", "mask"]  # "mask": zeros in the weights do not silence its channels


ZOO: dict[str, Specimen] = {}


def specimen(
    example: Any,
    *,
    cut: tuple[str, ...] = (),
    whole: tuple[str, ...] = (),
    prunable: bool = True,
    reference: Literal["zeros", "mask"] = "zeros",
) -> Callable[[B], B]:
    """Put a class or a function that builds a model into the zoo, under its own name."""

    def register(build: B) -> B:
        assert build.__name__ not in ZOO, f"two specimens are called {build.__name__}"
        ZOO[build.__name__] = Specimen(build, example, cut, whole, prunable, reference)
        return build

    return register
