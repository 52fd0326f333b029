"""`secateur export MODEL -o FILE`: the file that a runtime opens, compared with PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table

from secateur import __version__
from secateur.artifact.format import digest
from secateur.artifact.reading import read
from secateur.cli.console import Progress, show, show_json
from secateur.cli.options import model_options
from secateur.cli.subject import Subject, find_subject, is_file
from secateur.models.pictures import pictures_in, prepared_pictures
from secateur.models.registry import entry_of
from secateur.runtimes.deployment import Deployed, export
from secateur.runtimes.exporting import OPSET
from secateur.runtimes.shapes import AXES

MOST_PICTURES = 300


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
@click.option("--fp16", "precision", flag_value="fp16", help="Weights in half precision: half the size.")
@click.option("--int8", "precision", flag_value="int8", help="Weights and activations in 8 bits; see --calibrate.")
@click.option("--calibrate", metavar="DIR", help="Pictures to calibrate INT8 on, like those of the use.")
@click.option("--keep-float", multiple=True, metavar="NAME", help="A node that INT8 leaves as it is.")
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
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError(
            "--int8 and --calibrate go together: 8 bits are fitted to pictures like those of the use."
        )
    progress = Progress(quiet)
    with progress.step(f"building {model}"):
        subject = find_subject(model, **chosen)
    preprocessing = _preprocessing(model, subject)
    samples = []
    if calibrate is not None:
        with progress.step(f"reading {calibrate}"):
            samples = _samples(calibrate, subject, preprocessing)
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
            metadata=_metadata(subject, preprocessing),
            force=force,
        )
    if as_json:
        show_json({**asdict(deployed), "path": str(deployed.path), "bytes": _size(deployed.path)})
        return
    show(_title(deployed), _table(deployed), f"Saved: {output}")


def _preprocessing(model: str, subject: Subject) -> dict[str, Any] | None:
    entry = entry_of(subject.model)
    if entry is not None:
        return {"mean": list(entry.mean), "std": list(entry.std)}
    if is_file(model):
        found = read(model).preprocessing
        return None if found is None else dict(found)
    return None


def _samples(folder: str, subject: Subject, preprocessing: dict[str, Any] | None) -> list[list[Any]]:
    if preprocessing is None or not {"mean", "std"} <= preprocessing.keys():
        raise click.UsageError(
            f"How {subject.name} wants its pictures is not known. Save it with "
            "preprocessing={'mean': ..., 'std': ...}."
        )
    (shape,) = (tuple(one.shape) for one in subject.example[0] if isinstance(one, torch.Tensor))
    paths = pictures_in(folder, MOST_PICTURES)
    return [[one.numpy()] for one in prepared_pictures(paths, shape, preprocessing["mean"], preprocessing["std"])]


def _metadata(subject: Subject, preprocessing: dict[str, Any] | None) -> dict[str, str]:
    told = {
        "secateur.version": __version__,
        "secateur.model": type(subject.model).__name__,
        "secateur.preprocessing": json.dumps(preprocessing),
    }
    if subject.earlier:
        told["secateur.plans"] = json.dumps([digest(plan.to_json()) for plan in subject.earlier])
    return told


def _size(path: Path) -> int:
    return sum(
        one.stat().st_size for one in (path, path.with_suffix(".bin")) if one.suffix != ".bin" or path.suffix == ".xml"
    )


def _title(deployed: Deployed) -> str:
    free = ", ".join(deployed.free) or "nothing"
    names = f"{', '.join(deployed.inputs)} → {', '.join(deployed.outputs)}"
    return f"{names}, {deployed.precision}, free: {free}, {_size(deployed.path) / 2**20:.2f} MB"


def _table(deployed: Deployed) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("output", "inputs", "largest difference", "signal above it"):
        table.add_column(title, justify="left" if title in ("output", "inputs") else "right")
    for gap in deployed.gaps:
        sizes = ", ".join("x".join(map(str, shape)) for shape in gap.sizes)
        table.add_row(gap.output, sizes, f"{gap.error:.1e} of the largest", f"{gap.snr:.0f} dB")
    return table
