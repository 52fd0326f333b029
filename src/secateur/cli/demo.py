"""`secateur demo`: the whole walk on the built-in models, offline."""

from __future__ import annotations

from pathlib import Path

import click

from secateur.artifact.atomic import check_writable
from secateur.cli.console import Progress, heading, show
from secateur.cli.options import quiet_option, seed_option
from secateur.errors import ArtifactError
from secateur.reporting.figures import check_figure
from secateur.reporting.walk import DIGITS_FILE, FIGURE_FILE, PERSON_FILE, PORTRAIT_FILE, walk


@click.command("demo")
@click.option(
    "--out", default="secateur-demo", show_default=True, metavar="DIR", help="Folder for what the demo makes."
)
@seed_option
@quiet_option
def command(out: str, seed: int, quiet: bool) -> None:
    """Analyse MODNet, prune its backbone and the whole of it, cut a person out, then prune a trained LeNet."""
    folder = Path(out)
    _make(folder)
    check_figure(FIGURE_FILE)
    for name in (FIGURE_FILE, PORTRAIT_FILE, PERSON_FILE, DIGITS_FILE):
        check_writable(folder / name)
    progress = Progress(quiet)
    for chapter in walk(folder, progress.step, seed):
        show(heading(chapter.title), *chapter.shown)
    show(
        heading("What to type next"),
        f"  secateur verify {folder / PORTRAIT_FILE}",
        f"  secateur analyze {folder / PORTRAIT_FILE}",
        "  secateur prune modnet -o small.safetensors --macs 0.25x --calibrate YOUR_PICTURES --figure widths.svg",
        "  secateur matte YOUR_PICTURE person.png",
        "  secateur prune your_package.models:YourNet -o small.safetensors --ratio 0.5 --input 1x3x224x224",
        f"\nThe pictures: {folder / FIGURE_FILE}, {folder / PERSON_FILE}",
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be made: {error.strerror}. Give another folder with --out.") from None
