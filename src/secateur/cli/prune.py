"""`secateur prune MODEL -o OUT`: cut a model to a budget, prove the result, save it with its plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from torch import nn

from secateur.artifact.atomic import check_writable
from secateur.artifact.writing import save
from secateur.cli.console import Progress, show, show_fitting, show_json
from secateur.cli.options import batch_option, place_options, read_budget, read_shares, size_option, subject_options
from secateur.cli.pictures import batches_of, preprocessing_of
from secateur.cli.subject import Subject, at_size, find_subject, part_of, warn_if_random
from secateur.errors import PlanError
from secateur.graph.tracing import trace
from secateur.measurement.layers import ModelChange, compare_layers
from secateur.models.registry import entry_of
from secateur.models.selection import select_function
from secateur.pipeline import prune
from secateur.planning.checks import RANKINGS
from secateur.planning.criteria.scoring import check_criterion
from secateur.planning.plans import Plan
from secateur.reporting.figures import check_figure, draw_widths
from secateur.reporting.quality import compensation_line, quality_line
from secateur.reporting.searching import draw_search, latency_curve, latency_line
from secateur.reporting.tables import layer_table, narrow_layer_table, proof_line, total_line

_BUDGETS = ("ratio", "macs", "params", "config", "latency", "quality")


@dataclass(frozen=True)
class _Pruned:
    model: nn.Module
    plan: Plan
    change: ModelChange


@click.command("prune")
@click.argument("model", metavar="MODEL")
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="The file to write, weights and plan: OUT.safetensors."
)
@click.option(
    "--ratio",
    multiple=True,
    metavar="[LAYER=]SHARE",
    callback=read_shares,
    help="Share of the channels that every group loses, such as 0.5; for a name, pattern or type: head=0, Linear=0.2.",
)
@click.option(
    "--macs", metavar="COST", callback=read_budget, help="Cap on multiply-accumulates: 0.25x of the model's, or 41.54M."
)
@click.option(
    "--params", metavar="COST", callback=read_budget, help="Cap on parameters: 0.25x of the model's, or 1.3M."
)
@click.option("--latency", metavar="TIME", help="Time to meet, as measured on --on: 0.5x of the model's own, or 60ms.")
@batch_option
@size_option
@place_options("Where the model is to run; channels stay multiples of its step")
@click.option("--quality", metavar="LOSS", help="How far --metric may fall: -1% of what it is, or -0.01.")
@click.option("--metric", metavar="PKG:FN", help="A function of a model that returns a number, the larger the better.")
@click.option(
    "--calibrate",
    metavar="DIR",
    help="Pictures like those of the use, without labels: channels are judged by them, and what is left makes up for "
    "what goes.",
)
@click.option(
    "--mimic",
    type=click.IntRange(0),
    metavar="STEPS",
    help="After --calibrate, gradient steps towards what the original computes in every layer.",
)
@click.option(
    "--allocate",
    type=click.Choice(["sensitivity"]),
    help="Measure on --calibrate what the model loses with each group, at four shares instead of one.",
)
@click.option("--config", metavar="FILE", help="List of sparsities by layer, YAML or JSON, as in NNI 2.x or 3.0.")
@click.option(
    "--criterion",
    metavar="NAME",
    help="How channels are judged: l1, l2, lp:3, fpgm, lamp, bn_scale, random, uniform; with --calibrate obs, "
    "activation, variance. Left out: obs with --calibrate, else l1.",
)
@click.option(
    "--ranking",
    type=click.Choice(RANKINGS),
    help="Channels compete within their group, all with all, with those of groups of the same structure, by the "
    "time they take on --on, or by what the model loses with them. Left out: time under --latency, loss under --macs, "
    "--params or --quality with --calibrate, else group.",
)
@click.option("--round-to", type=click.IntRange(1), metavar="N", help="Keep multiples of this many channels.")
@click.option(
    "--min-channels", metavar="N", type=click.IntRange(1), default=8, show_default=True, help="Keep at least so many."
)
@click.option(
    "--max-ratio",
    multiple=True,
    metavar="[LAYER=]SHARE",
    callback=read_shares,
    help="Share of its channels that a group loses at most; may name layers as --ratio does.",
)
@click.option(
    "--ignore", multiple=True, metavar="LAYER", help="Leave a layer's channels alone: a name, pattern or type."
)
@click.option(
    "--free-outputs", is_flag=True, help="What leaves the model may be narrower, too: a backbone on its way to a host."
)
@click.option("--part", metavar="NAME", help="Prune and save this part of MODEL alone, to graft it: backbone.model.")
@click.option(
    "--figure",
    metavar="FILE",
    help="Draw the channels before and after, and what --latency tried: FILE.svg or FILE.png.",
)
@subject_options
def command(  # noqa: PLR0913
    model: str,
    output: str,
    part: str | None,
    figure: str | None,
    batch: int | None,
    size: tuple[int, int] | None,
    shapes: tuple[tuple[int, ...], ...],
    weights: str | None,
    full: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Cut MODEL to a budget, prove the result, and save it with its plan.

    The budget is one of --ratio, --config, --latency, --quality, or --macs and/or --params.
    """
    budget = _budget(options)
    check_files(output, figure)
    progress = Progress(quiet)
    with progress.step(f"building {model}"):
        subject = at_size(find_subject(model, shapes, weights, seed, full), batch, size)
    preprocessing = preprocessing_of(model, subject)
    if part is not None:
        subject = part_of(subject, part)
    warn_if_random(subject)
    if options["calibrate"] is not None:
        with progress.step(f"reading {options['calibrate']}"):
            budget["calibrate"] = batches_of(options["calibrate"], subject, preprocessing)
    if options["metric"] is not None:
        budget["metric"] = select_function(options["metric"])
    pruned = _prune(subject, budget, seed, progress)
    if figure is not None:
        with progress.step(f"drawing {figure}"):
            searched = pruned.plan.recipe.get("latency")
            below = None if searched is None else partial(draw_search, found=searched)
            draw_widths(pruned.change, _title(subject, budget), figure, _backbone(pruned.model), below)
    with progress.step(f"writing {output}"):
        provenance = {"model": subject.name, "weights": subject.weights, "seed": seed}
        save(output, pruned.model, pruned.plan, subject.earlier, preprocessing, provenance)
    if as_json:
        show_json(_as_json(subject, pruned, output))
        return
    title = f"{subject.title}, before → after"
    show_fitting(layer_table(pruned.change, title), narrow_layer_table(pruned.change, title))
    if "latency" in pruned.plan.recipe:
        found = pruned.plan.recipe["latency"]
        show(latency_line(found), latency_curve(found))
    if "quality" in pruned.plan.recipe:
        show(quality_line(pruned.plan.recipe["quality"]))
    if "compensation" in pruned.plan.recipe:
        show(compensation_line(pruned.plan.recipe["compensation"]))
    show(total_line(pruned.change), proof_line(pruned.plan.proof), f"Saved: {output}")


def check_files(output: str, figure: str | None) -> None:
    """Make sure, before the long work, that a model and a picture can be written under these names."""
    if Path(output).suffix in (".pt", ".pth", ".bin", ".onnx", ".xml"):
        raise click.UsageError(f"{output} would be no file of that kind: a pruned model is saved as .safetensors.")
    check_writable(output)
    if figure is not None:
        check_figure(figure)
        check_writable(figure)


def _budget(options: dict[str, Any]) -> dict[str, Any]:
    given = [name for name in _BUDGETS if options[name] is not None]
    if not given:
        raise click.UsageError(
            "There is no budget. Give one of --ratio, --macs, --params, --latency, --quality or --config."
        )
    for alone in ("ratio", "latency", "quality"):
        if alone in given and len(given) > 1:
            other = next(name for name in given if name != alone)
            raise click.UsageError(f"--{alone} stands alone, and --{other} is another budget. Keep one of them.")
    if options["latency"] is not None and options["on"] is None:
        raise click.UsageError("--latency is a time on some runtime. Say on which: --on openvino.")
    if (options["quality"] is None) != (options["metric"] is None):
        raise click.UsageError("--quality and --metric go together: how far what may fall.")
    if options["mimic"] and options["calibrate"] is None:
        raise click.UsageError("--mimic learns from pictures. Give some: --calibrate DIR.")
    if options["allocate"] is not None and options["calibrate"] is None:
        raise click.UsageError("--allocate sensitivity measures on pictures. Give some: --calibrate DIR.")
    try:
        check_criterion(options["criterion"] or "l1")
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    return {name: value for name, value in options.items() if value not in (None, ())}


def _prune(subject: Subject, budget: dict[str, Any], seed: int, progress: Progress) -> _Pruned:
    with progress.step("pruning, and proving it"), progress.telling():
        small, plan = prune(subject.model, subject.example, seed=seed, **budget)
    with progress.step("counting"):
        before, after = trace(subject.model, subject.example), trace(small, subject.example)
        return _Pruned(small, plan, compare_layers(subject.model, small, before, after))


def _title(subject: Subject, budget: dict[str, Any]) -> str:
    given = ", ".join(f"{name} {_shown(budget[name])}" for name in _BUDGETS if name in budget)
    return (
        f"{subject.title}, pruned by {budget.get('criterion') or ('obs' if 'calibrate' in budget else 'l1')}: {given}"
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{layer}={share:g}" for layer, share in value.items())
    return Path(str(value)).name


def _backbone(model: nn.Module) -> str:
    entry = entry_of(model)
    return "" if entry is None else entry.backbone


def _as_json(subject: Subject, pruned: _Pruned, output: str) -> dict[str, Any]:
    change = pruned.change
    return {
        "model": subject.name,
        "weights": subject.weights,
        "output": output,
        "params": asdict(change.params),
        "macs": asdict(change.macs),
        "layers": [asdict(layer) for layer in change.layers],
        "recipe": pruned.plan.recipe,
        "proof": asdict(pruned.plan.proof),
    }
