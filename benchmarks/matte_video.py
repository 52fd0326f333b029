"""How near `secateur matte` on a video comes to the rate of its network alone.

python benchmarks/matte_video.py VIDEO [--model modnet] [--on openvino] [--threads 2] [--seconds 20] [--output .webm]

The network's rate is that of calls on frames of the video, prepared before; the command's that of everything: decoding,
preparing, the network, finishing and encoding. Both are measured in turns, and their medians compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from secateur.cli.matte import network_of  # noqa: E402
from secateur.matting.finishing import Finish, plain  # noqa: E402
from secateur.matting.predicting import Predictor, open_predictor  # noqa: E402
from secateur.matting.preprocessing import network_size  # noqa: E402
from secateur.matting.video.converting import convert_video  # noqa: E402
from secateur.matting.video.reading import VideoReader  # noqa: E402
from secateur.runtimes.machine import this_machine  # noqa: E402
from secateur.runtimes.session import Options  # noqa: E402


def network_rate(predictor: Predictor, video: Path, seconds: float) -> float:
    with VideoReader(video) as reader:
        prepared = [predictor.prepare(frame.colours) for frame, _ in zip(reader.frames(), range(16), strict=False)]
    predictor.run(prepared[:1])
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        predictor.run([prepared[count % len(prepared)]])
        count += 1
    return count / (time.perf_counter() - start)


def whole_rate(predictor: Predictor, video: Path, target: Path, finish: Finish, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        with VideoReader(video) as reader:
            count += convert_video(reader, target, predictor, finish)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", default="modnet")
    parser.add_argument("--on", default="openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="of each turn, at least")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", default=".webm", help="suffix; .mp4 is written on a green background")
    chosen = parser.parse_args()
    network = network_of(chosen.model, None, None)
    with VideoReader(chosen.video) as reader:
        size = reader.track.size
    seen = network_size(*size)
    predictor = open_predictor(network, chosen.on, Options(threads=chosen.threads), (1, *seen))
    finish = Finish() if chosen.output != ".mp4" else Finish(background=plain((0, 177, 64)))
    rates: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"out{chosen.output}"
        for _ in range(chosen.turns):
            alone = network_rate(predictor, chosen.video, chosen.seconds)
            rates.append((alone, whole_rate(predictor, chosen.video, target, finish, chosen.seconds)))
    alone, whole = (statistics.median(one) for one in zip(*rates, strict=True))
    print(f"{this_machine()}")
    print(f"{chosen.model} on {chosen.on}, {chosen.threads} threads, {size[1]}x{size[0]} seen as {seen[1]}x{seen[0]}")
    print(f"network alone {alone:.1f} frames/s, whole command {whole:.1f} frames/s, ratio {whole / alone:.2f}")


if __name__ == "__main__":
    main()
