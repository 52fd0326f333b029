"""`secateur runtimes`: what this machine has to run networks on."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from secateur.cli.console import show, show_json
from secateur.cli.options import json_option
from secateur.runtimes.machine import this_machine
from secateur.runtimes.registry import RUNTIMES, Presence, presence_of


@click.command("runtimes")
@json_option
def command(as_json: bool) -> None:
    """List the runtimes that this machine has: versions, devices, precisions; and how to get those that it lacks."""
    machine, found = this_machine(), [presence_of(name) for name in RUNTIMES]
    if as_json:
        show_json({"machine": asdict(machine), "runtimes": [asdict(one) for one in found]})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("runtime", "version", "devices and precisions"):
        table.add_column(title)
    for one in found:
        table.add_row(one.name, one.version or "missing", _devices(one) or one.remedy)
    show(f"{machine} ({machine.system})", table)


def _devices(presence: Presence) -> str:
    return "; ".join(f"{device}: {' '.join(precisions)}" for device, precisions in presence.devices)
