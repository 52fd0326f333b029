"""Do the intervals of `secateur bench` hold? The same model twice, many times over: 1.00 should be inside in 19 of 20.

python benchmarks/same_model.py [--model mobilenetv2] [--on openvino] [--runs 20] [--busy]

With --busy another process keeps one core busy meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from secateur.measurement.contest import contest  # noqa: E402
from secateur.models.registry import ZOO  # noqa: E402
from secateur.runtimes.network import Network  # noqa: E402
from secateur.runtimes.session import Options  # noqa: E402
from secateur.runtimes.shapes import Sizes  # noqa: E402


def main() -> None:
    options = _options()
    entry = ZOO[options.model]
    torch.manual_seed(0)
    networks = [Network.of_model(name, entry.build().eval(), entry.example()) for name in ("one", "other")]
    neighbour = multiprocessing.get_context("spawn").Process(target=_compute, daemon=True)
    if options.busy:
        neighbour.start()
    inside = 0
    for run in range(1, options.runs + 1):
        one, other = contest(networks, options.on, Options(threads=1), Sizes(1), options.seconds, alone=False)
        ratio = other.times_as_fast_as(one)
        if ratio is None:
            sys.exit(f"{other.status}: {other.why}")
        inside += 1.0 in ratio
        print(f"{run:3}: {ratio.value:.3f} ({ratio.low:.3f}-{ratio.high:.3f})  {inside} of {run}", flush=True)
    if options.busy:
        neighbour.terminate()
    print(f"1.00 lies in {inside} of {options.runs} intervals")


def _compute() -> None:
    while True:
        sum(number * number for number in range(100_000))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(ZOO), default="mobilenetv2")
    parser.add_argument("--on", default="openvino")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--busy", action="store_true", help="keep one core busy meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    main()
