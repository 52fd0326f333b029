"""What `export` and `bundle` share: the precision, pictures to calibrate on, and what a file says of its model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.table import Table

from secateur import __version__
from secateur.artifact.format import digest
from secateur.cli.console import Progress
from secateur.cli.pictures import preprocessing_of, samples_of
from secateur.cli.subject import Subject, find_subject, warn_if_random
from secateur.runtimes.deployment import Deployed


def precision_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the precision of a file."""
    options = (
        click.option("--fp16", "precision", flag_value="fp16", help="Weights in half precision: half the size."),
        click.option(
            "--int8", "precision", flag_value="int8", help="Weights and activations in 8 bits; see --calibrate."
        ),
        click.option("--calibrate", metavar="DIR", help="Pictures to calibrate INT8 on, like those of the use."),
        click.option(
            "--keep-float",
            multiple=True,
            metavar="NAME",
            help="A layer, or a node of the file, that INT8 leaves alone.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_calibration(precision: str | None, calibrate: str | None) -> None:
    """Make sure that INT8 has pictures, and that nothing else has.

    Raises:
        click.UsageError: one was given without the other.
    """
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError(
            "--int8 and --calibrate go together: 8 bits are fitted to pictures like those of the use."
        )


def found_for_deployment(
    model: str, calibrate: str | None, progress: Progress, chosen: Mapping[str, Any]
) -> tuple[Subject, dict[str, Any] | None, list[list[Any]]]:
    """Return a model, its pre-processing, and pictures as it wants them to calibrate on, where a folder is given."""
    with progress.step(f"building {model}"):
        subject = find_subject(model, **chosen)
    warn_if_random(subject)
    preprocessing = preprocessing_of(model, subject)
    if calibrate is None:
        return subject, preprocessing, []
    with progress.step(f"reading {calibrate}"):
        pictures = samples_of(calibrate, subject, preprocessing)
        return subject, preprocessing, [[one.numpy()] for one in pictures]


def metadata_of(subject: Subject, preprocessing: dict[str, Any] | None) -> dict[str, str]:
    """Return what a file is to say of itself: the model, its pre-processing, and the plans that made it."""
    told = {
        "secateur.version": __version__,
        "secateur.model": type(subject.model).__name__,
        "secateur.preprocessing": json.dumps(preprocessing),
    }
    if subject.earlier:
        told["secateur.plans"] = json.dumps([digest(plan.to_json()) for plan in subject.earlier])
    return told


def gap_table(deployed: Deployed) -> Table:
    """Return how far a file is from PyTorch, a row for each output and size."""
    table = Table(box=None, pad_edge=False)
    for title in ("output", "inputs", "largest difference", "on average", "signal above it", "same class"):
        table.add_column(title, justify="left" if title in ("output", "inputs") else "right")
    for gap in deployed.gaps:
        sizes = ", ".join("x".join(map(str, shape)) for shape in gap.sizes)
        sizes += f", {gap.pictures} pictures" if gap.pictures else ""
        alike = "" if gap.alike is None else f"{gap.alike:.1%}"
        share = f"{gap.error:.1e} of the largest"
        table.add_row(gap.output, sizes, share, f"{gap.mean:.1e}", f"{gap.snr:.0f} dB", alike)
    return table
