"""An adversary: networks of timm that nobody looked at before, drawn at random, pruned and judged.

python benchmarks/unseen.py [--count 20] [--seed 7] [--jobs 2]

What was drawn once, or stands in the results of benchmarks/coverage.py, is not drawn again. Prints what was wrong, and
how many were right in a row. The exit code is 1 if anything was wrong or crashed.
"""

from __future__ import annotations

import argparse
import datetime
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = str(Path(__file__).resolve().parent)  # has a `coverage` that is not the package of that name
sys.path[:] = [str(ROOT), str(ROOT / "src"), *(path for path in sys.path if path != HERE)]

from benchmarks.coverage_table import FAULTS, streak  # noqa: E402
from benchmarks.isolation import Limits  # noqa: E402
from benchmarks.models import EVERY, all_of_timm  # noqa: E402
from benchmarks.records import RESULTS, Record, Records, run_all, summary  # noqa: E402

IN_ORDER = ("right", "left whole")
SKIPPED = ("too large", "not built")


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    records = Records(options.out)
    names = drawn(options.seed, options.count, seen=set(_models(records)) | set(_models(Records(options.coverage))))
    print(f"seed {options.seed}: {len(names)} models of timm, {len(_models(records))} drawn before", flush=True)
    limits = Limits(options.seconds, options.gigabytes)
    jobs = [("secateur", name) for name in names]
    interrupted = False
    try:
        run_all(jobs, records, limits, workers=options.jobs, tell=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        interrupted = True
    found = [records.by_job[job] for job in jobs if job in records.by_job]
    print(report(found, records))
    return 130 if interrupted else int(any(record["verdict"] in FAULTS for record in found))


def drawn(seed: int, count: int, seen: set[str]) -> list[str]:
    """Draw models of timm that were not looked at, nor are among those that benchmarks/coverage.py looks at."""
    names = all_of_timm()
    fresh = [name for name in names if name not in seen and name not in names[::EVERY]]
    return random.Random(seed).sample(fresh, min(count, len(fresh)))  # noqa: S311 - nothing secret


def report(found: list[Record], records: Records) -> str:
    """Tell what was not in order, and how many were right in a row, those of earlier runs included."""
    tried = [record for record in found if record["verdict"] not in SKIPPED]
    lines = [summary(record) for record in tried if record["verdict"] not in IN_ORDER]
    right = sum(record["verdict"] == "right" for record in tried)
    lines.append(f"{right} of {len(tried)} right; {streak(list(records.by_job.values()))} in a row without a fault")
    return "\n".join(lines)


def _models(records: Records) -> list[str]:
    return [model for _, model in records.by_job]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="how many models")
    parser.add_argument("--seed", type=int, default=today.toordinal(), help="what the draw hangs on; default: the day")
    parser.add_argument("--jobs", type=int, default=1, help="how many run side by side")
    parser.add_argument("--seconds", type=float, default=120, help="CPU seconds for each step of a model")
    parser.add_argument("--gigabytes", type=float, default=8, help="memory for each model")
    parser.add_argument("--out", type=Path, default=RESULTS / "unseen.jsonl", help="where results are kept")
    parser.add_argument("--coverage", type=Path, default=RESULTS / "coverage.jsonl", help="what was looked at there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
