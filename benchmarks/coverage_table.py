"""The table docs/coverage.md, from the results of benchmarks/coverage.py."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from benchmarks.records import Record, Records, digest

TITLES = {"torchvision": "torchvision, classification", "segmentation": "torchvision, segmentation", "timm": "timm"}
OUT_OF_SCOPE = ("too large", "not built")
FAULTS = ("wrong", "crashed")
WELL_CUT = 0.45  # of the parameters left
SHOWN = 10
MAIN = 3  # reasons for what is left
LONGEST_REASON = 110  # characters
PACKAGES = ("torch", "torchvision", "timm", "torch-pruning", "torch-kirigami")

PREFACE = """# Coverage: other people's networks

Written by `python benchmarks/coverage.py`; do not edit. Every model is pruned with
`secateur.prune(model, x, ratio=.5, min_channels=1)`, with nothing said about the model, in a process of its own.

- **right**: the pruned model equals the masked original to 1e-9 of how much the outputs vary from input to input (or
  to what the network itself makes of rounding, a millionth at most), on random weights, norm statistics and inputs, in
  float64. The judge shares no code with the proof that `prune` itself makes.
- **by**: how the masked original was made. *zeros*: what the plan removes is zero. *marks*: it is NaN, contractions
  read it as zero, and statistics across channels (layer norms, softmax, ...) leave it out. *mask*: only
  `secateur.mask` agrees.
- **wrong**: it does not. **refused**: secateur raised an error of its own. **left whole**: nothing was cut.
  **crashed**, **timeout**, **out of memory**: as it says. **not judged**: pruned and proved, but the judge could not
  compute. A model has 60 s of CPU for each step and 8 GB.
- **left**: the share of parameters that remain. A classifier's outputs and the input stay.
- **CPU s**: trace and groups / all of `prune`, or the peer's own way; seconds of one thread.
- **stays, mostly because**: what touches most parameters that stay, with their share; the outputs only where
  much is left.
"""
PEER = """- Torch-Pruning is used as its README shows (`GroupMagnitudeImportance(p=2)`, ratio 0.5, the classifier
  ignored), without hints for single models, and judged in the same way.
"""


def write_table(records: Records, file: Path) -> None:
    """Write the document."""
    ours = [record for record in records.of("secateur") if not record["model"].startswith("zoo/")]
    theirs = {record["model"]: record for record in records.of("torch_pruning")}
    tried = [record for record in ours if record["verdict"] not in OUT_OF_SCOPE]
    parts = [PREFACE + PEER if theirs else PREFACE, _versions(ours), "## Summary\n", *_summary(tried, theirs, ours)]
    parts += [_not_right(tried), _much_left(tried), *_further(records.file.parent)]
    parts += [_section(which, tried, theirs) for which in TITLES]
    parts += [_kirigami(records.of("kirigami"))]
    file.write_text("\n".join(part for part in parts if part).rstrip() + "\n")


def _versions(ours: list[Record]) -> str:
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    line = ", ".join(f"{name} {found[name]}" for name in PACKAGES if name in found)
    stale = sum(record["code"] != digest("secateur") for record in ours)
    return f"{line}. {_machine()}.{f' {stale} of the results are of an earlier state of the code.' if stale else ''}\n"


def _machine() -> str:
    """Name the processor that this runs on."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


# -- summary ---------------------------------------------------------------------------------------------------------


def _summary(tried: list[Record], theirs: dict[str, Record], ours: list[Record]) -> Iterable[str]:
    peers = [theirs[record["model"]] for record in tried if record["model"] in theirs]
    yield "| | models | right | wrong | left whole | refused or failed | not judged | lose at least 55 % |"
    yield "|---|---|---|---|---|---|---|---|"
    for which, title in TITLES.items():
        yield _counts(f"secateur, {title}", [record for record in tried if _set_of(record) == which])
    yield _counts("**secateur, all**", tried)
    if peers:
        yield _counts("Torch-Pruning, all", peers)
    yield ""
    beyond = Counter(record["verdict"] for record in ours if record["verdict"] in OUT_OF_SCOPE)
    if beyond:
        yield "- Beyond that, " + ", ".join(f"{count} {why}" for why, count in beyond.items()) + "."
    failed = Counter(record["verdict"] for record in tried if record["verdict"] in _FAILED)
    yield "- Refused or failed: " + (", ".join(f"{count} {why}" for why, count in failed.items()) or "none") + "."
    by_mask = [
        record["model"] for record in tried if record.get("reference") == "mask" and record["verdict"] == "right"
    ]
    yield f"- Right by `secateur.mask` only: {_listed(by_mask)}."
    yield from _speed(tried, theirs)


_FAILED = ("refused", "crashed", "timeout", "out of memory")


def _counts(title: str, records: list[Record]) -> str:
    verdicts = Counter(record["verdict"] for record in records)
    cut = sum(record["verdict"] == "right" and record["left"] <= WELL_CUT for record in records)
    failed = sum(verdicts[why] for why in _FAILED)
    cells = [len(records), verdicts["right"], verdicts["wrong"], verdicts["left whole"], failed, verdicts["not judged"]]
    return f"| {title} | {' | '.join(map(str, cells))} | {_percent(cut / len(records)) if records else '-'} |"


_MOST = {
    "trace_s": "Slowest, trace and groups, CPU s",
    "total_s": "Slowest, all of `prune`, CPU s",
    "gigabytes": "Most memory of the process by the end of `prune`, GiB",
}


def _speed(tried: list[Record], theirs: dict[str, Record]) -> Iterable[str]:
    ratios = {
        record["model"]: record["trace_s"] / theirs[record["model"]]["trace_s"]
        for record in tried
        if "trace_s" in record and "trace_s" in theirs.get(record["model"], {})
    }
    if ratios:
        slower = sorted((name for name in ratios if ratios[name] > 1), key=lambda name: -ratios[name])
        yield (
            "- Trace and groups against Torch-Pruning, CPU seconds: median ratio "
            f"{statistics.median(ratios.values()):.2f} over the {len(ratios)} models that both trace; "
            f"slower on {len(slower)}: {_listed([f'{name} {ratios[name]:.2f}x' for name in slower])}."
        )
    for key, what in _MOST.items():
        found = sorted((record for record in tried if key in record), key=lambda record: -record[key])
        most = [f"{record['model']} {record[key]:.1f}" for record in found[:SHOWN]]
        yield f"- {what}: {_listed(most)}."


# -- tables ----------------------------------------------------------------------------------------------------------


def _section(which: str, tried: list[Record], theirs: dict[str, Record]) -> str:
    records = [record for record in tried if _set_of(record) == which]
    if not records:
        return ""
    head = "| model | verdict | by | error | left | CPU s | stays, mostly because |\n|---|---|---|---|---|---|---|"
    rows = [f"| {_ours(record)} |" for record in records]
    if theirs:
        title, rule = head.splitlines()
        head = f"{title} Torch-Pruning | left | CPU s |\n{rule}---|---|---|"
        rows = [f"{row} {_peer(theirs.get(record['model']))} |" for row, record in zip(rows, records, strict=True)]
    return "\n".join([f"\n## {TITLES[which]}\n", head, *rows])


def _ours(record: Record) -> str:
    cells = [
        record["model"].partition("/")[2],
        record["verdict"] if record["verdict"] == "right" else f"**{record['verdict']}**",
        record.get("reference", ""),
        _cell(record, "error", "{:.0e}".format),
        _cell(record, "left", _percent),
        _seconds(record),
        _why(record),
    ]
    return " | ".join(cells)


def _peer(record: Record | None) -> str:
    if record is None:
        return "| |"
    words = {"right": "right", "wrong": "wrong", "left whole": "left whole", "not judged": "runs, not judged"}
    fails = f"fails: {_short(record.get('note') or record['verdict'], 60)}"
    if record["verdict"] == "timeout":
        fails = "timeout"
    return " | ".join([words.get(record["verdict"], fails), _cell(record, "left", _percent), _seconds(record)])


def _why(record: Record) -> str:
    """Return the largest reason beside the one that every model has, its outputs, unless much is left."""
    much = record.get("left", 0) > WELL_CUT
    reasons = [
        why for why in record.get("protected", []) if why[1] > 0.01 and (much or "leave the model" not in why[0])
    ]
    parts = [f"{_percent(reasons[0][1])}: {_short(reasons[0][0], LONGEST_REASON)}"] if reasons else []
    if record.get("repairs"):
        parts.append(f"{len(record['repairs'])} repaired")
    return "; ".join(parts)


def _not_right(tried: list[Record]) -> str:
    rows = [
        f"- **{record['model']}**, {record['verdict']}: {_short(record.get('note') or 'differs', 300)}"
        for record in tried
        if record["verdict"] not in ("right", "left whole")
    ]
    return "\n".join(["\n## What is not right\n", *rows]) if rows else ""


def _much_left(tried: list[Record]) -> str:
    rows = [
        f"- **{record['model']}**, {_percent(record['left'])}: "
        + "; ".join(f"{_short(why, LONGEST_REASON)} ({_percent(share)})" for why, share in record["protected"][:MAIN])
        for record in tried
        if record["verdict"] == "right" and record["left"] > WELL_CUT
    ]
    return "\n".join(["\n## What keeps more than 45 % of its parameters, and why\n", *rows]) if rows else ""


def _further(results: Path) -> Iterable[str]:
    """Tell of the networks of other benchmarks, if their results lie there."""
    if (drawn := results / "unseen.jsonl").exists():
        unseen = list(Records(drawn).by_job.values())
        verdicts = Counter(record["verdict"] for record in unseen)
        yield "\n## Networks that nobody looked at before\n"
        yield (
            f"By `python benchmarks/unseen.py`: {len(unseen)} networks of timm drawn at random: "
            f"{', '.join(f'{count} {verdict}' for verdict, count in verdicts.most_common())}; the last "
            f"{streak(unseen)} that could be built and were not too large right in a row."
        )
    if (made := results / "random_networks.json").exists():
        told = json.loads(made.read_text())
        yield "\n## Random networks\n"
        yield (
            f"By `python benchmarks/random_networks.py`, the seeds {told['first']} to {told['last']}: "
            f"{', '.join(f'{count} {outcome}' for outcome, count in told['outcomes'].items())}; "
            f"{_percent(told['cut'])} of the parameters cut on average, nothing of {told['uncut']} networks. "
            "*mute*: the outputs do not depend on the inputs, so that nothing can be compared."
        )


def streak(records: list[Record]) -> int:
    """Count the models that were right since the last that was wrong or crashed; others neither count nor end it."""
    length = 0
    for record in records:
        length = 0 if record["verdict"] in FAULTS else length + (record["verdict"] == "right")
    return length


def _kirigami(records: list[Record]) -> str:
    if not records:
        return ""
    rows = [f"| {record['model']} | {_peer(record)} |" for record in records]
    head = "| model | verdict | left | CPU s |\n|---|---|---|---|"
    return "\n".join(["\n## torch-kirigami, to half of the parameters, 60 s for each step\n", head, *rows])


# -- cells -----------------------------------------------------------------------------------------------------------


def _set_of(record: Record) -> str:
    return record["model"].partition("/")[0]


def _cell(record: Record, key: str, show: Callable[[float], str]) -> str:
    return show(record[key]) if key in record else ""


def _seconds(record: Record) -> str:
    trace, total = (_cell(record, key, "{:.2f}".format) for key in ("trace_s", "total_s"))
    return f"{trace} / {total or '-'}" if trace else ""


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _short(text: str, length: int) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3 * SHOWN} more" if len(names) > 3 * SHOWN else ""
    return (", ".join(names[: 3 * SHOWN]) + more) or "none"
