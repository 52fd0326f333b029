"""Prune random networks and count how many come out right, in several processes.

python benchmarks/random_networks.py [--count 2000] [--first 0] [--processes 2] [--json]
python benchmarks/random_networks.py --show 17     one of them: its program, what went wrong, and why
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import statistics
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import secateur  # noqa: E402
from tests.generator import EXAMPLE, Network, Program, program  # noqa: E402
from tests.oracle import DeadOutputError, relative_error  # noqa: E402

ALLOWED = 1e-9
OUTCOMES = {
    "right": "the pruned network equals the masked one",
    "wrong": "it does not, and no proof noticed",
    "refused": "a proof failed, so that `prune` would have left a layer whole",
    "failed": "pruning ended in another error",
    "mute": "the outputs do not depend on the inputs, so that nothing can be compared",
}


@dataclass(frozen=True)
class Result:
    """What became of one network."""

    seed: int
    outcome: str  # a key of OUTCOMES
    share: float = 0.0  # of the parameters that were cut
    reason: str = ""
    left: tuple[str, ...] = ()  # what the plan left whole that a first look would have cut


class _Ear(logging.Handler):
    """Hears which layers the plan leaves whole because no integers or orders could be found for it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "left whole" in record.getMessage():
            self.heard.append(record.getMessage())


def main() -> None:
    """Prune networks and print what became of them."""
    options = _options()
    if options.show is not None:
        show(options.show)
        return
    start = time.perf_counter()
    results = []
    for result in run(range(options.first, options.first + options.count), options.processes):
        results.append(result)
        _report_progress(results, options.count, time.perf_counter() - start)
    print(json.dumps([asdict(result) for result in results]) if options.json else summary(results))
    keep(results, options.out)
    sys.exit(any(result.outcome in ("wrong", "refused", "failed") for result in results))


def run(seeds: range, processes: int) -> Iterator[Result]:
    """Prune the networks of some seeds, in whatever order they get ready."""
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_one_thread) as pool:
        yield from pool.imap_unordered(result_of, seeds, chunksize=4)


def result_of(seed: int) -> Result:
    """Prune the network of a seed, prove it, and compare it with the oracle."""
    logger, ear = logging.getLogger("secateur"), _Ear()
    logger.handlers, logger.propagate = [ear], False
    share = 0.0
    try:
        model, plan, small = pruned(seed)
        share = 1 - _parameters(small) / _parameters(model)
        secateur.verify(model, small, plan, EXAMPLE)
        error = relative_error(model, plan, small, EXAMPLE)
    except DeadOutputError:
        outcome, reason = "mute", ""
    except secateur.ProofError as error:
        outcome, reason = "refused", str(error)
    except Exception as error:  # noqa: BLE001 - every failure is a result
        outcome, reason = "failed", f"{type(error).__name__}: {error}"
    else:
        outcome, reason = ("right", "") if error < ALLOWED else ("wrong", f"off by {error:.1e}")
    return Result(seed, outcome, share, reason, tuple(ear.heard))


def pruned(seed: int) -> tuple[Network, secateur.Plan, torch.nn.Module]:
    """Return the network of a seed, its plan, and what is left of it."""
    drawn, options = network_of(seed)
    torch.manual_seed(0)
    model = Network(drawn).eval()
    plan = secateur.plan(secateur.trace(model, EXAMPLE), model, min_channels=1, **options)
    return model, plan, secateur.cut(model, plan)


def network_of(seed: int) -> tuple[Program, dict[str, Any]]:
    """Draw a network and how it is pruned."""
    choose = random.Random(seed).choice  # noqa: S311 - no secret
    options = {
        "ratio": choose([0.3, 0.5, 0.8]),
        "criterion": choose(["l1", "random"]),
        "ranking": choose(["group", "global"]),
    }
    return program(choose), options


def show(seed: int) -> None:
    """Print the network of a seed, and what became of it."""
    drawn, options = network_of(seed)
    for step in drawn.steps:
        print(f"  {step.kind}{step.numbers} reads {step.reads}")
    print(f"  heads {drawn.heads}, {options}")
    result = result_of(seed)
    print("\n".join([f"{result.outcome}, {result.share:.0%} cut. {result.reason}", *result.left]))
    if result.outcome == "failed":
        try:
            pruned(seed)
        except Exception:  # noqa: BLE001 - shown to a person
            traceback.print_exc()


def summary(results: list[Result]) -> str:
    """Say how many networks came out how, what share was cut, and which ones did not come out right."""
    counts = Counter(result.outcome for result in results)
    lines = [f"{counts[outcome]:6} {outcome:8} {meaning}" for outcome, meaning in OUTCOMES.items()]
    shares = [result.share for result in results if result.outcome == "right"]
    uncut = sum(share == 0 for share in shares)
    if shares:
        lines.append(f"Of the parameters {statistics.mean(shares):.0%} were cut; nothing of {uncut} networks.")
    left = sum(bool(result.left) for result in results)
    lines.append(f"In {left} networks layers were left whole that could not be settled.")
    bad = sorted((result for result in results if result.reason), key=lambda result: (result.outcome, result.seed))
    return "\n".join([*lines, *(f"seed {result.seed}: {result.outcome}. {result.reason}" for result in bad)])


def keep(results: list[Result], file: Path) -> None:
    """Write what docs/coverage.md tells of the networks."""
    seeds, shares = [result.seed for result in results], [one.share for one in results if one.outcome == "right"]
    told = {
        "first": min(seeds),
        "last": max(seeds),
        "outcomes": dict(Counter(result.outcome for result in results).most_common()),
        "cut": statistics.mean(shares) if shares else 0.0,
        "uncut": sum(share == 0 for share in shares),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told) + "\n")


def _report_progress(results: list[Result], count: int, seconds: float) -> None:
    if len(results) % 20 == 0 or len(results) == count:
        counts = Counter(result.outcome for result in results)
        told = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        print(f"{len(results)}/{count} in {seconds:.0f} s: {told}", file=sys.stderr, flush=True)


def _one_thread() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="how many networks")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", type=int, metavar="SEED", help="print one network and what became of it")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "random_networks.json")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one entry a network")
    return parser.parse_args()


if __name__ == "__main__":
    main()
