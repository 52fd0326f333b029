"""What a bundle says of itself: `README.md` for people, `measurements.json` for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

from secateur import __version__
from secateur.measurement.contest import Cell
from secateur.reporting.numbers import number_of, short_count
from secateur.runtimes.deployment import Deployed
from secateur.runtimes.machine import Machine
from secateur.runtimes.parity import Gap
from secateur.runtimes.shapes import Shapes
from secateur.shipping.script import Kind, Picture

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_RESULTS: dict[Kind, str] = {
    "matte": (
        "The first output is a matte. It is clipped to 0 to 1, brought back to the picture's own size and saved as PNG "
        "in OUTPUT, or in `matte.png`."
    ),
    "scores": (
        "The first output holds a score for each class. The five largest are printed, each as its share after softmax "
        "and its index; they are written to OUTPUT, too, if there is one."
    ),
    "arrays": "All outputs are saved by name in OUTPUT, or in `outputs.npz`; `numpy.load` reads them.",
}

README = Template("""\
# $title

$model with $parameters parameters, for $runtime on the processor. It needs neither PyTorch nor the code of the model.

```sh
pip install $package numpy Pillow
python run.py PICTURE [OUTPUT]
```

$result

| what | is |
|---|---|
| file | $file, $megabytes MB |
| precision | $precision |
$ports

## Pre-processing

The picture is turned upright as its EXIF says, made $colours, resized to $size (height × width) and brought to 0 to 1.
The input is (picture - mean) / std, with mean $mean and std $std. `run.py` does all of this.

## How far it is from PyTorch

Compared on $compared. The largest difference is a share of the largest value of the output, the mean one is in its own
units, and *same class* is the share of inputs whose largest score is of the same class.

| output | largest difference | mean difference | signal above it | same class |
|---|---|---|---|---|
$gaps

## How long a call takes

$time
""")


@dataclass(frozen=True)
class Bundle:
    """A folder with an exported network and the program that runs it.

    Attributes:
        folder: where it is.
        model: the model's class.
        parameters: how many it has.
        runtime: "onnxruntime" or "openvino".
        version: the runtime's, by which the network was compared and timed.
        deployed: the network's file, and how far it is from PyTorch.
        bytes: of the network's file, with its weights.
        picture: what the network takes.
        inputs: shapes of the inputs.
        outputs: shapes of the outputs.
        kind: what `run.py` makes of the first output: a "matte", "scores" or "arrays".
        machine: where it was compared and timed.
        cell: what a call took; None if that was not measured.
    """

    folder: Path
    model: str
    parameters: int
    runtime: str
    version: str
    deployed: Deployed
    bytes: int
    picture: Picture
    inputs: Shapes
    outputs: Shapes
    kind: Kind
    machine: Machine
    cell: Cell | None

    @property
    def title(self) -> str:
        """The model and the runtime, for headings."""
        return f"{self.model} in {TITLES[self.runtime]}"


def measurements(bundle: Bundle) -> dict[str, Any]:
    """Return what was measured as JSON values; what is not finite is null."""
    deployed = bundle.deployed
    return {
        "secateur": __version__,
        "model": bundle.model,
        "parameters": bundle.parameters,
        "runtime": bundle.runtime,
        "version": bundle.version,
        "precision": deployed.precision,
        "bytes": bundle.bytes,
        "inputs": dict(zip(deployed.inputs, bundle.inputs, strict=True)),
        "outputs": dict(zip(deployed.outputs, bundle.outputs, strict=True)),
        "gaps": [{key: _finite(value) for key, value in asdict(gap).items()} for gap in deployed.gaps],
        "machine": asdict(bundle.machine),
        "time": None if bundle.cell is None else _time(bundle.cell),
    }


def readme(bundle: Bundle) -> str:
    """Return the text of the bundle's README."""
    picture, deployed = bundle.picture, bundle.deployed
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (picture.mean, picture.std))
    return README.substitute(
        title=bundle.title,
        model=bundle.model,
        parameters=short_count(bundle.parameters),
        runtime=TITLES[bundle.runtime],
        package=f"{bundle.runtime}=={bundle.version}",
        result=_RESULTS[bundle.kind],
        file=_file(deployed.path),
        megabytes=f"{bundle.bytes / 2**20:.2f}",
        precision=deployed.precision,
        ports="\n".join(
            (*_ports("input", deployed.inputs, bundle.inputs), *_ports("output", deployed.outputs, bundle.outputs))
        ),
        colours="grey" if picture.mode == "L" else "RGB",
        size=f"{picture.height} × {picture.width}",
        mean=mean,
        std=std,
        gaps="\n".join(_gaps(deployed)),
        compared=_compared(deployed),
        time=_told(bundle),
    )


def document(bundle: Bundle) -> str:
    """Return the text of `measurements.json`."""
    return json.dumps(measurements(bundle), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _file(path: Path) -> str:
    return f"`{path.name}`" + (f" with `{path.with_suffix('.bin').name}`" if path.suffix == ".xml" else "")


def _ports(title: str, names: Sequence[str], shapes: Shapes) -> list[str]:
    return [
        f"| {title} | `{name}`, {' × '.join(map(str, shape)) or 'a single number'} |"
        for name, shape in zip(names, shapes, strict=True)
    ]


def _compared(deployed: Deployed) -> str:
    pictures = max(gap.pictures for gap in deployed.gaps)
    if pictures:
        return f"{pictures} of the pictures that it was calibrated on"
    return "the example that it was exported with and on random numbers"


def _gaps(deployed: Deployed) -> list[str]:
    def size(gap: Gap) -> float:
        return math.inf if math.isnan(gap.error) else gap.error

    rows = []
    for name in deployed.outputs:
        own = [gap for gap in deployed.gaps if gap.output == name]
        worst = max([gap for gap in own if gap.pictures] or own, key=size)
        alike = "" if worst.alike is None else f"{worst.alike:.1%}"
        rows.append(f"| `{name}` | {worst.error:.1e} | {worst.mean:.1e} | {worst.snr:.0f} dB | {alike} |")
    return rows


def _told(bundle: Bundle) -> str:
    cell, where = bundle.cell, f"{bundle.machine}, {bundle.runtime} {bundle.version}"
    if cell is None:
        return f"That was not measured. The comparison was made on {where}."
    if not cell.milliseconds:
        return f"That could not be measured on {where}: {cell.status}, {cell.why}"
    median, low, high = (number_of(value) for value in (cell.spread.median, cell.spread.low, cell.spread.high))
    return (
        f"{median} ms, the median of {cell.spread.rounds} rounds; {low} to {high} ms from the 10th to the 90th "
        "percentile. That is the network alone, with as many threads as it takes.\n"
        f"Opening it takes {number_of(cell.load_ms)} ms, the first call {number_of(cell.first_ms)} ms.\n\n"
        f"Measured on {where}."
    )


def _time(cell: Cell) -> dict[str, Any]:
    if not cell.milliseconds:
        return {"status": cell.status, "why": cell.why}
    return {
        "status": cell.status,
        "median_ms": cell.spread.median,
        "low_ms": cell.spread.low,
        "high_ms": cell.spread.high,
        "rounds": cell.spread.rounds,
        "load_ms": cell.load_ms,
        "first_ms": cell.first_ms,
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
