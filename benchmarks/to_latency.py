"""Prune to half of the time on each runtime, measure again, and set every plan beside the others on every runtime.

python benchmarks/to_latency.py [--models modnet,mobilenetv2,resnet50,vit_b_16] [--on torch,onnxruntime,openvino]
    [--latency 0.5] [--threads 2]

Writes docs/latency.md. What was pruned is kept in benchmarks/results/latency, so that a second run goes on where the
first was interrupted; delete that folder to begin anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import secateur  # noqa: E402
from benchmarks.foreign import Foreign  # noqa: E402
from secateur.artifact.reading import read  # noqa: E402
from secateur.measurement.contest import contest  # noqa: E402
from secateur.measurement.statistics import Ratio  # noqa: E402
from secateur.models.registry import ZOO  # noqa: E402
from secateur.runtimes.machine import this_machine  # noqa: E402
from secateur.runtimes.network import Network  # noqa: E402
from secateur.runtimes.session import Options  # noqa: E402
from secateur.runtimes.shapes import Sizes  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "latency"
PAGE = ROOT / "docs" / "latency.md"
MISSED = 0.05  # share of the budget
SURE = 0.02  # half of an interval, as a share of what was measured
PREFACE = """# Pruned to {latency:g}x of the time

Written by `python benchmarks/to_latency.py`; do not edit. Every model (random weights, batch 1) is pruned with
`secateur.prune(model, x, latency={latency:g}, on=RUNTIME, threads={threads})` for each runtime. Then every plan is
measured again beside the unpruned model, in turns, in a fresh process, on every runtime.

- **measured**: time as a share of the unpruned model's, with the 95 % interval, on the runtime that the plan was made
  for. What is more than 5 % above or below the budget is marked.
- **importance**: the harmonic mean of the shares of it (L1) that groups keep. **candidates**, **s**: how many pruned
  models the search measured, and how long all of it took.
- **elsewhere**: the same plan on the other runtimes. **beaten by**: plans made for another runtime that are faster
  here, beyond the intervals of both, and keep more importance.

Measured on {machine}.

| model | made for | full, ms | measured | MACs | importance | candidates | s | elsewhere | beaten by |
|---|---|---:|---|---:|---:|---:|---:|---|---|"""


@dataclass(frozen=True)
class Setup:
    """What is asked for."""

    latency: float
    threads: int
    runtimes: list[str]


def main() -> None:
    """Prune, measure, and write the page."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    logging.getLogger("secateur.artifact").setLevel(logging.WARNING)
    RESULTS.mkdir(parents=True, exist_ok=True)
    setup = Setup(options.latency, options.threads, options.on.split(","))
    rows = [row for name in options.models.split(",") for row in _rows(name, setup)]
    PAGE.write_text(_page(rows, setup), encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")


def _rows(name: str, setup: Setup) -> list[dict[str, Any]]:
    """Return what was measured of a model: a row for each plan and each runtime that it ran on."""
    kept = RESULTS / f"{name}-{setup.latency:g}-{setup.threads}-{'-'.join(setup.runtimes)}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    model, example = _model(name)
    plans = {runtime: _pruned(name, model, example, runtime, setup) for runtime in setup.runtimes}
    full = Network.of_model("full", model, example)
    rows = []
    for own, known in plans.items():
        small = Network.of_model(own, secateur.load(_file(name, own, setup), into=_model(name)[0]), example)
        for runtime in setup.runtimes:
            print(f"{name}: the plan for {own} on {runtime}", flush=True)
            rows.append(
                {"model": name, "plan": own, "runtime": runtime, **_timed(full, small, runtime, setup), **known}
            )
    kept.write_text(json.dumps(rows, indent=1))
    return rows


def _timed(full: Network, small: Network, runtime: str, setup: Setup) -> dict[str, float]:
    """Time a plan and the unpruned model in turns, in a fresh process."""
    options = Options(threads=setup.threads)
    one, other = contest([full, small], runtime, options, Sizes(), 3.0, alone=False, sure=_is_sure)
    ratio = one.times_as_fast_as(other)
    if ratio is None:
        sys.exit(f"{full.name} and {small.name} on {runtime}: {one.why} {other.why}")
    return {"time": ratio.value, "low": ratio.low, "high": ratio.high, "full_ms": one.spread.median}


def _is_sure(ratio: Ratio) -> bool:
    return (ratio.high - ratio.low) / 2 <= SURE * ratio.value


def _pruned(name: str, model: nn.Module, example: torch.Tensor, runtime: str, setup: Setup) -> dict[str, Any]:
    """Prune for a runtime, or read what was pruned before; return what the table says of it."""
    file = _file(name, runtime, setup)
    if not file.exists():
        print(f"{name}: to {setup.latency:g}x on {runtime}", flush=True)
        start = time.monotonic()
        small, plan = secateur.prune(model, example, latency=setup.latency, on=runtime, threads=setup.threads)
        secateur.save(file, small, plan, provenance={"seconds": round(time.monotonic() - start, 1)})
    contents = read(file)
    recipe = contents.plan.recipe
    found = recipe["latency"]
    return {
        "macs": recipe["reached"]["macs"] / secateur.trace(model, example).costs.macs(),
        "importance": recipe["importance"],
        "candidates": len(found["candidates"]),
        "searched": found["chosen"]["time"],
        "seconds": contents.provenance["seconds"],
    }


def _file(name: str, runtime: str, setup: Setup) -> Path:
    return RESULTS / f"{name}-{runtime}-{setup.latency:g}-{setup.threads}.safetensors"


def _model(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if name in ZOO:
        return ZOO[name].build().eval(), ZOO[name].example()
    return Foreign(name).eval(), torch.zeros(1, 3, 224, 224)


def _page(rows: list[dict[str, Any]], setup: Setup) -> str:
    lines = [PREFACE.format(latency=setup.latency, threads=setup.threads, machine=this_machine())]
    for row in rows:
        if row["plan"] != row["runtime"]:
            continue
        same = [one for one in rows if one["model"] == row["model"]]
        elsewhere = [one for one in same if one["plan"] == row["plan"] and one["runtime"] != row["runtime"]]
        here = [one for one in same if one["runtime"] == row["runtime"] and one["plan"] != row["plan"]]
        beaten = [one["plan"] for one in here if one["high"] < row["low"] and one["importance"] > row["importance"]]
        off = row["time"] / setup.latency - 1
        mark = "" if abs(off) <= MISSED else " **above**" if off > 0 else " **below**"
        lines.append(
            f"| {row['model']} | {row['plan']} | {row['full_ms']:.1f} | {_share(row)}{mark} | {row['macs']:.2f}x | "
            f"{row['importance']:.2f} | {row['candidates']} | {row['seconds']:.0f} | "
            f"{', '.join(map(_where, elsewhere))} | {', '.join(beaten) or 'none'} |"
        )
    return "\n".join(lines) + "\n"


def _where(row: dict[str, Any]) -> str:
    return f"{row['runtime']} {_share(row)}"


def _share(row: dict[str, Any]) -> str:
    return f"{row['time']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="modnet,mobilenetv2,resnet50,vit_b_16")
    parser.add_argument("--on", default="torch,onnxruntime,openvino")
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
