"""What training says of itself: two tables, and TensorBoard's events; cut back to where a resumed run goes on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.artifact.atomic import write_atomically
from secateur.errors import ArtifactError
from secateur.runtimes.packages import is_installed, require


class Journal:
    """The tables of a run.

    Args:
        folder: of the run.
        step: the step that it goes on from; later rows, of a run that was killed, are taken out.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._steps, self._validation = folder / "steps.csv", folder / "validation.csv"
        for path in (self._steps, self._validation):
            _cut_back(path, step)
        self._events: Any = None
        if is_installed("tensorboardX"):
            self._events = require("tensorboardX").SummaryWriter(str(folder), purge_step=step or None)

    def step(self, step: int, rate: float, losses: Mapping[str, float]) -> None:
        """Note a step."""
        self._add(self._steps, step, {"rate": rate, **losses}, "loss")

    def validation(self, step: int, errors: Mapping[str, float]) -> None:
        """Note a validation."""
        self._add(self._validation, step, errors, "validation")

    def _add(self, path: Path, step: int, values: Mapping[str, float], kind: str) -> None:
        known = path.exists()
        try:
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if not known:
                    writer.writerow(["step", *values])
                writer.writerow([step, *(repr(value) for value in values.values())])
        except OSError as error:
            raise ArtifactError(
                f"{path} cannot be written: {error.strerror}. Make room, and go on with --resume."
            ) from None
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)


def _cut_back(path: Path, step: int) -> None:
    if not path.exists():
        return
    if step == 0:
        path.unlink()
        return
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    kept = io.StringIO()
    writer = csv.writer(kept)
    # The last row of a killed run may be cut off in the middle.
    writer.writerows([head, *(row for row in rows if len(row) == len(head) and int(row[0]) <= step)])
    write_atomically(path, kept.getvalue().encode())
