"""Load files that somebody mutated, and count what comes of them.

python benchmarks/fuzz.py [--count 10000] [--first 0]
python benchmarks/fuzz.py --show 17     one of them: what was done to it, and what came of it
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import secateur  # noqa: E402
from tests.artifact.judging import FINE, Verdict, judge  # noqa: E402
from tests.artifact.mutations import Mutated, mutated  # noqa: E402

Result = tuple[Mutated, Verdict]

OUTCOMES = {
    "refused": "an ArtifactError",
    "the good model": "bit for bit: what was changed does not matter",
    "as signed": "another checksum was written, too, and the model is what the file then says",
    "wrong": "another model came out, or a pickle was opened",
    "crashed": "another error",
    "slow": "it took too long",
    "greedy": "it took more memory than a file of its size may",
}


def main() -> None:
    """Load files and print what became of them."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if options.show is not None:
            show(options.show, Path(folder))
            return
        start, results = time.perf_counter(), []
        for seed in range(options.first, options.first + options.count):
            one = mutated(seed)
            results.append((one, judge(one, Path(folder))))
            if len(results) % 500 == 0:
                print(f"{len(results)}/{options.count} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(summary(results))
    sys.exit(any(verdict.outcome not in FINE for _, verdict in results))


def show(seed: int, folder: Path) -> None:
    """Print the file of a seed, and what became of it."""
    one = mutated(seed)
    verdict, data = judge(one, folder), one.data or b""
    checksum = "the checksum is right for it" if one.signed else "the checksum is the old one"
    print(f"{one.good.name}: {one.how}, {checksum}; {len(data)} bytes")
    print(f"  {data[:100]!r} ... {data[-30:]!r}")
    print(f"{verdict.outcome} in {1e3 * verdict.seconds:.1f} ms and {verdict.peak / 1e6:.1f} MB. {verdict.why}")
    if verdict.outcome == "crashed":
        place = folder / "mutated.safetensors"
        place.write_bytes(data)
        try:
            secateur.load(place, one.good.into)
        except Exception:  # noqa: BLE001 - shown to a person
            traceback.print_exc()


def summary(results: list[Result]) -> str:
    """Say how many files came out how, what they took, and which ones did not come out right."""
    counts = Counter(verdict.outcome for _, verdict in results)
    lines = [f"{counts[outcome]:6} {outcome:14} {meaning}" for outcome, meaning in OUTCOMES.items()]
    by_mutation: dict[str, Counter[str]] = defaultdict(Counter)
    for one, verdict in results:
        by_mutation[one.how][verdict.outcome] += 1
    lines += [f"  {how:36} {_told(outcomes)}" for how, outcomes in by_mutation.items()]
    times = sorted(1e3 * verdict.seconds for _, verdict in results)
    at = [times[min(int(share * len(times)), len(times) - 1)] for share in (0.5, 0.9, 0.99, 1)]
    lines.append(
        "A file takes {:.1f} ms of one core; one in ten {:.1f}, one in 100 {:.0f}, the slowest {:.0f} ms.".format(*at)
    )
    lines.append(f"Never more memory than {max(verdict.peak for _, verdict in results) / 1e6:.1f} MB.")
    bad = [(one, verdict) for one, verdict in results if verdict.outcome not in FINE]
    return "\n".join(
        [*lines, *(f"seed {one.seed}: {one.how}: {found.outcome}. {found.why:.300}" for one, found in bad)]
    )


def _told(outcomes: Counter[str]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many files")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--show", type=int, metavar="SEED", help="print one file and what became of it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
