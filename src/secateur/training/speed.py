"""How fast a network trains here: in which precision, and how long a step takes."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn
from torch.utils.data import default_collate

from secateur.training.fitting import Task
from secateur.training.memory import freed_memory_kept, lack_of_memory_told
from secateur.training.recipe import Precision, Recipe

TRIED = 4  # steps; the first does not count, and memory finds its places in the next two
HOPELESS = 4  # times as long: nothing that the first step has to do beside the others is that much


def faster_precision(model: nn.Module, samples: Any, task: Task, recipe: Recipe) -> Precision:
    """Return the precision in which a step takes less time on this machine.

    Processors that have no bfloat16 take minutes for what takes seconds: there it is not tried. Some have it, and are
    slow all the same, so that one step must do.
    """
    if not (torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return "fp32"
    found: dict[Precision, float] = {}
    for kind in get_args(Precision):
        enough = HOPELESS * min(found.values(), default=math.inf)
        found[kind] = seconds_a_step(model, samples, task, replace(recipe, precision=kind), enough)
    return min(found, key=found.__getitem__)


def seconds_a_batch(model: nn.Module, samples: Any, task: Task, recipe: Recipe) -> float:
    """Return what a step takes with the samples for it, which `recipe.workers` make meanwhile if they have cores."""
    step = seconds_a_step(model, samples, task, recipe)
    start = time.perf_counter()
    for number in range(TRIED):
        samples[number]
    made = (time.perf_counter() - start) / TRIED * recipe.batch / max(1, recipe.workers)
    return max(step, made) if torch.cuda.is_available() and recipe.workers else step + made


@freed_memory_kept()
def seconds_a_step(model: nn.Module, samples: Any, task: Task, recipe: Recipe, enough: float = math.inf) -> float:
    """Return what a step takes, samples apart: the fastest of a few, on a copy of the model.

    A first step that takes longer than `enough` is the last.

    Raises:
        TrainingError: memory does not suffice.
    """
    with lack_of_memory_told(recipe.batch):
        return _seconds_a_step(model, samples, task, recipe, enough)


def _seconds_a_step(model: nn.Module, samples: Any, task: Task, recipe: Recipe, enough: float) -> float:
    trial = copy.deepcopy(model).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trial = trial.to(device)
    batch = {
        name: value.to(device) for name, value in default_collate([samples[n] for n in range(recipe.batch)]).items()
    }
    taken = []
    for _ in range(TRIED):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = torch.stack(list(task.losses(trial, batch).values())).sum()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
        if taken[0] > enough:
            return taken[0]
    return min(taken[1:])
