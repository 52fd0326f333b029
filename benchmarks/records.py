"""Results of pruners on models: each in a process of its own, kept in a file of JSON lines that grows as they come."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.isolation import Ending, Limits, run_within

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CHILD = Path(__file__).with_name("contenders.py")
PRUNING = ("graph", "planning", "surgery")  # the folders whose code runs where a network is pruned and proved

Record = dict[str, Any]
Job = tuple[str, str]  # contender, model


class Records:
    """What is known of each contender on each model; the last result counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may have been cut short
        self.by_job: dict[Job, Record] = {(one["contender"], one["model"]): one for one in found}
        if lines and not file.read_text().endswith("\n"):
            with file.open("a") as end:
                end.write("\n")

    def add(self, record: Record) -> None:
        """Keep a result, in the file at once."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        self.by_job[record["contender"], record["model"]] = record

    def of(self, contender: str) -> list[Record]:
        """Return the results of one contender, by model."""
        return [record for (who, _), record in sorted(self.by_job.items()) if who == contender]


def run_all(
    jobs: Sequence[Job],
    records: Records,
    limits: Limits,
    ratio: float = 0.5,
    workers: int = 1,
    tell: Callable[[str], None] = print,
) -> None:
    """Run jobs side by side and keep their results; an interruption ends what runs and keeps the rest."""
    stop, start = threading.Event(), time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(run_one, job, limits, ratio, stop): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(running), 1):
                record = future.result()
                records.add(record)
                left = (time.monotonic() - start) / done * (len(jobs) - done)
                tell(f"[{done:3}/{len(jobs)}] {summary(record)}  (about {left / 60:.0f} min left)")
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            tell(f"Interrupted; what is done is kept in {records.file}. The same command goes on from there.")
            raise


def run_one(job: Job, limits: Limits, ratio: float, stop: threading.Event | None = None) -> Record:
    """Run one contender on one model."""
    contender, model = job
    ending = run_within([sys.executable, str(CHILD), contender, model, str(ratio)], limits, stop)
    record: Record = {"contender": contender, "model": model, "code": digest(contender)}
    for step in ending.steps:
        record.update(step)
    return record if "verdict" in record else {**record, **_unfinished(record.get("step", "begun"), ending)}


def _unfinished(reached: str, ending: Ending) -> Record:
    if ending.how in ("done", "crashed"):
        words = ending.last_words.splitlines()
        return {
            "verdict": "crashed",
            "note": f"after it was {reached}: {words[-1] if words else 'without a word'}"[:400],
        }
    if reached == "pruned":
        return {"verdict": "not judged", "note": f"{ending.how} while it was judged"}
    return {"verdict": ending.how, "note": f"after it was {reached}"}


def digest(contender: str) -> str:
    """Return a short name of our code as it is now, as far as it prunes; of a peer, nothing: its version is fixed."""
    if contender != "secateur":
        return ""
    code, source = hashlib.sha256(), ROOT / "src" / "secateur"
    for file in sorted([*source.glob("*.py"), *(file for part in PRUNING for file in (source / part).rglob("*.py"))]):
        if file.parent.name != "explanation":  # words for people
            code.update(file.read_bytes())
    return code.hexdigest()[:8]


def summary(record: Record) -> str:
    """Return a result in one line."""
    parts = [f"{record['contender']:13} {record['model']:50} {record['verdict']}"]
    if "error" in record:
        parts.append(f"{record['error']:.0e} by {record['reference']}")
    if "left" in record:
        parts.append(f"{record['left']:.0%} left")
    if "trace_s" in record:
        parts.append(f"trace {record['trace_s']:.2f} s")
    if "total_s" in record:
        parts.append(f"total {record['total_s']:.1f} s")
    if record.get("note") and record["verdict"] != "right":
        parts.append(record["note"][:160])
    return "  ".join(parts)


def pending(jobs: Iterable[Job], records: Records, stale: bool = False) -> list[Job]:
    """Return the jobs that have no result yet; `stale`: or one of other code than ours is now."""
    now = digest("secateur") if stale else ""
    return [
        job
        for job in jobs
        if job not in records.by_job or (stale and job[0] == "secateur" and records.by_job[job]["code"] != now)
    ]
