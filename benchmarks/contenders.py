"""One pruner on one network, in a process of its own: `python benchmarks/contenders.py PRUNER MODEL RATIO STEPS`.

Each step appends a line of JSON to the file STEPS. Speed is CPU seconds of one thread, after a warm-up on a small net.
"""

from __future__ import annotations

import copy
import json
import logging
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
HERE = str(Path(__file__).resolve().parent)  # has a `coverage` that is not the package of that name
sys.path[:] = [str(ROOT), str(ROOT / "src"), *(path for path in sys.path if path != HERE)]

import secateur  # noqa: E402
from benchmarks.judging import Judgement, judge_plan, judge_pruner  # noqa: E402
from benchmarks.marking import double_precision  # noqa: E402
from benchmarks.models import Subject, TooLargeError, build, classifiers, count_parameters  # noqa: E402
from tests.oracle import tensors_of  # noqa: E402

ROUNDS = 3  # whose fastest counts
LONGEST_ROUNDS = 5.0  # seconds, after which no further round is begun

Steps = Iterator[dict[str, Any]]


def main() -> None:
    contender, name, ratio, file = sys.argv[1:]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with Path(file).open("a") as steps:
        for step in steps_of(contender, name, float(ratio)):
            steps.write(json.dumps(step) + "\n")
            steps.flush()


def steps_of(contender: str, name: str, ratio: float) -> Steps:
    """Build, trace, prune and judge, and tell of each; the last step has a verdict."""
    try:
        subject = build(name)
    except TooLargeError as error:
        yield {"verdict": "too large", "note": str(error)}
        return
    except Exception as error:  # noqa: BLE001 - a model that cannot be built is a result
        yield {"verdict": "not built", "note": told(error)}
        return
    yield {"step": "built", "parameters": subject.parameters}
    try:
        yield from CONTENDERS[contender](subject, ratio)
    except secateur.SecateurError as error:
        yield {"verdict": "refused", "note": told(error)}
    except Exception as error:  # noqa: BLE001 - a crash is a result
        yield {"verdict": "crashed", "note": told(error)}


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


# -- secateur --------------------------------------------------------------------------------------------------------


def _secateur(subject: Subject, ratio: float) -> Steps:
    model, example = subject.model, subject.example
    secateur.prune(*_small_net(), ratio=0.5)
    repairs = _Messages()
    logging.getLogger("secateur").addHandler(repairs)
    yield {"step": "traced", "trace_s": fastest(lambda: secateur.trace(model, example).groups)}
    yield {"step": "explained", "protected": protected(secateur.trace(model, example))}
    start = time.process_time()
    small, plan = secateur.prune(model, example, ratio=ratio, min_channels=1)
    yield {
        "step": "pruned",
        "total_s": time.process_time() - start,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,  # the process' most, torch and all
        "left": count_parameters(small) / subject.parameters,
        "statistics": len(plan.statistics),
        "proof": plan.proof.mask_error,
        "notes": list(plan.proof.notes),
        "repairs": repairs.texts,
    }
    if plan.is_empty:
        yield {"verdict": "left whole"}
        return
    yield _verdict(judge_plan(model, small, plan, example, secateur.cut, secateur.mask))


class _Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage()[:300])


def protected(graph: Any) -> list[list[Any]]:
    """Return why channels stay, with the share of the model's parameters that they touch, largest first."""
    free: dict[tuple[str, str], float] = {}  # the share of a tensor that a reason does not touch
    for one in graph.protected:
        info = graph.tensors[one.tensor]
        if info.is_buffer or (one.axis != "grouped" and one.axis >= 2 and _is_filter(graph, one.tensor)):
            continue  # a filter's height and width are no channels
        size = info.conv_groups * info.shape[1] if one.axis == "grouped" else info.shape[one.axis]
        key = (_reason(one.reason), one.tensor)
        free[key] = free.get(key, 1.0) * (1 - len(one.indices) / size)
    held: Counter[str] = Counter()
    for (why, tensor), share in free.items():
        held[why] += round((1 - share) * torch.Size(graph.tensors[tensor].shape).numel())
    whole = sum(torch.Size(info.shape).numel() for info in graph.tensors.values() if not info.is_buffer)
    return [[why, round(count / max(whole, 1), 4)] for why, count in held.most_common(5)]


def _is_filter(graph: Any, tensor: str) -> bool:
    path, _, key = tensor.rpartition(".")
    return key == "weight" and isinstance(graph.model.get_submodule(path), nn.modules.conv._ConvNd)


def _reason(reason: Any) -> str:
    file, _, line = reason.source.rpartition(":")
    where = f" ({Path(file).name}:{line})" if file else ""
    return f"{reason.op + ': ' if reason.op else ''}{reason.text}{where}"


# -- its peers -------------------------------------------------------------------------------------------------------


def _torch_pruning(subject: Subject, ratio: float) -> Steps:
    import torch_pruning as tp

    small, example = _small_net()
    _prune_as_readme(tp, small, example, [], ratio)
    example = subject.example
    example = torch.randn(example.shape) if isinstance(example, torch.Tensor) else example

    def groups() -> object:
        graph = tp.DependencyGraph().build_dependency(subject.model, example_inputs=example, verbose=False)
        return list(graph.get_all_groups())

    yield {"step": "traced", "trace_s": fastest(groups)}
    names = [name for name, module in subject.model.named_modules() if module in set(classifiers(subject))]
    with torch.no_grad():
        shapes = [tensor.shape for tensor in tensors_of(subject.model(example))]
    pruned = copy.deepcopy(subject.model)
    ignored = [pruned.get_submodule(name) for name in names]
    start = time.process_time()
    history = _prune_as_readme(tp, pruned, example, ignored, ratio)
    total = time.process_time() - start
    yield {"step": "pruned", "total_s": total, "left": count_parameters(pruned) / subject.parameters}
    with torch.no_grad():
        if [tensor.shape for tensor in tensors_of(pruned.eval()(example))] != shapes:
            yield {"verdict": "wrong", "note": "the outputs have another shape"}
            return
    if count_parameters(pruned) == subject.parameters:
        yield {"verdict": "left whole"}
        return

    def prune_again(full: nn.Module) -> nn.Module:
        with double_precision():
            graph = tp.DependencyGraph().build_dependency(full, example_inputs=example.double(), verbose=False)
            graph.load_pruning_history(history)
        return full

    yield _verdict(judge_pruner(subject.model, prune_again, subject.example))


def _prune_as_readme(tp: Any, model: nn.Module, example: Any, ignored: list[nn.Module], ratio: float) -> list[Any]:
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(model, example, importance=importance, pruning_ratio=ratio, ignored_layers=ignored)
    pruner.step()
    return pruner.DG.pruning_history()


def _kirigami(subject: Subject, ratio: float) -> Steps:
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import Greedy, GroupMagnitude, ParameterBudget, Pruner

    def pruned(model: nn.Module, example: torch.Tensor) -> nn.Module:
        pruner = Pruner(model, graph=DependencyGraph.build(model, args=(example,)))
        budget = ParameterBudget(max_params=int(ratio * count_parameters(model)))
        return pruner.prune(pruner.discover_candidates(), budget=budget, strategy=Greedy(GroupMagnitude(p=2)))[0]

    example = torch.randn(subject.example.shape)
    yield {
        "step": "traced",
        "trace_s": fastest(lambda: DependencyGraph.build(copy.deepcopy(subject.model), args=(example,))),
    }
    start = time.process_time()
    small = pruned(copy.deepcopy(subject.model), example)
    total = time.process_time() - start
    yield {"step": "pruned", "total_s": total, "left": count_parameters(small) / subject.parameters}
    with torch.no_grad():
        small.eval()(example)
    yield _verdict(judge_pruner(subject.model, lambda full: pruned(full, example.double()), subject.example))


CONTENDERS: dict[str, Callable[[Subject, float], Steps]] = {
    "secateur": _secateur,
    "torch_pruning": _torch_pruning,
    "kirigami": _kirigami,
}


def _verdict(judgement: Judgement) -> dict[str, Any]:
    found = {"verdict": judgement.verdict, "reference": judgement.reference, "note": judgement.note}
    return found if judgement.error is None else {**found, "error": judgement.error}


def _small_net() -> tuple[nn.Module, torch.Tensor]:
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 4))
    return net.eval(), torch.randn(1, 3, 8, 8)


def fastest(call: Callable[[], object]) -> float:
    """Return the least CPU time of a few calls, in seconds."""
    taken: list[float] = []
    while len(taken) < ROUNDS and sum(taken) < LONGEST_ROUNDS:
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main()
