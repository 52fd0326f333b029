"""How near `secateur matte` on a video comes to the rate of its network alone.

python benchmarks/matte_video.py VIDEO [--model modnet-small] [--on openvino] [--precision int8] [--threads 2]

The network's rate is that of calls on frames of the video, prepared before; the command's that of everything: start,
decoding, preparing, the network, finishing and encoding. Both are measured in turns, and their medians compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402

from secateur.artifact.shipped import shipped_int8  # noqa: E402
from secateur.cli.matte import network_of  # noqa: E402
from secateur.matting.predicting import Predictor, open_predictor  # noqa: E402
from secateur.matting.preprocessing import video_size  # noqa: E402
from secateur.matting.video.reading import VideoReader  # noqa: E402
from secateur.runtimes.deployment import RUNTIMES as RUNTIMES_OF_FILES  # noqa: E402
from secateur.runtimes.machine import this_machine  # noqa: E402
from secateur.runtimes.session import Options  # noqa: E402

AT_ONCE = 16  # frames that the network sees in turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", default="modnet-small")
    parser.add_argument("--on", default="openvino")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", default=".webm", help="suffix; .mp4 is written on a green background")
    chosen = parser.parse_args()
    with VideoReader(chosen.video) as reader:
        size = reader.track.size
        first = [frame.colours for frame, _ in zip(reader.frames(), range(AT_ONCE), strict=False)]
    predictor = opened(chosen, size)
    prepared = [predictor.prepare(colours) for colours in first]
    rates: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"out{chosen.output}"
        for _ in range(chosen.turns):
            seconds, frames = timed_command(chosen, target)
            rates.append((network_rate(predictor, prepared, seconds), frames / seconds))
    alone, whole = (statistics.median(one) for one in zip(*rates, strict=True))
    print(f"{this_machine()}")
    seen = video_size(*size)
    print(f"{chosen.model}, {chosen.precision}, on {chosen.on}, {chosen.threads} threads")
    print(f"{frames} frames of {size[1]}x{size[0]} seen as {seen[1]}x{seen[0]}, to {chosen.output}")
    print(f"network alone {alone:.1f} frames/s, whole command {whole:.1f} frames/s, ratio {whole / alone:.2f}")


def opened(chosen: argparse.Namespace, size: tuple[int, int]) -> Predictor:
    """Open the network as the command does."""
    suffix = next(suffix for suffix, runtime in RUNTIMES_OF_FILES.items() if runtime == chosen.on)
    file = shipped_int8(chosen.model, suffix) if chosen.precision == "int8" else None
    network, precision = network_of(str(file or chosen.model), None, None), "fp32" if file else chosen.precision
    return open_predictor(network, chosen.on, Options(precision, threads=chosen.threads), (1, *video_size(*size)))


def network_rate(predictor: Predictor, prepared: list[np.ndarray], seconds: float) -> float:
    predictor.run(prepared[:1])
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        predictor.run([prepared[count % len(prepared)]])
        count += 1
    return count / (time.perf_counter() - start)


def timed_command(chosen: argparse.Namespace, target: Path) -> tuple[float, int]:
    """Return how long the command takes, and how many frames it makes."""
    line = [sys.executable, "-m", "secateur.cli", "matte", str(chosen.video), str(target), "--model", chosen.model]
    line += ["--on", chosen.on, "--precision", chosen.precision, "--threads", str(chosen.threads), "--quiet"]
    line += ["--background", "#00b140"] if chosen.output == ".mp4" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    start = time.perf_counter()
    subprocess.run(line, env=environment, check=True)
    seconds = time.perf_counter() - start
    with VideoReader(target) as reader:
        return seconds, sum(1 for _ in reader.frames())


if __name__ == "__main__":
    main()
