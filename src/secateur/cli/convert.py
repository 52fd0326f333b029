"""`secateur convert IN OUT`: between secateur's file, checkpoints, plans alone, and whole models in pickles."""

from __future__ import annotations

import click

from secateur.artifact.atomic import check_writable
from secateur.artifact.conversion import convert
from secateur.cli.console import Progress, show, show_json
from secateur.cli.options import full_option, json_option, quiet_option
from secateur.models.selection import select


@click.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@full_option
@click.option("--plan", metavar="PLAN.json", help="The plan, for a checkpoint or a pickle, which have none.")
@click.option("--whole", is_flag=True, help="Write the whole model in a pickle (OUT.pth), not its parameters alone.")
@click.option("--trust", is_flag=True, help="Unpickle IN, which can run any code: only for files of your own.")
@json_option
@quiet_option
def command(
    source: str,
    target: str,
    full: str | None,
    plan: str | None,
    whole: bool,
    trust: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write what is in IN to OUT, in the form that OUT's name asks for.

    OUT.safetensors is secateur's file, OUT.pth the parameters alone (--whole: the model in a pickle), OUT.json the plan
    alone. IN is a file of secateur, a checkpoint together with --plan and --model, or, with --trust, a whole model.
    """
    check_writable(target)
    with Progress(quiet).step(f"converting {source}"):
        done = convert(source, target, None if full is None else select(full).model, plan, trust, whole)
    if as_json:
        show_json({"source": source, "target": target, "written": done})
        return
    show(f"{target}: {done}.")
