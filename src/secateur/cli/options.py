"""What users type: input shapes, shares and budgets, read strictly and refused in one sentence; and shared options."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import click

from secateur.graph.groups import Attention
from secateur.runtimes.registry import RUNTIMES
from secateur.runtimes.session import Precision

_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*)*")
_BUDGET = re.compile(r"(\d+\.?\d*|\.\d+)(e\d+)?[xkKMG]?")


def read_shapes(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Read input shapes such as 1x3x512x512; a callback of an option that may be repeated."""
    for value in values:
        if not _SHAPE.fullmatch(value):
            raise click.BadParameter(f"{value!r} is no shape. Write whole numbers joined by x, such as 1x3x512x512.")
    return tuple(tuple(int(part) for part in value.split("x")) for value in values)


def read_shares(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> float | dict[str, float] | None:
    """Read shares such as 0.5 or head=0; a callback of an option that may be repeated.

    One share alone stays a number; with others it is that of all the rest, under `"*"`.
    """
    shares: dict[str, float] = {}
    for value in values:
        layer, named, number = value.rpartition("=")
        if named and not layer:
            raise click.BadParameter(
                f"{value!r} names no layer. Write a name, pattern or type, such as Conv2d={number}."
            )
        word = layer if named else "*"
        if word in shares:
            raise click.BadParameter(f"{value!r} is the second share for {word}. Keep one of them.")
        shares[word] = _share(value, number, least_included=bool(named))
    return shares.get("*") if set(shares) <= {"*"} else shares


def _share(value: str, number: str, least_included: bool) -> float:
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not (0 < share < 1 or (least_included and share == 0)):
        least = "of at least 0" if least_included else "above 0"
        raise click.BadParameter(f"{value!r} is no share. Give a number {least} and below 1, such as 0.5.")
    return share


def read_budget(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Read a cost, absolute (1.3M) or relative to the full model (0.25x); a callback of an option."""
    if value is not None and not _BUDGET.fullmatch(value.strip()):
        raise click.BadParameter(f"{value!r} is no budget. Write a share such as 0.25x, or a count such as 1.3M.")
    return value


def read_pattern(_: click.Context, __: click.Parameter, value: str) -> str:
    """Read a regular expression; a callback of an option."""
    try:
        re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}.") from None
    return value


def _read_size(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is no size of pictures. Write height x width, such as 512x512.")
    return int(parts[0]), int(parts[-1])


input_option = click.option(
    "--input",
    "shapes",
    multiple=True,
    metavar="SHAPE",
    callback=read_shapes,
    help="Input shape, e.g. 1x3x512x512; once for each input.",
)
batch_option = click.option("--batch", type=click.IntRange(1), metavar="N", help="Inputs at once; one if left out.")
size_option = click.option(
    "--size", metavar="HxW", callback=_read_size, help="Of pictures, height x width; the model's own if left out."
)
weights_option = click.option(
    "--weights",
    metavar="FILE",
    help="Checkpoint to load, or random. Left out: what the model comes with; random, if it comes with none.",
)
full_option = click.option(
    "--model", "full", metavar="PKG:FN", help="The full-size model of a file that does not say it: your own, or modnet."
)
attention_option = click.option(
    "--attention",
    type=click.Choice(get_args(Attention)),
    default="auto",
    show_default=True,
    help="What goes of attention: channels of every head (dims), whole heads, or whichever can be made exact.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, metavar="N", show_default=True, help="Of everything random."
)
person_option = click.option(
    "--person", default="(.*)", metavar="REGEX", callback=read_pattern, help="What in a file's name says who it is."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of tables.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
precision_option = click.option(
    "--precision", type=click.Choice(get_args(Precision)), help="On the runtime of --on; fp32 if left out."
)
device_option = click.option("--device", metavar="DEVICE", help="Of the runtime of --on: cpu, cuda; cpu if left out.")
threads_option = click.option(
    "--threads", type=click.IntRange(1), metavar="N", help="For one call; the runtime decides if left out."
)


def place_options(told: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add where a model is to run; `told` says what follows from it."""
    on_option = click.option("--on", metavar="RUNTIME", help=f"{told}: {', '.join(RUNTIMES)}.")

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (threads_option, device_option, precision_option, on_option):
            command = option(command)
        return command

    return add


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every command takes that runs a model."""
    options = (input_option, weights_option, full_option, seed_option, json_option, quiet_option)
    for option in reversed(options):
        command = option(command)
    return command


def subject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every command takes that traces a model."""
    return attention_option(model_options(command))
