"""`secateur sensitivity MODEL --data DIR`: what a model loses with each group of channels."""

from __future__ import annotations

import json
from typing import Any

import click

from secateur.artifact.atomic import check_writable, write_atomically
from secateur.cli.console import Progress, show, show_json
from secateur.cli.options import model_options
from secateur.cli.pictures import batches_of, preprocessing_of
from secateur.cli.subject import find_subject, warn_if_random
from secateur.measurement.sensitivity import SHARES, sensitivity
from secateur.models.selection import select_function
from secateur.planning.criteria.scoring import check_criterion
from secateur.reporting.figures import check_figure
from secateur.reporting.quality import draw_sensitivity, sensitivity_table


def _shares(_: click.Context, __: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        shares = tuple(sorted({float(word) for word in value.split(",")}))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share < 1 for share in shares):
        raise click.BadParameter(f"{value!r} is no list of shares. Write numbers between 0 and 1, such as 0.1,0.5.")
    return shares


@click.command("sensitivity")
@click.argument("model", metavar="MODEL")
@click.option("--data", required=True, metavar="DIR", help="Pictures like those of the use; no labels.")
@click.option("--metric", metavar="PKG:FN", help="A function of a model that returns a number, the larger the better.")
@click.option(
    "--shares",
    metavar="SHARES",
    callback=_shares,
    default=",".join(map(str, SHARES)),
    show_default=True,
    help="Of each group's channels.",
)
@click.option("--criterion", metavar="NAME", default="obs", show_default=True, help="By which channels go.")
@click.option("--no-compensate", is_flag=True, help="What is left does not make up for what goes.")
@click.option("--figure", metavar="FILE", help="Draw a heat map and the curves: FILE.svg or FILE.png.")
@click.option("-o", "--output", metavar="FILE", help="Write what was measured as FILE.json.")
@model_options
def command(  # noqa: PLR0913
    model: str,
    data: str,
    metric: str | None,
    shares: tuple[float, ...],
    criterion: str,
    no_compensate: bool,
    figure: str | None,
    output: str | None,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Cut each group of coupled channels of MODEL by some shares, and measure what the model loses.

    Without --metric that is the square of the outputs' relative error against the original. What was measured is kept:
    an interrupted run goes on where it was, and `prune --allocate sensitivity` with the same pictures finds it.
    """
    check_criterion(criterion)
    for path in (figure, output):
        if path is not None:
            check_writable(path)
    if figure is not None:
        check_figure(figure)
    progress = Progress(quiet)
    with progress.step(f"building {model}"):
        subject = find_subject(model, **chosen)
    warn_if_random(subject)
    with progress.step(f"reading {data}"):
        batches = batches_of(data, subject, preprocessing_of(model, subject))
    judge = None if metric is None else select_function(metric)
    with progress.step("measuring"), progress.telling():
        found = sensitivity(subject.model, list(subject.example), batches, shares, judge, not no_compensate, criterion)
    if figure is not None:
        draw_sensitivity(found, subject.title, figure)
    if output is not None:
        write_atomically(output, (json.dumps(found.as_json(), indent=2) + "\n").encode())
    if as_json:
        show_json(found.as_json())
        return
    show(sensitivity_table(found))
    for path in (figure, output):
        if path is not None:
            show(f"Saved: {path}")
