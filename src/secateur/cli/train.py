"""`secateur train MODEL --data DIR --out DIR`: train a matting network, or win back what pruning cost it."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from secateur.artifact.format import digest
from secateur.artifact.writing import save
from secateur.cli.console import Progress, show, show_json
from secateur.cli.interruption import stop_if_asked
from secateur.cli.options import (
    full_option,
    json_option,
    person_option,
    quiet_option,
    read_budget,
    seed_option,
    weights_option,
)
from secateur.cli.pictures import batches_of, preprocessing_of
from secateur.cli.subject import RANDOM, Subject, find_subject, is_file
from secateur.graph.tracing import trace
from secateur.matting.compositing import Composites, Scene
from secateur.matting.locating import Locating, Locator
from secateur.matting.preprocessing import MEAN, STD
from secateur.matting.recovering import Matting
from secateur.matting.splitting import Split, keep_foregrounds, split_portraits
from secateur.models.backbones import load_backbone
from secateur.models.registry import entry_of
from secateur.pipeline import prune_steps
from secateur.planning.plans import Plan, fingerprint_of
from secateur.reporting.progress import draw_progress
from secateur.runtimes.packages import is_installed
from secateur.training.checkpoints import recorded_recipe
from secateur.training.distilling import Teacher
from secateur.training.fitting import Progress as Stand
from secateur.training.fitting import Task, fit, leads
from secateur.training.int8 import AsINT8
from secateur.training.recipe import Recipe
from secateur.training.speed import faster_precision, seconds_a_batch

PRECISIONS = ("auto", "fp32", "bf16")
SLOWER = 1 / 3  # of the rate for the backbone, which has seen more than these data


OUT = "trained"


@click.command("train")
@click.argument("model", metavar="MODEL")
@click.option("--data", multiple=True, required=True, metavar="DIR", help="Portraits with mattes; may be repeated.")
@click.option("--backgrounds", multiple=True, metavar="DIR", help="Pictures without people; may be repeated.")
@click.option("--out", metavar="DIR", help=f"Where the model, checkpoints, tables and mattes go; {OUT} if left out.")
@click.option("--teacher", metavar="MODEL", help="The unpruned model, to learn from as well.")
@click.option("--teacher-weights", metavar="FILE", help="The teacher's checkpoint, where it is a built-in name.")
@click.option("--backbone", metavar="FILE", help="Weights of torchvision's mobilenet_v2 for MODEL's backbone.")
@click.option("--macs", metavar="COST", callback=read_budget, help="Prune to these MACs, then train: 0.25x.")
@click.option(
    "--steps", type=click.IntRange(1), default=1, metavar="N", help="Prune in so many steps, trained after each."
)
@click.option("--calibrate", metavar="DIR", help="Pictures that say which channels go, and make up for them.")
@click.option(
    "--epochs", type=click.IntRange(1), metavar="N", help="How often every person is seen: this or --minutes."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="How long it may take, all --steps together.",
)
@click.option("--size", type=click.IntRange(32), default=512, show_default=True, help="Pixels of a sample's sides.")
@click.option(
    "--short",
    nargs=2,
    type=click.FloatRange(16),
    metavar="LEAST MOST",
    help="Pixels of a whole picture's short side; 0.75 and 1.2 times --size if left out.",
)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Samples a step.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="auto: the faster.")
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.15,
    show_default=True,
    help="Share of the people, and of the backgrounds, that is not trained on.",
)
@person_option
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="End after so many validations without a better one; 0: never.",
)
@click.option("--cross-entropy", is_flag=True, help="The semantic loss, instead of the squared error as published.")
@click.option(
    "--only-semantic", is_flag=True, help="Train what finds people alone, by cross entropy, in less time a step."
)
@click.option("--int8", is_flag=True, help="Train it as it will be in INT8, so that it loses little there.")
@click.option(
    "--keep-float", multiple=True, metavar="LAYER", help="A layer that --int8 leaves as it is, as in `export`."
)
@click.option("--freeze-norms", is_flag=True, help="Batch norms keep their statistics.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that make samples.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="How many train, as one would.")
@click.option("--save-every", type=click.IntRange(1), default=50, show_default=True, help="Steps between checkpoints.")
@click.option(
    "--validate-every", type=click.IntRange(1), default=200, show_default=True, help="Steps between validations."
)
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
    out: str | None,
    teacher: str | None,
    teacher_weights: str | None,
    backbone: str | None,
    weights: str | None,
    full: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train MODEL on portraits and on composites that are made of them, with the losses of MODNet.

    MODEL is a built-in name or a saved file, pruned or not. With --macs it is pruned, in --steps with training after
    each, beside itself as it was if no --teacher is named. People in --held-out are not trained on: they say how good
    it is. With --only-semantic the branches that draw edges stay as they are, and still fit: it may come last. --out
    gets model.safetensors, which is as good as the best validation, mattes/ with some of theirs at each validation (not
    with --only-semantic), and all that --resume needs.
    """
    if teacher_weights is not None and teacher is None:
        raise click.UsageError("--teacher-weights are a teacher's. Name it with --teacher, or leave them out.")
    _check({**options, "teacher": teacher})
    if out is None and leads() and Path(OUT).exists() and not options["resume"]:
        raise click.UsageError(f"{OUT} is there already. Go on with --resume, or name another folder with --out.")
    progress, folder = Progress(quiet or not leads()), Path(out or OUT)
    with progress.step(f"building {model}"):
        untrained = RANDOM if backbone is not None and not is_file(model) else None
        subject = find_subject(model, (), weights or untrained, seed, full)
        if backbone is not None:
            load_backbone(subject.model, backbone)
        whole = find_subject(teacher, weights=teacher_weights).model if teacher is not None else None
    with progress.step("finding people, and estimating their own colours unless they are kept"):
        split = split_portraits(data, backgrounds, options["held_out"], options["person"])
        keep_foregrounds(split)
    progress.say(
        f"  {len(split.people)} people and {len(split.backgrounds)} backgrounds to train on, "
        f"{len(split.held_out)} people held out"
    )
    preprocessing = preprocessing_of(model, subject)
    course = _Course(
        subject,
        preprocessing,
        split,
        {**options, "teacher": teacher, "teacher_weights": teacher_weights},
        seed,
        progress,
    )
    for network in (subject.model, whole):
        if network is not None:
            course.task.check(network)
    try:
        found, plans = course.pruned(whole, folder) if options["macs"] else course.as_it_is(whole, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {folder} has all that --resume needs to go on.") from None
    if not leads():  # one process of several is enough to save and to tell
        return
    place = folder / "model.safetensors"
    save(place, found, plans[-1], plans[:-1], preprocessing)
    errors = dict(course.task.validate(found))
    if as_json:
        show_json({"model": str(place), "errors": errors})
        return
    show(f"{place}: {', '.join(f'{name} {value:.4f}' for name, value in errors.items()) or 'not validated'}")


def _check(options: dict[str, Any]) -> None:
    if (options["epochs"] is None) == (options["minutes"] is None):
        raise click.UsageError("Say how long: --epochs or --minutes.")
    if options["macs"] is None and (options["steps"] > 1 or options["calibrate"] is not None):
        raise click.UsageError("--steps and --calibrate are of pruning. Say how far with --macs, or leave them out.")
    if options["processes"] > 1 and options["minutes"] is not None:
        raise click.UsageError("Each of several --processes would find another number of steps. Give --epochs instead.")
    if options["only_semantic"] and (options["teacher"] or options["macs"] is not None):
        raise click.UsageError("--only-semantic has no teacher, and prunes nothing. Leave --teacher and --macs out.")
    if options["only_semantic"] and options["int8"]:
        raise click.UsageError("--int8 is of a whole network. Leave --only-semantic out.")
    if options["keep_float"] and not options["int8"]:
        raise click.UsageError("--keep-float says what --int8 leaves as it is. Add --int8, or leave it out.")


@dataclass(frozen=True)
class _Course:
    """What is the same for every network that one command trains."""

    subject: Subject
    preprocessing: dict[str, Any] | None
    split: Split
    options: dict[str, Any]
    seed: int
    progress: Progress

    @cached_property
    def task(self) -> Matting:
        """The losses without a teacher, and the people to validate on."""
        told = self.preprocessing or {}
        prepared = tuple(told.get("mean", MEAN)), tuple(told.get("std", STD))
        validation = self.split.validation(self.options["size"], self.seed)
        int8 = AsINT8(self.options["keep_float"]) if self.options["int8"] else None
        return Matting(*prepared, entropy=self.options["cross_entropy"], int8=int8, validation=validation)

    def as_it_is(self, teacher: nn.Module | None, folder: Path) -> tuple[nn.Module, Sequence[Plan]]:
        """Train the subject, and return it with the plans that it was made by before."""
        plans = self.subject.earlier or (_nothing_cut(self.subject),)
        return self.trained(self.subject.model, _joined(plans), teacher, folder), plans

    def pruned(self, teacher: nn.Module | None, folder: Path) -> tuple[nn.Module, Sequence[Plan]]:
        """Prune the subject in steps and train after each; return it with all plans."""
        full, steps, pictures = self.subject.model, self.options["steps"], self.options["calibrate"]
        earlier = self.subject.earlier
        batches = None if pictures is None else batches_of(pictures, self.subject, self.preprocessing)
        stages = prune_steps(full, self.subject.example, steps, macs=self.options["macs"], calibrate=batches)
        found, plan = full, _nothing_cut(self.subject)
        for number, (small, plan) in enumerate(stages, 1):
            self.progress.say(f"  step {number} of {steps}: {plan}")
            told, by = (_joined((*earlier, plan)), teacher) if teacher is not None else (plan, copy.deepcopy(full))
            found = self.trained(small, told, by, folder if number == steps else folder / f"step-{number}")
            small.load_state_dict(found.state_dict())
        return found, (*earlier, plan)

    def trained(self, model: nn.Module, plan: Plan, teacher: nn.Module | None, folder: Path) -> nn.Module:
        """Train a network that `plan` made of the teacher."""
        if self.options["only_semantic"]:
            return self.located(model, folder)
        entry = entry_of(model)
        layers = entry.features if entry is not None else ()
        task = self.task if teacher is None else replace(self.task, teacher=Teacher(teacher, plan, layers))
        slower = entry.backbone if entry is not None else ""
        return self.fitted(model, task, slower, folder, _drawer(task, folder) if is_installed("matplotlib") else None)

    def located(self, model: nn.Module, folder: Path) -> nn.Module:
        """Train the part of a network that tells where people are."""
        locator = Locator(model)
        task = Locating(self.task.mean, self.task.std, self.task.validation)
        locator.load_state_dict(self.fitted(locator, task, "lr_branch.backbone", folder).state_dict())
        return model.eval()

    def fitted(self, model: nn.Module, task: Task, slower: str, folder: Path, on_validation: Any = None) -> nn.Module:
        """Train a network in a task as the options say."""
        size = self.options["size"]
        scene = Scene(size, self.options["short"] or (0.75 * size, 1.2 * size))
        samples = self.split.training(scene, self.seed)
        recipe = self.recipe(model, samples, task, slower, folder)
        self.progress.say(f"  {recipe.steps} batches of {recipe.batch} in {recipe.precision}")
        resume, processes = self.options["resume"], self.options["processes"]
        return fit(model, samples, task, recipe, folder, resume, processes, _teller(self.progress), on_validation)

    @property
    def setting(self) -> dict[str, Any]:
        """What decides the result beside the recipe, as a checkpoint records it."""
        people, pictures = [one.name for one in self.split.people], [path.name for path in self.split.backgrounds]
        given = (
            "size", "short", "held_out", "person", "teacher", "teacher_weights", "cross_entropy", "only_semantic",
            "int8", "keep_float", "macs", "steps", "calibrate",
        )  # fmt: skip
        names = {"data": people, "backgrounds": pictures}
        told = {name: f"{len(one)} files, {digest(one)[:12]}" for name, one in names.items()}
        chosen = {name: self.options[name] for name in given if self.options[name] not in (None, False, ())}
        return told | {name: list(one) if isinstance(one, tuple) else one for name, one in chosen.items()}

    def recipe(self, model: nn.Module, samples: Composites, task: Task, slower: str, folder: Path) -> Recipe:
        """Return how to train; what was measured for it is what a resumed run did measure at its start."""
        names = ("batch", "rate", "workers", "save_every", "validate_every", "patience")
        base = Recipe(
            steps=1,
            seed=self.seed,
            slower={slower: SLOWER} if slower else {},
            frozen_norms=self.options["freeze_norms"],
            setting=self.setting,
            **{name: self.options[name] for name in names},
        )
        known = recorded_recipe(folder) if self.options["resume"] else {}
        precision = self.options["precision"]
        if precision == "auto" and self.options["processes"] > 1:  # all need the same, and each would measure its own
            precision = "bf16" if torch.cuda.is_available() else "fp32"
        elif precision == "auto":
            precision = known.get("precision") or faster_precision(model, samples, task, base)
        base = replace(base, precision=precision)
        if self.options["minutes"] is None:
            steps = self.options["epochs"] * len(self.split.people) / base.batch
        elif "steps" in known:
            return replace(base, steps=known["steps"])
        else:
            steps = self.options["minutes"] * 60 / seconds_a_batch(model, samples, task, base)
        return replace(base, steps=max(1, round(steps / self.options["steps"])))


def _joined(plans: Sequence[Plan]) -> Plan:
    """Return the plan that does of the full-size model what several did one after the other."""
    first, *rest = plans
    for plan in rest:
        first = plan.after(first)
    return first


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
