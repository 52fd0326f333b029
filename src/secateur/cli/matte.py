"""`secateur matte INPUT OUTPUT`: people cut out of a picture, a folder of pictures or a video."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from secateur.artifact.atomic import check_writable, ensure_folder
from secateur.artifact.shipped import shipped_int8, trained_networks
from secateur.cli.console import Progress, progress_bar, show_json
from secateur.cli.options import (
    device_option,
    json_option,
    precision_option,
    quiet_option,
    threads_option,
    weights_option,
)
from secateur.cli.pictures import preprocessing_of
from secateur.cli.subject import find_subject, warn_if_random
from secateur.errors import DataError, RuntimeUnfitError, SecateurError
from secateur.matting.finishing import Background, Finish, Kind, backdrop, blurred, plain
from secateur.matting.folders import pictures_under, results_of
from secateur.matting.jobs import Job, Result, run_jobs
from secateur.matting.pictures import LOSSLESS, WRITTEN, read_rgb
from secateur.matting.predicting import Predictor, open_predictor
from secateur.matting.preprocessing import video_size
from secateur.matting.refining import REFINEMENTS, resampled
from secateur.matting.video.animations import AnimationReader, is_animated
from secateur.matting.video.converting import convert_to_pictures, convert_video, encoding_for
from secateur.matting.video.reading import SUFFIXES as VIDEOS
from secateur.matting.video.reading import VideoReader
from secateur.runtimes.deployment import RUNTIMES as RUNTIMES_OF_FILES
from secateur.runtimes.network import FILES, Network
from secateur.runtimes.packages import is_installed, require
from secateur.runtimes.registry import RUNTIMES, check_able, runtime_of
from secateur.runtimes.session import Options

DEFAULT_MODEL = "modnet-small"
STREAM = "-"  # standard input, standard output
_EXAMPLE = (1, 3, 128, 128)  # sizes stay free, and a model runs on its example when it is opened

_log = logging.getLogger("secateur")


@dataclass(frozen=True)
class _Choices:
    """What was asked for, whatever the input is."""

    source: str
    output: str
    finish: Finish
    opened: Callable[[tuple[int, int] | None], Predictor]
    batch: int
    pattern: str | None
    resume: bool
    quiet: bool


def _background(_: click.Context, __: click.Parameter, value: str | None) -> Background | None:
    """Read a background: `blur`, a colour as CSS writes it, or a picture's path."""
    if value is None:
        return None
    if value == "blur":
        return blurred
    try:
        return plain(require("PIL.ImageColor").getrgb(value)[:3])
    except ValueError:
        if Path(value).exists():
            return backdrop(read_rgb(Path(value)))
    raise click.BadParameter(
        f"{value!r} is no background: not blur, no colour such as white or '#00b140', and no picture that is there."
    )


@click.command("matte")
@click.argument("source", metavar="INPUT")
@click.argument("output", metavar="OUTPUT")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, metavar="MODEL", help="Or FILE.onnx or FILE.xml.")
@weights_option
@click.option("--full", metavar="PKG:FN", help="The full-size model of a saved file that is not of the zoo.")
@click.option("--only-mask", "kind", flag_value="mask", help="The matte in grey, instead of a cut-out.")
@click.option("--trimap", "kind", flag_value="trimap", help="White where it is sure, black where not, grey between.")
@click.option(
    "--background",
    metavar="COLOUR|PICTURE|blur",
    callback=_background,
    help="What the person is put on; the old background, blurred.",
)
@click.option("--foreground", "clean", is_flag=True, help="Take the old background's shine out of soft edges.")
@click.option(
    "--refine", type=click.Choice(list(REFINEMENTS)), help="Follow the edges at full size; closed-form takes long."
)
@click.option("--glob", "pattern", metavar="PATTERN", help="Which files of a folder, such as '*.jpg'; all pictures.")
@click.option("--resume", is_flag=True, help="Leave results as they are that are there.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Pictures at once.")
@click.option("--on", "runtime", metavar="RUNTIME", help=f"Where the model runs: {', '.join(RUNTIMES)}.")
@precision_option
@click.option(
    "--int8", "precision", flag_value="int8", help="The same as --precision int8, which modnet-small has a file for."
)
@device_option
@threads_option
@json_option
@quiet_option
def command(  # noqa: PLR0913
    source: str,
    output: str,
    model: str,
    weights: str | None,
    full: str | None,
    kind: Kind | None,
    background: Background | None,
    clean: bool,
    refine: str | None,
    pattern: str | None,
    resume: bool,
    batch: int,
    runtime: str | None,
    precision: Any,
    device: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Cut the people out of INPUT: a picture, a folder of pictures with all folders in it, or a video.

    OUTPUT is a file or a folder. A picture becomes a transparent PNG (or WebP, TIFF), each picture of a folder NAME.png
    in the same place of OUTPUT; a video becomes a transparent WebM, MKV or MOV with its sound, or PNGs in a folder.
    An animated picture (GIF, WebP, APNG) becomes a video where OUTPUT is one, and otherwise its first frame is taken.
    With --background or --only-mask, JPEG and MP4 are fine, too. - is standard input or output.
    """
    if kind is not None and (background is not None or clean):
        raise click.UsageError("--only-mask and --trimap show no colours, so --background and --foreground do nothing.")
    if as_json and output == STREAM:
        raise click.UsageError("--json and the picture would both go to standard output. Name a file for one of them.")
    if precision == "int8" and weights is None and model in trained_networks():
        model = _int8_file(model, runtime)
    options = Options(_precision(precision, model), device or "cpu", threads or 0)
    runtime = runtime or RUNTIMES_OF_FILES.get(Path(model).suffix, "torch")
    check_able(runtime, options)
    if clean or refine == "closed-form":
        require("pymatting")

    def opened(size: tuple[int, int] | None) -> Predictor:
        with Progress(quiet).step(f"opening {model}"):
            network = network_of(model, weights, full)
            fixed = None if size is None else (batch, *video_size(*size))
            return open_predictor(network, runtime, options, fixed)

    finish = Finish(kind or "cut-out", background, REFINEMENTS[refine] if refine else resampled, clean)
    choices = _Choices(source, output, finish, opened, batch, pattern, resume, quiet)
    results = _run_for(source, output)(choices)
    if as_json:
        show_json(results)
    failed = [one for one in results if "error" in one]
    if failed and len(results) > 1:
        for one in failed:
            click.echo(f"  {one['error']}", err=True)
        raise SecateurError(f"{len(failed)} of {len(results)} pictures failed, see above; the rest is done.")


def _int8_file(model: str, runtime: str | None) -> str:
    """Return the INT8 file that comes with a trained network, of a runtime's format or of one that is installed.

    OpenVINO's first: it takes less time.

    Raises:
        RuntimeUnfitError: there is none, or none that the runtime opens.
    """
    files = _int8_files(model)
    if not files:
        others = "".join(f" Or take --model {name}, which has one." for name in trained_networks() if _int8_files(name))
        raise RuntimeUnfitError(
            f"{model} comes without a file in INT8. Write one first: secateur export {model} -o {model}.onnx --int8 "
            f"--calibrate DIR, and give it as --model {model}.onnx.{others}"
        )
    if runtime is None:
        runtime = min(files, key=lambda one: (not is_installed(one), one != "openvino"))
    elif runtime_of(runtime).name not in files:
        raise RuntimeUnfitError(
            f"{model} in INT8 comes as files for {' and '.join(files)}, and {runtime} opens none of them. "
            f"Say {' or '.join(f'--on {one}' for one in files)}, or leave --int8 out."
        )
    return str(files[runtime])


def _int8_files(model: str) -> dict[str, Path]:
    """Return the INT8 files that come with a trained network, by their runtimes."""
    found = ((runtime, shipped_int8(model, suffix)) for suffix, runtime in RUNTIMES_OF_FILES.items())
    return {runtime: file for runtime, file in found if file is not None}


def _precision(precision: str | None, model: str) -> Any:
    if precision != "int8":
        return precision or "fp32"
    if Path(model).suffix in FILES:
        return "fp32"  # of what the file does not say itself
    raise click.UsageError(
        f"{model} in INT8 wants pictures to be calibrated on. Write the file first: secateur export {model} "
        "-o FILE.onnx --int8 --calibrate DIR, and give that as --model."
    )


def network_of(model: str, weights: str | None, full: str | None) -> Network:
    """Return the network that was named, with its pre-processing."""
    if Path(model).suffix in FILES:
        return Network.of_file(Path(model).name, model)
    subject = find_subject(model, [_EXAMPLE], weights, full=full)
    warn_if_random(subject)
    network = Network.of_model(model, subject.model, subject.example)
    network.preprocessing = preprocessing_of(model, subject)
    return network


def _run_for(source: str, output: str) -> Callable[[_Choices], list[dict[str, Any]]]:
    """Return what treats an input."""
    place = Path(source)
    if source == STREAM:
        return _picture
    if place.is_dir():
        return _folder
    if not place.is_file():
        raise DataError(f"{source} is not there. Check the path.")
    suffix, animates = place.suffix.lower(), Path(output).suffix.lower() in VIDEOS
    moves = suffix in VIDEOS or (animates and (suffix == ".gif" or is_animated(place)))
    return _video if moves else _picture


def _picture(choices: _Choices) -> list[dict[str, Any]]:
    source: Path | bytes = Path(choices.source)
    if choices.source == STREAM:
        source = sys.stdin.buffer.read()
    if choices.output == STREAM:
        job = Job(source, sys.stdout.buffer)
    else:
        name = f"{source.stem}.png" if isinstance(source, Path) else "matte.png"
        target = Path(choices.output) / name if _is_folder(choices.output) else Path(choices.output)
        _check_target(target, choices)
        if choices.resume and target.exists():
            return []
        job = Job(source, target)
    (result,) = run_jobs([job], choices.opened(None), choices.finish)
    if result.error is not None:
        raise result.error
    _tell_frames(result, choices.quiet)
    if isinstance(job.target, Path) and not choices.quiet:
        Progress().say(f"Saved: {job.target}")
    return [_told(result)]


def _folder(choices: _Choices) -> list[dict[str, Any]]:
    source, output = Path(choices.source), Path(choices.output)
    if choices.output == STREAM:
        raise click.UsageError(f"{source} is a folder, and its results want one, too. Name it instead of -.")
    pictures = pictures_under(source, choices.pattern, without=output)
    targets = results_of(pictures, source, output)
    ensure_folder(output)
    _tell_videos(choices)
    jobs = [
        Job(picture, target)
        for picture, target in zip(pictures, targets, strict=True)
        if not (choices.resume and target.exists())
    ]
    progress = Progress(choices.quiet)
    for picture, target in zip(pictures, targets, strict=True):
        if target.name == f"{picture.name}.png":
            progress.say(f"{target} keeps the suffix of {picture.name}: there are others of that name.")
    if len(jobs) < len(pictures):
        progress.say(f"{len(pictures) - len(jobs)} of {len(pictures)} are there already.")
    return _run_all(jobs, choices) if jobs else []


def _tell_videos(choices: _Choices) -> None:
    found = [path for path in sorted(Path(choices.source).rglob("*")) if path.suffix.lower() in VIDEOS]
    if found and choices.pattern is None:
        names = ", ".join(path.name for path in found[:3]) + (", ..." if len(found) > 3 else "")
        Progress(choices.quiet).say(f"Videos of a folder are left out; give each by itself: {names}.")


def _run_all(jobs: Sequence[Job], choices: _Choices) -> list[dict[str, Any]]:
    predictor, results, start = choices.opened(None), [], time.perf_counter()
    try:
        with progress_bar(choices.quiet) as bar:
            task = bar.add_task("pictures", total=len(jobs))
            for result in run_jobs(jobs, predictor, choices.finish, choices.batch):
                _tell_frames(result, choices.quiet)
                results.append(_told(result))
                bar.advance(task)
    except KeyboardInterrupt:
        done = f"{len(results)} of {len(jobs)} pictures are done"
        raise KeyboardInterrupt(f"interrupted; {done}. --resume goes on with the rest.") from None
    seconds = time.perf_counter() - start
    Progress(choices.quiet).say(f"{len(jobs)} pictures in {seconds:.1f} s, {len(jobs) / seconds:.1f} a second")
    return sorted(results, key=lambda one: one["input"])


def _video(choices: _Choices) -> list[dict[str, Any]]:
    source, target = Path(choices.source), Path(choices.output)
    if choices.output == STREAM:
        raise click.UsageError("A video does not go to standard output. Name a file, or a folder for its frames.")
    in_pictures = _is_folder(choices.output)
    if in_pictures:
        ensure_folder(target)
    else:
        encoding_for(target, choices.finish)
        _check_same(source, target)
        check_writable(target)
        if choices.resume and target.exists():
            return []
    start = time.perf_counter()
    read = VideoReader if source.suffix.lower() in VIDEOS else AnimationReader
    with read(source) as reader, progress_bar(choices.quiet) as bar:
        predictor = choices.opened(reader.track.size)
        task = bar.add_task("frames", total=reader.track.count or None)

        def advance() -> None:
            bar.advance(task)

        if in_pictures:
            count = convert_to_pictures(
                reader, target, predictor, choices.finish, choices.batch, advance, choices.resume
            )
        else:
            count = convert_video(reader, target, predictor, choices.finish, choices.batch, advance)
    seconds = time.perf_counter() - start
    if reader.damage is not None:
        _log.warning("%s is damaged: %s. What was decoded is kept, %d frames.", source, reader.damage, count)
    Progress(choices.quiet).say(f"Saved: {target}, {count} frames in {seconds:.1f} s")
    height, width = reader.track.size
    told = {"input": str(source), "output": str(target), "height": height, "width": width, "frames": count}
    damage = {} if reader.damage is None else {"damage": reader.damage}
    return [told | {"seconds": round(seconds, 3)} | damage]


def _is_folder(output: str) -> bool:
    return Path(output).is_dir() or output.endswith(("/", "\\")) or not Path(output).suffix


def _check_target(target: Path, choices: _Choices) -> None:
    """Make sure, before the work, that a picture can be written."""
    suffix = target.suffix.lower()
    if suffix not in WRITTEN:
        raise click.UsageError(f"{target} is no picture that can be written. Give it {', '.join(sorted(WRITTEN))}.")
    if choices.finish.has_alpha and suffix not in LOSSLESS:
        raise click.UsageError(
            f"{target} would hold no transparency: {suffix} has none. Give it {', '.join(sorted(LOSSLESS))}, or a "
            "--background."
        )
    if choices.source != STREAM:
        _check_same(Path(choices.source), target)
    if _is_folder(choices.output):
        ensure_folder(target.parent)
    check_writable(target)


def _check_same(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        raise click.UsageError(f"{target} would be written over {source} itself. Give it another name.")


def _tell_frames(result: Result, quiet: bool) -> None:
    if result.frames > 1:
        source = result.job.source if isinstance(result.job.source, Path) else "The input"
        Progress(quiet).say(f"{source} holds {result.frames} pictures: the first is taken.")


def _told(result: Result) -> dict[str, Any]:
    """Return a result for machines."""
    source, target = (str(one) if isinstance(one, Path) else STREAM for one in (result.job.source, result.job.target))
    told: dict[str, Any] = {"input": source, "output": target, "seconds": round(result.seconds, 3)}
    if result.size is not None:
        told |= {"height": result.size[0], "width": result.size[1]}
    return told if result.error is None else told | {"error": str(result.error)}
