"""`secateur verify OUT`: prove again that a saved model is what its plan promises."""

from __future__ import annotations

from dataclasses import asdict

import click
import torch

from secateur.artifact.reading import cut_by_all, read, restore
from secateur.cli.console import Progress, show, show_json
from secateur.cli.options import full_option, json_option, quiet_option, seed_option
from secateur.cli.subject import calls_of_plan, fitted, full_size_model, kind_of, widened
from secateur.reporting.tables import proof_line
from secateur.surgery.proof import verify


@click.command("verify")
@click.argument("out", metavar="OUT")
@click.option("--against", metavar="WEIGHTS", help="The original's checkpoint; random weights if left out.")
@full_option
@seed_option
@json_option
@quiet_option
def command(out: str, against: str | None, full: str | None, seed: int, as_json: bool, quiet: bool) -> None:
    """Prove again that the saved model OUT is what its plan promises.

    The numbers are computed on weights drawn at random. Only with the original's weights, --against, can OUT's own
    values be compared with them, too: do so unless OUT was trained since.
    """
    progress = Progress(quiet)
    with progress.step(f"reading {out}"):
        contents = read(out)
    with progress.step("building the original"):
        torch.manual_seed(seed)
        whole = full_size_model(contents, full, against)
        small = restore(contents, whole)
        whole.to(kind_of(small))  # so that values are compared in the precision of the file
        model, small = widened(cut_by_all(contents, contents.plans[:-1], whole)), widened(small)
        calls = fitted(calls_of_plan(contents.plan), small)
    with progress.step("proving"):
        proof = verify(model, small, contents.plan, calls, values=against is not None)
    basis = f"Compared with {against}." if against else "Pass the original's weights with --against to compare values."
    if as_json:
        show_json({"file": out, "against": against, "proof": asdict(proof)})
        return
    show(f"{out}: whole, and its checksum is right.", proof_line(proof), basis)
