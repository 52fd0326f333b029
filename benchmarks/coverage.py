"""On how many of other people's networks secateur is right, and how fast, beside its peers.

python benchmarks/coverage.py [--set torchvision] [--only timm/levit_128,...] [--jobs 2] [--no-peers] [--table]

Each network is pruned at ratio 0.5 in a process of its own and judged on random numbers in float64
(`benchmarks/judging.py`). Results are kept as they come: the same command goes on where an earlier one ended. At the
end the table docs/coverage.md is written; `--table` writes it from what there is, and runs nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = str(Path(__file__).resolve().parent)  # has a `coverage` that is not the package of that name
sys.path[:] = [str(ROOT), str(ROOT / "src"), *(path for path in sys.path if path != HERE)]

from benchmarks.coverage_table import write_table  # noqa: E402
from benchmarks.isolation import Limits  # noqa: E402
from benchmarks.models import SETS, names_of  # noqa: E402
from benchmarks.records import RESULTS, Job, Records, pending, run_all  # noqa: E402

KIRIGAMI = tuple(
    f"torchvision/{name}"
    for name in (
        "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121", "shufflenet_v2_x1_0",
        "regnet_y_400mf", "convnext_tiny", "vit_b_32", "swin_t",
    )
)  # fmt: skip
PACKAGES = {"torch_pruning": "torch_pruning", "kirigami": "torch_kirigami"}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    records = Records(options.out)
    if not options.table:
        jobs = pending(jobs_of(_names(options), peers=not options.no_peers), records, options.stale)
        limits = Limits(options.seconds, options.gigabytes)
        try:
            run_all(jobs, records, limits, workers=options.jobs, tell=_say)
        except KeyboardInterrupt:
            return 130
    if options.document is not None and records.by_job:
        write_table(records, options.document)
        _say(f"wrote {options.document}")
    return 0


def jobs_of(names: list[str], peers: bool) -> list[Job]:
    """Return what to run, a model's contenders one after another."""
    jobs = [("secateur", name) for name in names]
    if peers and _installed("torch_pruning"):
        jobs += [("torch_pruning", name) for name in names]
    if peers and _installed("kirigami"):
        jobs += [("kirigami", name) for name in KIRIGAMI if name in names]
    return sorted(jobs, key=lambda job: names.index(job[1]))


def _installed(contender: str) -> bool:
    return importlib.util.find_spec(PACKAGES[contender]) is not None


def _names(options: argparse.Namespace) -> list[str]:
    if options.only:
        return options.only.split(",")
    return [name for which in options.set or SETS for name in names_of(which)]


def _say(line: str) -> None:
    print(line, flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=[*SETS, "zoo"], help="may be given more than once")
    parser.add_argument("--only", default="", help="names of models such as timm/levit_128, separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="how many run side by side (they slow each other down)")
    parser.add_argument("--no-peers", action="store_true", help="leave the other pruners out")
    parser.add_argument("--stale", action="store_true", help="run again what was found with other code than now")
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds for each step of a model")
    parser.add_argument("--gigabytes", type=float, default=8, help="memory for each model")
    parser.add_argument("--out", type=Path, default=RESULTS / "coverage.jsonl", help="where results are kept")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "coverage.md", help="where the table goes")
    parser.add_argument("--no-document", dest="document", action="store_const", const=None, help="write no table")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table of what there is")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
