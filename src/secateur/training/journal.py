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

_KINDS = {"steps": "loss", "validation": "validation"}  # of TensorBoard's curves, by table


class Journal:
    """The tables of a run.

    Args:
        folder: of the run.
        step: the step that it goes on from; later rows, of a run that was killed, are taken out.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._steps, self._validation = folder / "steps.csv", folder / "validation.csv"
        kept = {path: _cut_back(path, step) for path in (self._steps, self._validation)}
        self._events: Any = None
        if is_installed("tensorboardX"):  # a run that was killed may have left fewer events than rows: all again
            self._events = require("tensorboardX").SummaryWriter(str(folder), purge_step=1 if step else None)
            for path, rows in kept.items():
                for row in rows:
                    self._show(path, int(row.pop("step")), {name: float(value) for name, value in row.items()})

    def step(self, step: int, rate: float, losses: Mapping[str, float]) -> None:
        """Note a step."""
        self._add(self._steps, step, {"rate": rate, **losses})

    def validation(self, step: int, errors: Mapping[str, float]) -> None:
        """Note a validation."""
        self._add(self._validation, step, errors)

    def close(self) -> None:
        """Write what is still to be written."""
        if self._events is not None:
            self._events.close()

    def _add(self, path: Path, step: int, values: Mapping[str, float]) -> None:
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
        self._show(path, step, values)

    def _show(self, path: Path, step: int, values: Mapping[str, float]) -> None:
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{_KINDS[path.stem]}/{name}", value, step)


def _cut_back(path: Path, step: int) -> list[dict[str, str]]:
    """Take out the rows of later steps, and return those that stay."""
    if not path.exists():
        return []
    if step == 0:
        path.unlink()
        return []
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    # The last row of a killed run may be cut off in the middle.
    rows = [row for row in rows if len(row) == len(head) and int(row[0]) <= step]
    kept = io.StringIO()
    csv.writer(kept).writerows([head, *rows])
    write_atomically(path, kept.getvalue().encode())
    return [dict(zip(head, row, strict=True)) for row in rows]
