"""Size of our file, and seconds to save and load it, beside plain safetensors.

python benchmarks/files.py [--rounds 5] [--json]

All run in turns, and medians count. Ratios are to plain safetensors and constructing the class, together; a plain save
does not wait until the disk has the bytes, and ours does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import secateur  # noqa: E402
from secateur.models import LeNet, MobileNetV2, MODNet  # noqa: E402

MODELS = {
    "lenet": (LeNet, (1, 1, 28, 28)),
    "mobilenetv2": (MobileNetV2, (1, 3, 64, 64)),
    "modnet": (MODNet, (1, 3, 64, 64)),
}


def main() -> None:
    """Measure every model of the zoo and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [measured(name, options.rounds) for name in MODELS]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for row in found:
        print(
            f"{row['model']:12} {row['bytes']:,} bytes, {row['bytes_beyond_plain']:,} beyond plain safetensors; "
            f"save {row['save_s'] * 1e3:.0f} ms ({row['save_ratio']:.2f}x), "
            f"load {row['load_s'] * 1e3:.0f} ms ({row['load_ratio']:.2f}x)"
        )


def measured(name: str, rounds: int) -> dict[str, Any]:
    """Prune a model by half, and save and load it both ways in turns."""
    kind, shape = MODELS[name]
    torch.manual_seed(0)
    small, plan = secateur.prune(kind().eval(), torch.zeros(shape), ratio=0.5)
    distinct = {id(one): (key, one) for key, one in reversed(small.state_dict(keep_vars=True).items())}
    tensors = {key: one.detach().contiguous() for key, one in distinct.values()}
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = Path(folder, "ours.safetensors"), Path(folder, "plain.safetensors")

        steps: dict[str, Callable[[], object]] = {
            "save": lambda: secateur.save(ours, small, plan),
            "plain save": lambda: safetensors.torch.save_file(tensors, plain),
            "load": lambda: secateur.load(ours),
            "plain load": lambda: safetensors.torch.load_file(plain),
            "construct": kind,
        }
        taken: dict[str, list[float]] = {step: [] for step in steps}
        for turn in range(-1, rounds):
            for step, call in steps.items():
                start = time.perf_counter()
                call()
                if turn >= 0:
                    taken[step].append(time.perf_counter() - start)
        seconds = {step: statistics.median(times) for step, times in taken.items()}
        return {
            "model": name,
            "bytes": ours.stat().st_size,
            "bytes_beyond_plain": ours.stat().st_size - plain.stat().st_size,
            "save_s": seconds["save"],
            "save_ratio": seconds["save"] / (seconds["plain save"] + seconds["construct"]),
            "load_s": seconds["load"],
            "load_ratio": seconds["load"] / (seconds["plain load"] + seconds["construct"]),
        }


if __name__ == "__main__":
    main()
