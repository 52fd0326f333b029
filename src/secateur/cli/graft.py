"""`secateur graft HOST DONOR --at NAME -o OUT`: put a pruned part back into the network that holds it."""

from __future__ import annotations

from dataclasses import asdict
from functools import reduce
from typing import Any, get_args

import click

from secateur.artifact.reading import read, restore
from secateur.artifact.writing import save
from secateur.cli.console import Progress, show, show_fitting, show_json
from secateur.cli.options import (
    full_option,
    input_option,
    json_option,
    quiet_option,
    seed_option,
    weights_option,
)
from secateur.cli.pictures import preprocessing_of
from secateur.cli.prune import check_files
from secateur.cli.subject import find_subject, full_size_model, warn_if_random
from secateur.graph.tracing import trace
from secateur.measurement.layers import compare_layers
from secateur.planning.rebasing import Conflict
from secateur.reporting.tables import layer_table, narrow_layer_table, proof_line, total_line
from secateur.reporting.wiring import draw_graft
from secateur.surgery.grafting import graft


@click.command("graft")
@click.argument("host", metavar="HOST")
@click.argument("donor", metavar="DONOR")
@click.option("--at", required=True, metavar="NAME", help="The part of HOST that takes the graft: backbone.model.")
@click.option("-o", "--output", required=True, metavar="OUT", help="The file to write: OUT.safetensors.")
@click.option(
    "--conflict",
    type=click.Choice(get_args(Conflict)),
    default="error",
    show_default=True,
    help="Where HOST couples the part more tightly: fail, let channels come back, or let more go.",
)
@click.option("--figure", metavar="FILE", help="Draw what was rewired: FILE.svg or FILE.png.")
@click.option("--donor-model", metavar="PKG:FN", help="The donor's full-size model, if it is not of the zoo.")
@full_option
@input_option
@weights_option
@seed_option
@json_option
@quiet_option
def command(  # noqa: PLR0913
    host: str,
    donor: str,
    at: str,
    output: str,
    conflict: Conflict,
    figure: str | None,
    donor_model: str | None,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Prune the part of HOST at NAME as the saved DONOR was pruned, with the donor's weights, and save the whole.

    HOST is a built-in name, a saved file, or package.module:callable; DONOR a file that `secateur prune` wrote of the
    part alone.
    """
    check_files(output, figure)
    progress = Progress(quiet)
    with progress.step(f"reading {donor}"):
        contents = read(donor)
        small = restore(contents, full_size_model(contents, donor_model, None))
        plan = reduce(lambda earlier, later: later.after(earlier), contents.plans)
    with progress.step(f"building {host}"):
        subject = find_subject(host, **chosen)
    warn_if_random(subject)
    with progress.step("grafting, and proving it"):
        grafted, whole = graft(subject.model, plan, at, small, subject.example, conflict)
    with progress.step("counting"):
        before, after = trace(subject.model, subject.example), trace(grafted, subject.example)
        change = compare_layers(subject.model, grafted, before, after)
    if figure is not None:
        with progress.step(f"drawing {figure}"):
            draw_graft(before, whole, at, figure)
    with progress.step(f"writing {output}"):
        provenance = {"model": subject.name, "weights": subject.weights, "donor": donor}
        save(output, grafted, whole, subject.earlier, preprocessing_of(host, subject), provenance)
    if as_json:
        proof = asdict(whole.proof)
        show_json({"host": subject.name, "donor": donor, "at": at, "output": output, "proof": proof,
                   "params": asdict(change.params), "macs": asdict(change.macs)})  # fmt: skip
        return
    title = f"{subject.title}, grafted at {at}, before → after"
    show_fitting(layer_table(change, title), narrow_layer_table(change, title))
    show(total_line(change), proof_line(whole.proof), f"Saved: {output}")
