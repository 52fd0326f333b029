"""`secateur bench A [B ...]`: how long networks take in the runtimes that they are deployed to, side by side."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import click

from secateur.artifact.atomic import check_writable
from secateur.cli.console import progress_bar, show, show_json
from secateur.cli.networks import find_networks
from secateur.cli.options import model_options, size_option
from secateur.cli.subject import branches_of
from secateur.errors import SecateurError
from secateur.measurement.contest import Cell, contest
from secateur.measurement.profiling import Profile, profile
from secateur.reporting.figures import check_figure
from secateur.reporting.latency import draw_latency, failures, latency_json, latency_tables, profile_tables
from secateur.runtimes.machine import this_machine
from secateur.runtimes.network import Network
from secateur.runtimes.registry import RUNTIMES, presence_of, runtime_of
from secateur.runtimes.session import Options, Precision
from secateur.runtimes.shapes import Sizes

_log = logging.getLogger("secateur")


def _numbers(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in value.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise click.BadParameter(f"{value!r} is no list of batches. Write whole numbers from 1, such as 1,2,4,8.")
    return tuple(dict.fromkeys(found))


def _words(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


@click.command("bench")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--batch", "batches", default="1", show_default=True, metavar="N,...", callback=_numbers, help="Inputs at once."
)
@size_option
@click.option(
    "--on",
    "runtimes",
    default="torch",
    show_default=True,
    metavar="R,...",
    callback=_words,
    help=f"Runtimes: {', '.join(RUNTIMES)}; all for those that are installed.",
)
@click.option(
    "--precision",
    "precisions",
    default="fp32",
    show_default=True,
    metavar="P,...",
    callback=_words,
    help=f"Of weights and arithmetic: {', '.join(get_args(Precision))}.",
)
@click.option(
    "--device", "devices", default="cpu", show_default=True, metavar="D,...", callback=_words, help="Where: cpu, cuda."
)
@click.option("--threads", type=click.IntRange(0), default=0, metavar="N", help="For one call; 0: the runtime decides.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=5.0, show_default=True, metavar="S", help="For each row, at least."
)
@click.option("--figure", metavar="FILE", help="Draw time by batch: FILE.svg or FILE.png.")
@click.option(
    "--by-layer", is_flag=True, help="Also where the time goes, by layer and branch, where the runtime tells."
)
@model_options
def command(  # noqa: PLR0913
    models: tuple[str, ...],
    batches: tuple[int, ...],
    size: tuple[int, int] | None,
    runtimes: tuple[str, ...],
    precisions: tuple[Precision, ...],
    devices: tuple[str, ...],
    threads: int,
    seconds: float,
    figure: str | None,
    by_layer: bool,
    shapes: tuple[tuple[int, ...], ...],
    weights: str | None,
    full: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Time MODELs side by side in the runtimes that they are deployed to.

    A MODEL is a built-in name, a saved file, package.module:callable, an ONNX file, or the .xml of an OpenVINO IR. Each
    runs in a process of its own, in turns with the others, with as much memory as the machine can spare; what does not
    fit is OOM. Ratios are to the first MODEL, with their 95 % interval.
    """
    if figure is not None:
        check_figure(figure)
        check_writable(figure)
    setups = _setups(runtimes, precisions, devices, threads)
    networks = find_networks(models, shapes, weights, full, seed)
    height, width = size or (None, None)
    cells: list[Cell] = []
    profiles: list[_Profiles] = []
    rows = [(runtime, options, batch) for runtime, options in setups for batch in batches]
    with progress_bar(quiet) as bar:
        task = bar.add_task("", total=len(rows))
        for runtime, options, batch in rows:
            title = f"{runtime} {options.precision} batch {batch}"
            if not quiet and not sys.stderr.isatty():
                click.echo(f"  {title}", err=True)
            cells += contest(
                networks,
                runtime,
                options,
                Sizes(batch, height, width),
                seconds,
                lambda text, title=title: bar.update(task, description=f"{title}: {text}"),
            )
            if by_layer:
                bar.update(task, description=f"{title}: by layer")
                profiles.append(_profiles(title, networks, runtime, options, Sizes(batch, height, width)))
            bar.advance(task)
    machine = this_machine()
    if figure is not None:
        draw_latency(cells, f"{', '.join(network.name for network in networks)} on {machine.processor}", figure)
    if as_json:
        found = {"machine": asdict(machine), "threads": threads, "cells": latency_json(cells)}
        show_json(found | ({"profiles": [one.as_json() for one in profiles]} if by_layer else {}))
        return
    show(f"{machine}; {threads or 'as many as they take'} threads", *latency_tables(cells), *failures(cells))
    for one in profiles:
        show(*one.tables(networks))
    if not any(cell.milliseconds for cell in cells):
        raise SecateurError("Nothing could be measured. The lines above say why.")


@dataclass(frozen=True)
class _Profiles:
    """Where the time of several networks goes in one setup, or why that is not known."""

    title: str
    found: list[Profile]
    why: list[str]

    def tables(self, networks: Sequence[Network]) -> list[Any]:
        """Return what is shown to people."""
        form = next((network.form for network in networks if network.form is not None), None)
        branches = {} if form is None else branches_of(form.model)
        tables = profile_tables(self.found, self.title, branches) if self.found else []
        return [*tables, *(f"{one.network}: {one}" for one in self.found), *self.why]

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {"setup": self.title, "networks": [asdict(one) for one in self.found], "failures": self.why}


def _profiles(title: str, networks: Sequence[Network], runtime: str, options: Options, sizes: Sizes) -> _Profiles:
    found, why = [], []
    for network in networks:
        try:
            found.append(profile(network, runtime, options, sizes))
        except SecateurError as error:
            why.append(str(error))
    return _Profiles(title, found, list(dict.fromkeys(why)))


def _setups(
    runtimes: Sequence[str], precisions: Sequence[Precision], devices: Sequence[str], threads: int
) -> list[tuple[str, Options]]:
    """Return what runs on what; what of several precisions or devices a runtime lacks is passed over, and told."""
    installed = [name for name in RUNTIMES if not presence_of(name).remedy] if runtimes == ("all",) else list(runtimes)
    found, passed = [], []
    for name in installed:
        runtime_of(name)
        able = dict(presence_of(name).devices)
        unknown = () if able else tuple(precisions)  # what is not installed tells so when it is opened
        for device in devices:
            for precision in precisions:
                options = Options(precision, device, threads)
                if len(precisions) * len(devices) * len(installed) == 1 or precision in able.get(device, unknown):
                    found.append((name, options))
                else:
                    passed.append(f"{name} {precision} on {device}")
    if not found:
        lacking = f"{', '.join(precisions)} on {', '.join(devices)}"
        raise click.UsageError(
            f"None of {', '.join(installed)} computes in {lacking}. List what does: secateur runtimes."
        )
    if passed:
        _log.warning("Passed over, as this machine has it not: %s.", "; ".join(passed))
    return found
