"""`secateur analyze MODEL`: what a model costs, what is coupled in it, and what may not be cut, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from secateur.cli.console import Progress, show, show_fitting, show_json
from secateur.cli.options import subject_options
from secateur.cli.subject import Subject, find_subject
from secateur.graph.calls import calls_of
from secateur.graph.groups import Attention, Graph
from secateur.graph.tracing import trace
from secateur.measurement.branches import BranchCost, branch_costs, total_cost
from secateur.measurement.prunable import coverage, group_shares, held_shares, protected_layers
from secateur.reporting.explanations import overview, stay_lines
from secateur.reporting.tables import branch_table, coverage_line, group_table, narrow_branch_table

REASONS = 3  # that are shown; `explain` shows more


@click.command("analyze")
@click.argument("model", metavar="MODEL")
@subject_options
def command(model: str, attention: Attention, as_json: bool, quiet: bool, **chosen: Any) -> None:
    """Show parameters and MACs by branch, what is coupled with what, and what is protected, and why."""
    progress = Progress(quiet)
    with progress.step(f"building {model}"):
        subject = find_subject(model, **chosen)
    with progress.step("tracing it"):
        graph = trace(subject.model, subject.example, attention=attention)
        branches = branch_costs(graph, subject.branches)
        inference = _inference_costs(subject)
    if as_json:
        show_json(_as_json(subject, graph, branches, inference))
        return
    title = f"{subject.title}, by branch"
    show_fitting(branch_table(branches, title, inference), narrow_branch_table(branches, title))
    show("")
    show(group_table(group_shares(graph)), coverage_line(graph, coverage(graph)), "")
    found = overview(graph)
    if found.stays or found.unreached:
        show(Text("What stays, and why", style="bold"), *stay_lines(found, REASONS))
        show(f"More: secateur explain {model} [--at LAYER]")


def _inference_costs(subject: Subject) -> tuple[BranchCost, ...]:
    example = subject.inference_example
    return branch_costs(trace(subject.model, example), subject.branches) if example else ()


def _as_json(
    subject: Subject, graph: Graph, branches: tuple[BranchCost, ...], inference: tuple[BranchCost, ...]
) -> dict[str, Any]:
    return {
        "model": subject.name,
        "class": type(subject.model).__name__,
        "input": [[list(tensor.shape) for tensor in call.tensors()] for call in calls_of(subject.example)],
        "weights": subject.weights,
        "counting": "params and macs: convolutions and linear layers with bias; all_params and all_macs: everything",
        "branches": [asdict(branch) for branch in branches],
        "total": asdict(total_cost(branches)),
        "inference_branches": [asdict(branch) for branch in inference],
        "prunable": asdict(coverage(graph)),
        "groups": [asdict(share) for share in group_shares(graph)],
        "held": [asdict(share) for share in held_shares(graph)],
        "protected": [asdict(entry) for entry in protected_layers(graph)],
        "unreached": list(graph.unreached),
    }
