"""The command `secateur`: finds the command, runs it, and turns what went wrong into one line and an exit code."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from typing import Any, NoReturn

import click

from secateur import __version__
from secateur.cli.interruption import listen
from secateur.errors import SecateurError, nearest

# Names and one-line helps stand here, so that `secateur --help` need not import torch.
COMMANDS = {
    "analyze": "Parameters and MACs by branch, what is coupled with what, and what is protected, and why.",
    "explain": "With what a layer is coupled and through which code, or why it stays whole.",
    "prune": "Cut a model to a budget, prove the result, and save it with its plan.",
    "sensitivity": "What a model loses with each group of channels, on pictures of yours.",
    "train": "Train a matting network, or win back what pruning cost it.",
    "graft": "Put a pruned part back into the network that holds it, with its weights.",
    "verify": "Prove again that a saved model is what its plan promises.",
    "convert": "Between secateur's file, checkpoints, plans alone, and whole models in pickles.",
    "inspect": "What a saved file says of itself; no weights are read.",
    "export": "Write a model as the file that a runtime opens, and compare its outputs with PyTorch's.",
    "bundle": "Write a folder that puts pictures through a model in its runtime, without PyTorch.",
    "matte": "Cut people out of a picture, a folder of pictures or a video, or put them on another background.",
    "bench": "How long models take in the runtimes that they are deployed to, side by side.",
    "probe": "How time grows with width on a runtime, and in which steps of channels.",
    "eval": "How good the mattes of models are, on portraits with true ones, side by side.",
    "data": "Whether a data set of portraits can be used: `secateur data check DIR`.",
    "runtimes": "What this machine has to run networks on.",
    "demo": "The whole walk on the built-in models, offline, in under a minute.",
}
FINE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


class CommandGroup(click.Group):
    """A group whose commands are imported when they are called for, each from the file of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"secateur.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or offer the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"There is no command {args[0]!r}.{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(__version__)
def group() -> None:
    """Structured pruning that proves itself: the same class of model, smaller.

    MODEL is a built-in name (modnet and modnet-small, which come trained, mobilenetv2, lenet), a saved file, or
    package.module:callable.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code: 0 fine, 1 failed, 2 bad usage, 130 interrupted."""
    listen()
    warnings.showwarning = _show_warning
    logging.basicConfig(format="secateur: %(levelname)s: %(message)s")
    logging.addLevelName(logging.WARNING, "warning")
    code = run(args)
    if code == INTERRUPTED:
        # Python ends by SIGINT instead where the interruption came inside code that was being imported.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on stderr, never a traceback."""
    try:
        group.main(args, prog_name="secateur", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return BAD_USAGE
    except click.ClickException as error:
        return _fail(_usage(error), BAD_USAGE)
    except SecateurError as error:
        return _fail(str(error), FAILED)
    except (click.Abort, KeyboardInterrupt) as error:
        told = str(error.__cause__ or error)  # click turns one into the other
        return _fail(told or "interrupted; nothing was written.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout has gone; a second complaint when Python flushes it helps nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FINE


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "secateur"
    return f"{error.format_message()} See: {path} --help"


_SAID_IN_THE_SHELL = (  # where the library speaks of its own arguments
    ("(ignore=)", "(--ignore)"),
    ("trust=True", "--trust"),
    ("pass values=False", "leave --against out"),
)


def _fail(message: str, code: int) -> int:
    for argument, option in _SAID_IN_THE_SHELL:
        message = message.replace(argument, option)
    click.echo(f"secateur: {' '.join(message.split())}", err=True)
    return code


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    click.echo(f"secateur: warning: {' '.join(str(message).split())}", err=True)
