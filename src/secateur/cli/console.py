"""Where the commands write: results to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, RenderableType

_WIDTH_WITHOUT_TERMINAL = 120


def show(*what: RenderableType) -> None:
    """Print results for people to stdout."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)
    for one in what:
        console.print(one)


def show_json(value: Any) -> None:
    """Print results for machines to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


class Progress:
    """Tells on stderr what is being done: a spinner in a terminal, a line a step elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step while it lasts, and say how long it took."""
        if self._quiet:
            yield
            return
        start = time.perf_counter()
        if self._console.is_terminal:
            with self._console.status(f"{text} ..."):
                yield
        else:
            yield
        self._console.print(f"  {text} [dim]{time.perf_counter() - start:.1f} s[/dim]", style="dim")

    def say(self, text: str) -> None:
        """Write a line, unless quiet."""
        if not self._quiet:
            self._console.print(text)
