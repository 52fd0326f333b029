"""Kill processes while they save a model over an old file, and look at what is left.

python benchmarks/killed.py [--count 200] [--width 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.artifact.killing import Death, deaths  # noqa: E402

PARTS = 10  # of the time that a save takes


def main() -> None:
    """Kill processes and print what they left."""
    options = _options()
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = list(deaths(Path(folder), options.count, options.seed, options.width))
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    print(summary(found))
    print(f"A file of {size / 1e6:.1f} MB; {time.perf_counter() - start:.0f} s in all.")
    sys.exit(any(death.file == "torn" or death.left == "more" for death in found))


def summary(found: list[Death]) -> str:
    """Say what was left, by the moment of the death."""
    lines = ["killed after    the file is              and beside it"]
    for part in range(PARTS):
        those = [death for death in found if int(death.after * PARTS) == part]
        files, left = Counter(death.file for death in those), Counter(death.left for death in those)
        lines.append(f"{part / PARTS:4.0%} to {(part + 1) / PARTS:4.0%}    {_told(files):24} {_told(left)}")
    files, left = Counter(death.file for death in found), Counter(death.left for death in found)
    lines.append(f"{'in all':16}{_told(files):24} {_told(left)}")
    return "\n".join(lines)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.most_common())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many processes")
    parser.add_argument("--width", type=int, default=2000, help="of the model's layers; wider ones take longer to save")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    main()
