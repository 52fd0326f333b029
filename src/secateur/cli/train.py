"""`secateur train MODEL --data DIR --out DIR`: train a matting network, or win back what pruning cost it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from torch import nn

from secateur.artifact.writing import save
from secateur.cli.console import Progress, show, show_json
from secateur.cli.interruption import stop_if_asked
from secateur.cli.options import full_option, json_option, quiet_option, seed_option, weights_option
from secateur.cli.subject import Subject, find_subject
from secateur.graph.tracing import trace
from secateur.matting.compositing import Scene
from secateur.matting.recovering import Matting
from secateur.matting.splitting import Split, kept_foregrounds, split_portraits
from secateur.models.backbones import load_backbone
from secateur.models.registry import entry_of
from secateur.planning.plans import Plan, fingerprint_of
from secateur.reporting.progress import draw_progress
from secateur.runtimes.packages import is_installed
from secateur.training.distilling import Teacher
from secateur.training.fitting import Progress as Stand
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from secateur.training.speed import faster_precision, seconds_a_step

PRECISIONS = ("auto", "fp32", "bf16")
TAUGHT = "backbone"  # the student's backbone learns at a third of the rate: it has seen more than this data


@click.command("train")
@click.argument("model", metavar="MODEL")
@click.option("--data", multiple=True, required=True, metavar="DIR", help="Portraits with mattes; may be repeated.")
@click.option("--backgrounds", multiple=True, metavar="DIR", help="Pictures without people; may be repeated.")
@click.option("--out", required=True, metavar="DIR", help="Where the model, checkpoints, tables and mattes go.")
@click.option("--teacher", metavar="MODEL", help="The unpruned model, to learn from as well.")
@click.option("--backbone", metavar="FILE", help="Weights of torchvision's mobilenet_v2 for MODEL's backbone.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="How often every person is seen.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), metavar="N", help="Or how long it may take.")
@click.option("--size", type=click.IntRange(32), default=512, show_default=True, help="Pixels of a sample's sides.")
@click.option(
    "--short", nargs=2, type=click.FloatRange(16), metavar="LEAST MOST", help="Pixels of a whole picture's short side."
)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Samples a step.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="auto: the faster.")
@click.option("--held-out", type=click.FloatRange(0, 1, max_open=True), default=0.15, show_default=True, help="Share.")
@click.option("--person", default="(.*)", metavar="REGEX", help="What in a file's name says who it is.")
@click.option("--patience", type=click.IntRange(0), default=0, help="Validations without a better one before the end.")
@click.option("--freeze-norms", is_flag=True, help="Batch norms keep their statistics.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that make samples.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="That train, side by side.")
@click.option("--save-every", type=click.IntRange(1), default=50, show_default=True, help="Steps between checkpoints.")
@click.option("--validate-every", type=click.IntRange(1), default=200, show_default=True, help="Steps.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@weights_option
@full_option
@seed_option
@json_option
@quiet_option
def command(  # noqa: PLR0913
    model: str,
    data: tuple[str, ...],
    backgrounds: tuple[str, ...],
    out: str,
    teacher: str | None,
    backbone: str | None,
    weights: str | None,
    full: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train MODEL on portraits and on composites that are made of them, with the losses of MODNet.

    MODEL is a built-in name or a saved file, pruned or not. People in --held-out are not trained on: they say how good
    it is. --out gets model.safetensors, which is as good as the best validation, mattes/ with some of
    theirs at each validation, and all that --resume needs.
    """
    if (options["epochs"] is None) == (options["minutes"] is None):
        raise click.UsageError("Say how long: --epochs or --minutes.")
    progress, folder = Progress(quiet), Path(out)
    with progress.step(f"building {model}"):
        subject = find_subject(model, (), weights, seed, full)
        if backbone is not None:
            load_backbone(subject.model, backbone)
    with progress.step("finding people, and estimating their own colours unless they are kept"):
        split = split_portraits(data, backgrounds, options["held_out"], options["person"])
        kept_foregrounds(split)
    task = _task(subject, split, teacher, options["size"], seed)
    scene = Scene(options["size"], options["short"] or (0.75 * options["size"], 1.2 * options["size"]))
    samples = split.training(scene, seed)
    recipe = _recipe(subject, samples, task, split, options, seed)
    progress.say(
        f"  {len(split.people)} people and {len(split.backgrounds)} backgrounds to train on, {len(split.held_out)} "
        f"people held out; {recipe.steps} steps of {recipe.batch} in {recipe.precision}"
    )
    try:
        found = fit(
            subject.model,
            samples,
            task,
            recipe,
            folder,
            options["resume"],
            options["processes"],
            _teller(progress),
            _drawer(task, folder) if is_installed("matplotlib") else None,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {folder} has all that --resume needs to go on.") from None
    plans = subject.earlier or (_nothing_cut(subject),)
    place = folder / "model.safetensors"
    save(place, found, plans[-1], plans[:-1])
    errors = dict(task.validate(found))
    if as_json:
        show_json({"model": str(place), "steps": recipe.steps, "errors": errors})
        return
    show(f"{place}: {', '.join(f'{name} {value:.4f}' for name, value in errors.items()) or 'not validated'}")


def _task(subject: Subject, split: Split, teacher: str | None, size: int, seed: int) -> Matting:
    entry = entry_of(subject.model)
    prepared = (entry.mean, entry.std) if entry is not None else ((0.5,) * 3, (0.5,) * 3)
    task = Matting(*prepared, validation=split.validation(size, seed))
    if teacher is None:
        return task
    whole = find_subject(teacher).model
    plan = subject.earlier[0] if subject.earlier else None
    for later in subject.earlier[1:]:
        plan = later.after(plan) if plan is not None else later
    layers = entry.features if entry is not None else ()
    return replace(task, teacher=Teacher(whole, plan, layers))


def _recipe(subject: Subject, samples: Any, task: Matting, split: Split, options: dict[str, Any], seed: int) -> Recipe:
    """Return how to train; what was measured for it is kept with the run, so that a resumed one does the same."""
    slower = {TAUGHT: 1 / 3, f"lr_branch.{TAUGHT}": 1 / 3}
    base = Recipe(
        steps=1,
        seed=seed,
        slower=slower,
        frozen_norms=options["freeze_norms"],
        **{name: options[name] for name in ("batch", "rate", "workers", "save_every", "validate_every", "patience")},
    )
    precision = options["precision"]
    if precision == "auto":
        precision = faster_precision(subject.model, samples, task, base)
    base = replace(base, precision=precision)
    if options["minutes"] is not None:
        steps = options["minutes"] * 60 / seconds_a_step(subject.model, samples, task, base)
    else:
        steps = options["epochs"] * len(split.people) / base.batch
    return replace(base, steps=max(1, round(steps)))


def _teller(progress: Progress) -> Any:
    last = [time.monotonic()]

    def tell(stand: Stand) -> None:
        stop_if_asked()
        if time.monotonic() - last[0] < 5 and stand.step != stand.steps:
            return
        last[0] = time.monotonic()
        parts = ", ".join(f"{name} {value:.4f}" for name, value in {**stand.losses, **stand.errors}.items())
        progress.say(f"  step {stand.step} of {stand.steps}: {parts}; {stand.left / 60:.0f} minutes left")

    return tell


def _drawer(task: Matting, folder: Path) -> Any:
    def draw(step: int, model: nn.Module) -> None:
        (folder / "mattes").mkdir(exist_ok=True)
        draw_progress(task, model, step, folder / "mattes" / f"{step:06}.png")

    return draw


def _nothing_cut(subject: Subject) -> Plan:
    graph = trace(subject.model, subject.example)
    return Plan(keep={}, fingerprint=fingerprint_of(graph), calls=graph.calls)
