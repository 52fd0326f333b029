"""`secateur inspect FILE`: what a saved file says of itself, without reading its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from secateur.artifact.inspection import Inspection, as_data, inspect
from secateur.cli.console import show, show_json
from secateur.cli.options import json_option
from secateur.reporting.quality import compensation_line


@click.command("inspect")
@click.argument("file", metavar="FILE")
@json_option
def command(file: str, as_json: bool) -> None:
    """Show what FILE says of itself: the model, what was cut, how, and what was proved. No weights are read."""
    found = inspect(file)
    if as_json:
        show_json(as_data(found))
        return
    for name, value in _lines(found):
        show(f"{name:<12} {value}")


def _lines(found: Inspection) -> list[tuple[str, str]]:
    cut = sum(shape != found.plans[0].fingerprint.get(name, shape) for name, (_, shape) in found.tensors.items())
    kinds = sorted({dtype for dtype, _ in found.tensors.values()})
    lines = [
        ("file", f"{Path(found.path).name}, {found.bytes:,} bytes"),
        ("model", found.model),
        (
            "called with",
            "; ".join(", ".join("x".join(map(str, shape)) for shape in call.shapes) for call in found.plan.calls),
        ),
        ("tensors", f"{len(found.tensors)} of {', '.join(kinds)}, {cut} of them smaller than in the full-size model"),
        ("elements", f"{found.full_elements:,} → {found.elements:,}"),
        ("plans", str(len(found.plans))),
    ]
    told = {"compensation": compensation_line}
    lines += [(name, told.get(name, _told)(value)) for name, value in found.plan.recipe.items() if value]
    lines += [(name, _told(value)) for name, value in found.provenance.items() if value]
    lines += [("proof", _told(found.proof))] if found.proof else []
    return [(name, value) for name, value in lines if value]


def _told(value: Any) -> str:
    """Write a JSON value on one line, without what says nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(one)}" for name, one in value.items() if one not in (None, [], {}))
    if isinstance(value, list):
        return " ".join(map(_told, value))
    return f"{value:.2g}" if isinstance(value, float) else str(value)
