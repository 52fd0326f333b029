"""What pruning without labels costs, by criterion and by way of recovery, with the peer beside it in one run.

python benchmarks/recover.py [--data DIR] [--parts imagenet,criteria,curves,quality,modnet] [--seeds 0,1,2]

Writes docs/recovery.md and docs/recovery.png. What was measured is kept in benchmarks/results/recovery, line by line,
so that a second run goes on where the first was interrupted; delete that folder to begin anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import secateur  # noqa: E402
from benchmarks.recovery import page, ways  # noqa: E402
from benchmarks.recovery.subjects import RESULTS, Subject, cifar, imagenet, mnist  # noqa: E402
from secateur.models.checkpoints import load_checkpoint  # noqa: E402
from secateur.models.pictures import pictures_in, prepared_pictures  # noqa: E402
from secateur.models.registry import zoo_entry  # noqa: E402
from secateur.training.classification import LabelledImages, accuracy, fit_classifier  # noqa: E402

BUDGETS = (0.83, 0.655)
CRITERIA_BUDGETS = (0.9, 0.83, 0.655)
CRITERIA = ("l1", "l2", "fpgm", "lamp", "bn_scale", "activation", "variance", "taylor", "fisher", "obs", "random")
PEERS = ("GroupMagnitude", "FPGM", "LAMP", "BNScale", "GroupTaylor", "Random")  # Torch-Pruning's
RANKED = ("l1", "variance", "fisher", "obs")  # also tried with groups ranked by what is lost with them
TRAINED = (0.2, 0.4, 0.6, 0.8)  # ratios at which training goes on
PEER = "Torch-Pruning"  # GroupMagnitude, in steps to the MACs that l1 has at that ratio
TRAINED_WAYS = (("l1", "none"), ("l1", "ridge"), ("l1", "mimicking"), ("obs", "ridge"), (PEER, "none"))
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
WAYS = ("none", "mean", "statistics", "ridge", "ridge, statistics", "layers", "mimicking")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SECATEUR_DATA", str(ROOT / "../shared/data")))
    parser.add_argument("--parts", default="imagenet,criteria,curves,quality,modnet")
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    logging.getLogger("secateur").setLevel(logging.ERROR)
    data, ledger = Path(given.data).resolve(), Ledger(RESULTS / "records.jsonl")
    seeds = [int(seed) for seed in given.seeds.split(",")]
    parts: dict[str, Callable[[], None]] = {
        "imagenet": lambda: _imagenet(ledger, data, seeds),
        "criteria": lambda: _criteria(ledger, data, seeds),
        "curves": lambda: _curves(ledger, data, seeds),
        "quality": lambda: _quality(ledger, data),
        "modnet": lambda: _modnet(ledger, data),
    }
    for part in given.parts.split(","):
        parts[part]()
        page.write(ledger.records(), ROOT / "docs")


@dataclass(frozen=True)
class Ledger:
    """A line of JSON for each measurement."""

    path: Path

    def records(self) -> list[dict[str, Any]]:
        """Return what was measured."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.is_file() else []

    def note(self, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
        """Measure, unless that was done before."""
        if any(key.items() <= record.items() for record in self.records()):
            return
        record = {**key, **measure()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)


def _imagenet(ledger: Ledger, data: Path, seeds: Sequence[int]) -> None:
    """The table of the defaults: three draws of calibration pictures, two budgets."""
    for seed in seeds:
        subject = imagenet(data, seed)
        ledger.note(
            {"part": "imagenet", "seed": seed, "macs": 1.0, "way": "full"},
            lambda subject=subject: {"score": subject.score(subject.model)},
        )
        graph = secateur.trace(subject.model, subject.example)
        for macs in BUDGETS:
            for way, make in _imagenet_ways(subject, graph, macs):
                key = {"part": "imagenet", "seed": seed, "budget": macs, "way": way}
                ledger.note(key, lambda subject=subject, make=make: ways.outcome(subject, make).as_json())


def _imagenet_ways(subject: Subject, graph: Any, macs: float) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    budget = {"macs": f"{macs}x", "criterion": "l1"}
    yield "secateur, defaults", lambda: ways.by_default(subject, macs)
    yield "secateur, defaults and 60 steps of mimicking", lambda: ways.by_default(subject, macs, mimic=60)
    yield "L1, nothing else", lambda: ways.by_plan(subject, graph, "none", **budget)
    yield "L1, statistics anew", lambda: ways.by_plan(subject, graph, "statistics", **budget)
    yield "L1, ridge", lambda: ways.by_plan(subject, graph, "ridge", **budget)
    for importance in ("GroupMagnitude", "GroupTaylor"):
        for statistics in (False, True):
            way = f"Torch-Pruning, {importance}{', statistics anew' if statistics else ''}"
            finish = partial(ways.with_statistics, subject) if statistics else nn.Module.eval
            yield way, lambda i=importance, finish=finish: finish(ways.by_torch_pruning(subject, macs, i))


def _criteria(ledger: Ledger, data: Path, seeds: Sequence[int]) -> None:
    """Every criterion at three budgets, with and without compensation, and the peer's with and without statistics."""
    for seed in seeds:
        subject = imagenet(data, seed)
        for key, make in (*_own_criteria(subject), *_peers_criteria(subject)):
            ledger.note(
                {"part": "criteria", "seed": seed, **key}, lambda s=subject, m=make: ways.outcome(s, m).as_json()
            )


def _own_criteria(subject: Subject) -> Iterator[tuple[dict[str, Any], Callable[[], nn.Module]]]:
    graph = secateur.trace(subject.model, subject.example)
    calibration = secateur.calibrate(subject.model, graph, subject.batches(), loss=ways.own_labels)
    sensitivity = cache(partial(ways.sensitivity_of, subject, graph, calibration))

    def make(how: str, **budget: Any) -> nn.Module:
        if budget["ranking"] == "loss":
            budget["sensitivity"] = sensitivity(budget["criterion"])
        return ways.by_plan(subject, graph, how, calibration, **budget)

    for macs, (criterion, ranking, how) in product(CRITERIA_BUDGETS, _criteria_ways()):
        key = {"budget": macs, "criterion": criterion, "ranking": ranking, "way": how}
        yield key, partial(make, how, macs=f"{macs}x", criterion=criterion, ranking=ranking)


def _peers_criteria(subject: Subject) -> Iterator[tuple[dict[str, Any], Callable[[], nn.Module]]]:
    for macs, importance in product(CRITERIA_BUDGETS, PEERS):
        pruned = cache(partial(ways.by_torch_pruning, subject, macs, importance))
        yield {"budget": macs, "peer": importance, "way": "none"}, pruned
        yield (
            {"budget": macs, "peer": importance, "way": "statistics"},
            lambda p=pruned: ways.with_statistics(subject, p()),
        )


def _criteria_ways() -> Iterator[tuple[str, str, str]]:
    """Criterion, ranking, and way to recover."""
    for criterion in CRITERIA:
        yield from ((criterion, "group", "none"), (criterion, "group", "ridge"))
        if criterion in RANKED:
            yield criterion, "loss", "ridge"


def _curves(ledger: Ledger, data: Path, seeds: Sequence[int]) -> None:
    """Two networks trained here, by ratio and by way of recovery, and trained on from there."""
    for seed in seeds:
        for subject in (cifar(data, seed), mnist(data, seed)):
            of_subject = {"part": "curves", "subject": subject.name}
            full = partial(subject.score, subject.model)
            ledger.note({**of_subject, "ratio": 0.0, "way": "full"}, lambda full=full: {"score": full()})
            for key, make in _trained_on(subject):
                ledger.note({**of_subject, "seed": seed, **key}, lambda s=subject, m=make: ways.outcome(s, m).as_json())


def _trained_on(subject: Subject) -> Iterator[tuple[dict[str, Any], Callable[[], nn.Module]]]:
    graph = secateur.trace(subject.model, subject.example)
    calibration = secateur.calibrate(subject.model, graph, subject.batches())

    def by_peer(ratio: float, way: str) -> nn.Module:
        budget: dict[str, Any] = {"ratio": ratio, "criterion": "l1", "min_channels": 2}
        share = ways.share_of(subject, ways.by_plan(subject, graph, "none", calibration, **budget))
        small = ways.by_torch_pruning(subject, share, "GroupMagnitude")
        return ways.with_statistics(subject, small) if way == "statistics" else small

    def make(ratio: float, criterion: str, way: str, epochs: int) -> nn.Module:
        if criterion == PEER:
            small = by_peer(ratio, way)
        else:
            small = ways.by_plan(subject, graph, way, calibration, ratio=ratio, criterion=criterion, min_channels=2)
        if epochs:
            fit_classifier(small, subject.calibration, epochs, rate=5e-4, batch=64)
        return small

    for ratio, criterion, way, epochs in _curves_ways():
        key = {"ratio": ratio, "way": way, "criterion": criterion, "epochs": epochs}
        yield key, partial(make, **key)


def _curves_ways() -> Iterator[tuple[float, str, str, int]]:
    """Ratio, criterion, way to recover, and epochs of training after it."""
    for ratio in RATIOS:
        for criterion, way in [*(("l1", way) for way in WAYS), ("obs", "ridge"), (PEER, "none"), (PEER, "statistics")]:
            yield ratio, criterion, way, 0
            if ratio in TRAINED and (criterion, way) in TRAINED_WAYS:
                yield ratio, criterion, way, 1


def _quality(ledger: Ledger, data: Path) -> None:
    """A metric that may fall by a hundredth: searched on one half of the test pictures, judged on the other."""
    for subject in (cifar(data), mnist(data, name="LeNet, MNIST")):
        searched, judged = (
            LabelledImages(subject.test.images[start::2], subject.test.labels[start::2]) for start in (0, 1)
        )

        def measure(subject: Subject = subject, searched: Any = searched, judged: Any = judged) -> dict[str, Any]:
            small, plan = secateur.prune(
                subject.model,
                subject.example,
                quality="-1%",
                metric=lambda model: accuracy(model, searched),
                calibrate=subject.batches(),
                min_channels=2,
            )
            return {
                "macs": round(plan.recipe["quality"]["macs"], 3),
                "searched": [100 * accuracy(model, searched) for model in (subject.model, small)],
                "judged": [100 * accuracy(model, judged) for model in (subject.model, small)],
            }

        ledger.note({"part": "quality", "subject": subject.name}, measure)


def _modnet(ledger: Ledger, data: Path) -> None:
    """A quarter of MODNet's MACs: the error of its outputs on portraits, step by step."""
    key = {"part": "modnet", "macs": 0.25}

    def measure() -> dict[str, Any]:
        torch.manual_seed(0)
        entry = zoo_entry("modnet")
        model = entry.build().eval()
        load_checkpoint(model.backbone.model, data / "pretrained/mobilenet_v2-b0353104.pth", strict=False)
        paths = pictures_in(data / "pif_portraits/image", 48)
        pictures = list(prepared_pictures(paths, (1, 3, 256, 256), entry.mean, entry.std))
        example = torch.zeros(1, 3, 256, 256)
        _, plan = secateur.prune(model, example, macs="0.25x", calibrate=pictures, min_channels=4)
        return dict(plan.recipe["compensation"]["errors"])

    ledger.note(key, measure)


if __name__ == "__main__":
    main()
