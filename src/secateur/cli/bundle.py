"""`secateur bundle MODEL -o DIR`: a folder that puts pictures through MODEL without PyTorch."""

from __future__ import annotations

from typing import Any

import click

from secateur.artifact.atomic import check_new_folder
from secateur.cli.console import Progress, show, show_json
from secateur.cli.deployment import (
    check_calibration,
    found_for_deployment,
    gap_table,
    metadata_of,
    precision_options,
)
from secateur.cli.options import model_options
from secateur.shipping.account import Bundle, measurements
from secateur.shipping.bundling import FILES, bundle


@click.command("bundle")
@click.argument("model", metavar="MODEL")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to make; it must not be there yet.")
@click.option(
    "--on",
    "runtime",
    type=click.Choice(list(FILES)),
    default="onnxruntime",
    show_default=True,
    help="The runtime that the folder is for.",
)
@precision_options
@click.option("--no-measure", is_flag=True, help="Do not time the network, which takes some seconds.")
@click.option("--force", is_flag=True, help="Write the folder even if its file computes something else than the model.")
@model_options
def command(  # noqa: PLR0913
    model: str,
    output: str,
    runtime: str,
    precision: Any,
    calibrate: str | None,
    keep_float: tuple[str, ...],
    no_measure: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Write a folder that puts pictures through MODEL without PyTorch.

    It holds the exported file, a run.py that needs the runtime, numpy and Pillow alone, a README.md, and what was
    measured. MODEL takes one picture, of the size that it is exported with (--input), and its pre-processing is known:
    it is of the zoo, or saved with preprocessing=.
    """
    check_calibration(precision, calibrate)
    check_new_folder(output)
    progress = Progress(quiet)
    subject, preprocessing, samples = found_for_deployment(model, calibrate, progress, chosen)
    with progress.step(f"writing {output}, and {'comparing' if no_measure else 'comparing and measuring'}"):
        made = bundle(
            subject.model,
            output,
            subject.example,
            runtime=runtime,
            precision=precision or "fp32",
            preprocessing=preprocessing,
            samples=samples,
            keep_float=keep_float,
            metadata=metadata_of(subject, preprocessing),
            measure=not no_measure,
            force=force,
        )
    if as_json:
        show_json({"path": str(made.folder), **measurements(made)})
        return
    show(made.title, gap_table(made.deployed), *_time(made), f"Saved: {output}; its README.md says how to run it.")


def _time(made: Bundle) -> list[str]:
    if made.cell is None:
        return []
    if not made.cell.milliseconds:
        return [f"Not measured: {made.cell.status}, {made.cell.why}"]
    return [f"{made.cell.spread.median:.3g} ms a call on {made.machine}"]
