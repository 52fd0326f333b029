"""Where the commands write: results to stdout, progress to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text
from typing_extensions import override

from secateur.cli.interruption import stop_if_asked

_WIDTH_WITHOUT_TERMINAL = 120


def show(*what: RenderableType) -> None:
    """Print results for people to stdout."""
    console = _stdout()
    for one in what:
        console.print(one, markup=False, soft_wrap=isinstance(one, str))


def show_fitting(*tables: RenderableType) -> None:
    """Print the first of several forms of a table, the widest first, that fits into the terminal; else the last."""
    console = _stdout()
    unbounded = console.options.update(width=10_000)
    fitting = (table for table in tables if console.measure(table, options=unbounded).maximum <= console.width)
    console.print(next(fitting, tables[-1]))


def show_json(value: Any) -> None:
    """Print results for machines to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _stdout() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


def heading(text: str) -> Text:
    """Return a line that begins something new."""
    return Text(f"\n{text}", style="bold cyan")


def progress_bar(quiet: bool) -> Bar:
    """Return a bar on stderr that goes away when it is done; it is seen in a terminal alone, and not when quiet."""
    console = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Bar(*columns, console=console, transient=True)


@contextmanager
def counting(total: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Tell on stderr how far long work is and the time left: a bar in a terminal, elsewhere ten lines.

    What is yielded is to be called after each of `total` pieces with its name; there a signal to stop is heard.
    """
    start, done = time.perf_counter(), 0
    plain = not quiet and not sys.stderr.isatty()
    with progress_bar(quiet) as bar:
        task = bar.add_task("", total=total)

        def tell(name: str) -> None:
            nonlocal done
            stop_if_asked()
            done += 1
            bar.update(task, advance=1, description=name)
            if plain and 10 * done // total > 10 * (done - 1) // total:
                left = (time.perf_counter() - start) / done * (total - done)
                click.echo(f"  {done}/{total}, {left:.0f} s left ({name})", err=True)

        yield tell


class _Teller(logging.Handler):
    """Writes what the library tells of long work, each on its line."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless quiet."""
        self._progress.say(f"  {record.getMessage()}")


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
            stop_if_asked()
            return
        start = time.perf_counter()
        if self._console.is_terminal:
            with self._console.status(Text(f"{text} ...")):
                yield
        else:
            yield
        stop_if_asked()
        self._console.print(f"  {text} {time.perf_counter() - start:.1f} s", style="dim", markup=False)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Show what the library tells of long work while the body runs."""
        handler, log = _Teller(self), logging.getLogger("secateur.progress")
        had = log.level, log.propagate
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(had[0])
            log.propagate = had[1]

    def say(self, text: str) -> None:
        """Write a line, unless quiet."""
        if not self._quiet:
            self._console.print(text, markup=False)
