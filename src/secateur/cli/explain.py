"""`secateur explain MODEL [--at LAYER]`: with what a layer is coupled and through which code, or why it stays whole."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from secateur.cli.console import Progress, show, show_json
from secateur.cli.options import subject_options
from secateur.cli.subject import find_subject
from secateur.graph.explanation.wording import paragraph
from secateur.graph.groups import Attention
from secateur.graph.tracing import trace
from secateur.reporting.explanations import as_data, group_lines, overview, stay_lines
from secateur.reporting.tables import coverage_line


@click.command("explain")
@click.argument("model", metavar="MODEL")
@click.option("--at", "layer", metavar="LAYER", help="The layer to explain; the whole model if left out.")
@subject_options
def command(model: str, layer: str | None, attention: Attention, as_json: bool, quiet: bool, **chosen: Any) -> None:
    """Tell with what a layer is coupled and through which code, or why it stays whole and what would free it."""
    progress = Progress(quiet)
    with progress.step(f"building {model}"):
        subject = find_subject(model, **chosen)
    with progress.step("tracing it"):
        graph = trace(subject.model, subject.example, attention=attention)
    if layer is not None:
        with progress.step(f"following {layer}"):
            explanation = graph.explain(layer)
        if as_json:
            show_json({"model": subject.name, **as_data(explanation)})
        else:
            show(str(explanation))
        return
    with progress.step("following every group"):
        found = overview(graph)
    if as_json:
        show_json({"model": subject.name, **as_data(found)})
        return
    show(*paragraph(f"{subject.title}: {coverage_line(graph, found.coverage)}", rest=""), "")
    show(
        Text("Groups of channels that go together, and what would go with them", style="bold"), *group_lines(found), ""
    )
    show(Text("What stays, and why", style="bold"), *stay_lines(found), "")
    show(f"For one layer: secateur explain {model} --at LAYER")
