"""`secateur eval A [B ...] --data DIR`: what models' mattes are worth on portraits with true ones, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from secateur.artifact.atomic import check_writable
from secateur.cli.console import Progress, counting, show, show_json
from secateur.cli.networks import find_networks
from secateur.cli.options import model_options, person_option
from secateur.cli.pictures import MOST_PICTURES
from secateur.errors import DataError
from secateur.matting.evaluating import Matter, evaluate
from secateur.matting.layouts import Clip, Portrait, find_clips, find_portraits, is_data_set
from secateur.matting.metrics import METRICS, metrics_of
from secateur.matting.predicting import open_predictor
from secateur.matting.preprocessing import MEAN, STD
from secateur.matting.splitting import only_held_out
from secateur.models.pictures import evenly_spread, pictures_in, prepared_pictures
from secateur.reporting.evaluation import (
    Compared,
    convention_json,
    convention_line,
    draw_worst,
    evaluation_json,
    score_table,
    worst_table,
)
from secateur.reporting.figures import check_figure
from secateur.runtimes.deployment import RUNTIMES as RUNTIMES_OF_FILES
from secateur.runtimes.network import Network
from secateur.runtimes.registry import RUNTIMES
from secateur.runtimes.session import Options, Precision

LEADING = "MAD"  # models are compared by it, unless it is not among the metrics that were asked for


def _metrics(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    try:
        return metrics_of([part.strip() for part in value.split(",") if part.strip()]) or tuple(METRICS)
    except DataError as error:
        raise click.BadParameter(str(error)) from None


@click.command("eval")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--data", "folders", multiple=True, required=True, metavar="DIR", help="Pictures with mattes; may be repeated."
)
@click.option(
    "--on",
    "runtime",
    type=click.Choice(list(RUNTIMES)),
    help="Where models run; if left out, in torch, and an exported file in its own runtime.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="Of weights and arithmetic.",
)
@click.option("--calibrate", metavar="DIR", help="Pictures to calibrate --precision int8 on; not those of --data.")
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="Of the runtime: cpu, cuda.")
@click.option("--threads", type=click.IntRange(0), default=0, metavar="N", help="For one call; 0: the runtime decides.")
@click.option(
    "--metric",
    "metrics",
    default=",".join(METRICS),
    show_default=True,
    metavar="NAME,...",
    callback=_metrics,
    help="Means over the set, lower is better.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Only the people that train --held-out SHARE keeps out, with the same --person.",
)
@person_option
@click.option("--limit", type=click.IntRange(1), metavar="N", help="So many portraits or clips, evenly spread.")
@click.option("--figure", metavar="FILE", help="Draw the ten worst: FILE.png or FILE.svg.")
@model_options
def command(  # noqa: PLR0913
    models: tuple[str, ...],
    folders: tuple[str, ...],
    runtime: str | None,
    precision: Precision,
    calibrate: str | None,
    device: str,
    threads: int,
    metrics: tuple[str, ...],
    held_out: float | None,
    person: str,
    limit: int | None,
    figure: str | None,
    shapes: tuple[tuple[int, ...], ...],
    weights: str | None,
    full: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare the mattes of MODELs with true ones: the mean of each metric, the worst, the ratio to the first MODEL.

    A MODEL is a built-in name, a saved file, package.module:callable, an ONNX file, or the .xml of an OpenVINO IR.

    DIR has image/ with pictures and alpha/ with their mattes, under the same names. If it has neither, each folder in
    it that does is a clip: its pictures are the frames of a video in the order of their names, its scores are means
    over them, and dtSSD tells of flicker. A clip counts as one, since its frames are much alike.
    """
    if figure is not None:
        check_figure(figure)
        check_writable(figure)
    _check_calibration(precision, calibrate)
    sets = {folder: _subjects(folder, held_out, person, limit) for folder in dict.fromkeys(folders)}
    progress = Progress(quiet)
    with progress.step("building the models"):
        networks = find_networks(models, shapes, weights, full, seed)
    matters = {}
    for network in networks:
        with progress.step(f"opening {network.name}"):
            matters[network.name] = _matter(network, runtime, Options(precision, device, threads), calibrate)
    with counting(len(matters) * sum(map(_frames, sets.values())), quiet) as tell:
        found = [_compared(folder, own, matters, metrics, tell) for folder, own in sets.items()]
    if figure is not None:
        with progress.step(f"drawing {figure}"):
            draw_worst(found, matters, figure)
    if as_json:
        setup = {"on": runtime, "precision": precision, "device": device, "threads": threads}
        show_json({**setup, "convention": convention_json(metrics), "data": [evaluation_json(one) for one in found]})
        return
    for one in found:
        show(score_table(one), worst_table(one), "")
    show(convention_line(metrics), *([f"Saved: {figure}"] if figure is not None else []))


def _check_calibration(precision: Precision, calibrate: str | None) -> None:
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError(
            "--precision int8 and --calibrate go together: 8 bits are fitted to pictures like those of the use."
        )


def _subjects(folder: str, held_out: float | None, person: str, limit: int | None) -> Sequence[Portrait | Clip]:
    place = Path(folder)
    found: Sequence[Portrait | Clip] = find_clips(place) if _holds_clips(place) else find_portraits(place)
    return evenly_spread(found if held_out is None else only_held_out(found, held_out, person), limit)


def _holds_clips(place: Path) -> bool:
    return place.is_dir() and not is_data_set(place) and any(map(is_data_set, place.iterdir()))


def _frames(subjects: Sequence[Portrait | Clip]) -> int:
    return sum(len(one.frames) if isinstance(one, Clip) else 1 for one in subjects)


def _matter(network: Network, runtime: str | None, options: Options, calibrate: str | None) -> Matter:
    if calibrate is not None:
        network.samples = _samples(network, calibrate)
    suffix = "" if network.file is None else network.file.suffix
    return open_predictor(network, runtime or RUNTIMES_OF_FILES.get(suffix, "torch"), options)


def _samples(network: Network, folder: str) -> list[list[Any]]:
    if network.file is not None:
        raise click.UsageError(f"{network.file} is quantised when it is written: secateur export --int8.")
    told = network.preprocessing or {"mean": MEAN, "std": STD}
    shape = [size or 1 for size in network.shapes[0]]
    paths = pictures_in(folder, MOST_PICTURES)
    return [[one.numpy()] for one in prepared_pictures(paths, shape, told["mean"], told["std"])]


def _compared(
    folder: str,
    subjects: Sequence[Portrait | Clip],
    matters: dict[str, Matter],
    metrics: Sequence[str],
    tell: Callable[[str], None],
) -> Compared:
    models = {
        name: evaluate(matter, subjects, metrics, lambda frame, name=name: tell(f"{name} on {frame}"))
        for name, matter in matters.items()
    }
    return Compared(folder, LEADING if LEADING in metrics else metrics[0], models)
