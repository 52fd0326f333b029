"""`secateur probe MODEL --on RUNTIME`: time by width for the model's kinds of layer, and the runtime's step."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from secateur.artifact.atomic import check_writable
from secateur.cli.console import Progress, show, show_json
from secateur.cli.options import model_options, place_options
from secateur.cli.subject import find_subject
from secateur.measurement.staircase import DEPTH, Staircase, probe
from secateur.reporting.figures import check_figure
from secateur.reporting.latency import draw_staircase
from secateur.reporting.numbers import number_of
from secateur.runtimes.registry import check_able
from secateur.runtimes.session import Options


@click.command("probe")
@click.argument("model", metavar="MODEL")
@place_options("The runtime to measure, always needed")
@click.option("--figure", metavar="FILE", help="Draw time by width: FILE.svg or FILE.png.")
@model_options
def command(
    model: str,
    on: str | None,
    precision: Any,
    device: str | None,
    threads: int | None,
    figure: str | None,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Measure how the time of MODEL's kinds of layer grows with their width, on a runtime.

    Time is a staircase: a runtime computes a vector of channels at a time. `prune` with --on keeps multiples
    of the step that is found here. What was measured is kept for the next time.
    """
    if on is None:
        raise click.UsageError("Say on which runtime: --on openvino.")
    options = Options(precision or "fp32", device or "cpu", threads or 0)
    check_able(on, options)
    if figure is not None:
        check_figure(figure)
        check_writable(figure)
    progress = Progress(quiet)
    with progress.step(f"building {model}"):
        subject = find_subject(model, **chosen)
    with progress.step(f"measuring on {on}"):
        found = probe(subject.model, subject.example, on, options)
    if figure is not None:
        draw_staircase(found, f"{on} {options.precision} on {options.device}", figure)
    if as_json:
        show_json({**asdict(found), "on": on, **vars(options)})
        return
    show(_table(found), f"Channels are best kept at multiples of {found.step}.")


def _table(found: Staircase) -> Table:
    table = Table(box=None, pad_edge=False, title=f"ms by width, {DEPTH} layers in a row", title_justify="left")
    table.add_column("width", justify="right")
    for kind in found.kinds:
        side = f" at {kind.side}x{kind.side}" if kind.side else ""
        table.add_column(f"{kind.name}{side}, {kind.share:.0%} of the MACs", justify="right")
    for width in found.milliseconds[found.kinds[0].name]:
        cells = (number_of(found.milliseconds[kind.name][width]) for kind in found.kinds)
        table.add_row(str(width), *cells, style="bold" if width % found.step == 0 else "")
    return table
