"""What INT8 costs torchvision's MobileNetV2 on ImageNet: as exported here, and by the runtimes' own tools as they come.

python benchmarks/int8.py [--data DIR] [--draws 3]

DIR, or what SECATEUR_DATA names, holds `pretrained/mobilenet_v2-b0353104.pth` and `imagenet_samples`, 500 pictures with
labels. Every draw takes other pictures to calibrate on and tests on the rest. Writes docs/int8.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.recovery.subjects import Subject, imagenet  # noqa: E402
from secateur.artifact.atomic import write_atomically  # noqa: E402
from secateur.runtimes.deployment import RUNTIMES, export  # noqa: E402
from secateur.runtimes.machine import this_machine  # noqa: E402
from secateur.runtimes.network import Network  # noqa: E402
from secateur.runtimes.packages import quiet, require  # noqa: E402
from secateur.runtimes.registry import open_network  # noqa: E402
from secateur.runtimes.samples import Samples  # noqa: E402

CALIBRATED = 96  # pictures
BATCH = 44  # of the pictures to test on

PAGE = """# What INT8 costs

Written by `python benchmarks/int8.py`; do not edit. Measured on {machine}.

torchvision's MobileNetV2 on ImageNet, in 8 bits by several tools, without training: {calibrated} pictures to calibrate
on, {tested} of others to test on, {draws} draws (means over them). **Right**: pictures whose first answer is right, in
percent. **As before**: pictures whose first answer is that of the network in float, in percent. **Signal**: that of the
scores to what was added to them, in decibels, higher is better.

| | right | as before | signal, dB |
|---|---:|---:|---:|
{rows}

The tools are used as their documentation does. On processors with AVX2 but without VNNI sums of 8-bit products overflow
unless weights leave a bit free (`reduce_range`); without it weights by channel lose most. `secateur export --int8`
takes NNCF for OpenVINO, and for ONNX Runtime its `quantize_static`, with ranges that are means over the pictures,
biases that make up for what rounded weights lose, and outputs that are not rounded.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    given = parser.parse_args()
    data = Path(given.data or os.environ.get("SECATEUR_DATA", ROOT / "../shared/data"))
    found: dict[str, list[tuple[float, float, float]]] = {}
    tested = 0
    for draw in range(given.draws):
        subject = imagenet(data, draw)
        tested = len(subject.test.labels)
        for way, scores in scores_of(subject).items():
            found.setdefault(way, []).append(judged(scores, subject))
            print(f"draw {draw + 1}: {row(way, found[way][-1:])}", flush=True)
    text = PAGE.format(
        machine=this_machine(),
        calibrated=CALIBRATED,
        tested=tested,
        draws=given.draws,
        rows="\n".join(row(way, every) for way, every in found.items()),
    )
    write_atomically(ROOT / "docs/int8.md", text.encode())


def scores_of(subject: Subject) -> Mapping[str, np.ndarray]:
    """Return the scores of all test pictures by each way."""
    samples = [[one[None].numpy()] for one in subject.calibration.images[:CALIBRATED]]
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "full.onnx"
        export(subject.model, full, subject.example)
        ways: dict[str, Callable[[Path], str]] = {
            "ONNX Runtime, `quantize_static`": partial(by_onnx_runtime, full, samples),
            "ONNX Runtime, by channel": partial(by_onnx_runtime, full, samples, per_channel=True),
            "ONNX Runtime, by channel, `reduce_range`": partial(
                by_onnx_runtime, full, samples, per_channel=True, reduce_range=True
            ),
            "**secateur**, ONNX Runtime": partial(by_secateur, subject, samples, ".onnx"),
            "OpenVINO, `nncf.quantize`": partial(by_nncf, full, samples),
            "**secateur**, OpenVINO": partial(by_secateur, subject, samples, ".xml"),
        }
        found = {"in float": scores(full, "onnxruntime", subject)}
        for number, (way, make) in enumerate(ways.items()):
            place = Path(folder) / f"{number}"
            suffix = make(place)
            found[way] = scores(place.with_suffix(suffix), RUNTIMES[suffix], subject)
    return found


def by_onnx_runtime(full: Path, samples: Samples, target: Path, **settings: bool) -> str:
    tools = require("onnxruntime.quantization")

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.left, None)
            return None if sample is None else {"input": sample[0]}

    prepared = target.with_name("prepared.onnx")
    tools.shape_inference.quant_pre_process(str(full), str(prepared), skip_symbolic_shape=True)
    tools.quantize_static(str(prepared), str(target.with_suffix(".onnx")), Reader(), **settings)
    return ".onnx"


def by_nncf(full: Path, samples: Samples, target: Path) -> str:
    nncf, library = require("nncf"), require("openvino")
    with quiet("", "nncf"):
        made = nncf.quantize(library.Core().read_model(str(full)), nncf.Dataset([list(one) for one in samples]))
    library.save_model(made, str(target.with_suffix(".xml")))
    return ".xml"


def by_secateur(subject: Subject, samples: Samples, suffix: str, target: Path) -> str:
    export(subject.model, target.with_suffix(suffix), subject.example, precision="int8", samples=samples)
    return suffix


def scores(path: Path, runtime: str, subject: Subject) -> np.ndarray:
    session = open_network(Network.of_file(path.stem, path), runtime)
    return np.concatenate([session(batch.numpy())[0] for batch in subject.test.images.split(BATCH)])


def judged(found: np.ndarray, subject: Subject) -> tuple[float, float, float]:
    """Return how many are right, and as before, in percent, and the signal in decibels."""
    with torch.no_grad():
        wanted = torch.cat([subject.model(batch) for batch in subject.test.images.split(BATCH)]).numpy()
    first = found.argmax(1)
    right, same = first == subject.test.labels.numpy(), first == wanted.argmax(1)
    added = np.square(found - wanted).sum()
    return 100 * right.mean(), 100 * same.mean(), float(10 * np.log10(np.square(wanted).sum() / added))


def row(way: str, every: list[tuple[float, float, float]]) -> str:
    right, same, signal = (statistics.mean(values) for values in zip(*every, strict=True))
    return f"| {way} | {right:.1f} | {same:.1f} | {signal:.1f} |"


if __name__ == "__main__":
    main()
