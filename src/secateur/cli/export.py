"""`secateur export MODEL -o FILE`: the file that a runtime opens, compared with PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from secateur.cli.console import Progress, show, show_json
from secateur.cli.deployment import (
    check_calibration,
    found_for_deployment,
    gap_table,
    metadata_of,
    precision_options,
)
from secateur.cli.options import model_options
from secateur.runtimes.deployment import Deployed, export
from secateur.runtimes.exporting import OPSET
from secateur.runtimes.shapes import AXES


def _axes(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    words = tuple(word.strip() for word in value.split(",") if word.strip())
    for word in words:
        if word not in AXES.values():
            raise click.BadParameter(f"{word!r} is no size that can be free. Say some of {', '.join(AXES.values())}.")
    return words


@click.command("export")
@click.argument("model", metavar="MODEL")
@click.option("-o", "--output", required=True, metavar="FILE", help="FILE.onnx, or FILE.xml for an OpenVINO IR.")
@precision_options
@click.option(
    "--dynamic", metavar="SIZES", callback=_axes, help="Which sizes may change: batch,height,width; all that can be."
)
@click.option("--static", is_flag=True, help="No size may change.")
@click.option("--opset", type=click.IntRange(13), default=OPSET, show_default=True, metavar="N", help="Of ONNX.")
@click.option("--force", is_flag=True, help="Write the file even if it computes something else than the model.")
@model_options
def command(  # noqa: PLR0913
    model: str,
    output: str,
    precision: Any,
    calibrate: str | None,
    keep_float: tuple[str, ...],
    dynamic: tuple[str, ...] | None,
    static: bool,
    opset: int,
    force: bool,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Write MODEL as a file that ONNX Runtime, OpenVINO and others open, and compare its outputs with PyTorch's."""
    if static and dynamic is not None:
        raise click.UsageError("--static leaves no size free, and --dynamic names some. Keep one of them.")
    check_calibration(precision, calibrate)
    progress = Progress(quiet)
    subject, preprocessing, samples = found_for_deployment(model, calibrate, progress, chosen)
    with progress.step(f"exporting to {output}, and comparing"):
        deployed = export(
            subject.model,
            output,
            subject.example[0],
            precision=precision or "fp32",
            free=() if static else dynamic,
            opset=opset,
            samples=samples,
            keep_float=keep_float,
            metadata=metadata_of(subject, preprocessing),
            force=force,
        )
    if as_json:
        show_json({**asdict(deployed), "path": str(deployed.path), "bytes": _size(deployed.path)})
        return
    show(_title(deployed), gap_table(deployed), f"Saved: {output}")


def _title(deployed: Deployed) -> str:
    free = ", ".join(deployed.free) or "nothing"
    names = f"{', '.join(deployed.inputs)} → {', '.join(deployed.outputs)}"
    return f"{names}, {deployed.precision}, free: {free}, {_size(deployed.path) / 2**20:.2f} MB"


def _size(path: Path) -> int:
    return sum(
        one.stat().st_size for one in (path, path.with_suffix(".bin")) if one.suffix != ".bin" or path.suffix == ".xml"
    )
