"""Is a step of training on a CPU faster where freed memory is kept for the next one?

python benchmarks/train_step.py [--model modnet-small] [--batch 8] [--size 512] [--steps 6] [--rounds 3]

Each measurement is a process of its own, with and without in turn: fewer seconds, and how much more memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from secateur.matting.recovering import Matting  # noqa: E402
from secateur.training.memory import freed_memory_kept  # noqa: E402

PLACED = 3  # steps until blocks have found their places


def main() -> None:
    options = _options()
    if options.kept is not None:
        print(*_measured(options))
        return
    found: dict[str, list[tuple[float, float]]] = {"yes": [], "no": []}
    for number in range(1, options.rounds + 1):
        for kept, of_round in found.items():
            line = [sys.executable, __file__, *sys.argv[1:], "--kept", kept]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            seconds, gigabytes = map(float, done.stdout.split())
            of_round.append((seconds, gigabytes))
            print(f"round {number}, kept: {kept:3}  {seconds:6.2f} s a step  {gigabytes:5.1f} GB", flush=True)
    (slow, usual), (fast, more) = (map(statistics.median, zip(*found[kept], strict=True)) for kept in ("no", "yes"))
    print(f"freed memory kept: {slow / fast:.2f}x as fast, {more / usual:.2f}x the memory")


def _measured(options: argparse.Namespace) -> tuple[float, float]:
    """Return the median step's seconds, and the most gigabytes that this process took."""
    import resource

    import secateur

    torch.manual_seed(0)
    model = secateur.pretrained(options.model).train().to(memory_format=torch.channels_last)
    task = Matting((0.5,) * 3, (0.5,) * 3)
    shape = (options.batch, 1, options.size, options.size)
    batch = {"image": torch.rand(options.batch, 3, *shape[2:]), "matte": torch.rand(shape), "trimap": torch.rand(shape)}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    taken = []
    with freed_memory_kept() if options.kept == "yes" else nullcontext():
        for _ in range(PLACED + options.steps):
            start = time.perf_counter()
            optimizer.zero_grad()
            torch.stack(list(task.losses(model, batch).values())).sum().backward()
            optimizer.step()
            taken.append(time.perf_counter() - start)
    return statistics.median(taken[PLACED:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="modnet-small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kept", choices=("yes", "no"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
