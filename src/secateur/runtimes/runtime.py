"""What a runtime is to everything else: a name, what it can do here, and a way to open a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secateur.runtimes.network import Network, Source
from secateur.runtimes.session import Arrays, NodeTime, Options, Session
from secateur.runtimes.shapes import Shapes


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    Attributes:
        name: what users type.
        package: what has to be installed.
        devices: returns those that are there.
        precisions: from a device to those that it computes in.
        open: opens a network for inputs of these shapes, or of any; the options are ones that it can meet.
        profile: runs a network on inputs, and tells what each operation takes; None: this runtime does not tell.
        source: what it opens: the model's own code, the exported file, or the one that is fused before.
    """

    name: str
    package: str
    devices: Callable[[], tuple[str, ...]]
    precisions: Callable[[str], tuple[str, ...]]
    open: Callable[[Network, Options, Shapes | None], Session]
    source: Source
    profile: Callable[[Network, Options, Arrays], list[NodeTime]] | None = None
