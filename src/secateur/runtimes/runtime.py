"""What a runtime is to everything else: a name, what it can do here, and a way to open a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secateur.runtimes.network import Network
from secateur.runtimes.session import Options, Session


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    Attributes:
        name: what users type.
        package: what has to be installed.
        devices: returns those that are there.
        precisions: from a device to those that it computes in.
        open: opens a network; the options are ones that it can meet.
        runs_modules: it runs the model's own code, not an exported file.
    """

    name: str
    package: str
    devices: Callable[[], tuple[str, ...]]
    precisions: Callable[[str], tuple[str, ...]]
    open: Callable[[Network, Options], Session]
    runs_modules: bool = False
