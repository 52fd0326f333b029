"""Train a network on samples that are made by number, so that it can be stopped anywhere and goes on as if it had not.

A run has a folder: `checkpoint.safetensors`, `best.safetensors` (the average that was best so far), `steps.csv`,
`validation.csv` and, where tensorboardX is installed, its events.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, default_collate

from secateur.artifact.atomic import ensure_folder, write_atomically
from secateur.artifact.format import decode, encode
from secateur.errors import SecateurError, TrainingError
from secateur.runtimes.packages import is_installed, require
from secateur.training.checkpoints import FILE, State, load_checkpoint, save_checkpoint, values_of
from secateur.training.journal import Journal
from secateur.training.memory import freed_memory_kept, lack_of_memory_told
from secateur.training.recipe import Recipe
from secateur.training.synchronizing import AcrossProcesses

log = logging.getLogger("secateur")
Batch = Mapping[str, torch.Tensor]


class Task(Protocol):
    """What a network is trained to do."""

    def losses(self, model: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return named losses, each the mean over the batch, whose sum is made small."""
        ...

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return named errors of a network in evaluation mode; the first is the one that counts."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where training is.

    Attributes:
        step, steps: batches that were trained on, and all of them.
        losses: of this batch, `total` first.
        errors: of the last validation; empty before it.
        left: seconds that the rest will take at this speed.
    """

    step: int
    steps: int
    losses: Mapping[str, float]
    errors: Mapping[str, float]
    left: float


def leads() -> bool:
    """Tell whether this process is the one, of several that train side by side, that writes files and tells people."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@freed_memory_kept()
def fit(  # noqa: PLR0913
    model: nn.Module,
    samples: Dataset[Any],
    task: Task,
    recipe: Recipe,
    folder: str | Path,
    resume: bool = False,
    processes: int = 1,
    on_step: Callable[[Progress], None] | None = None,
    on_validation: Callable[[int, nn.Module], object] | None = None,
) -> nn.Module:
    """Train `model` in place, and return the best of its averages, in evaluation mode.

    The same samples, recipe and number of processes give the same network, bit for bit on a CPU, however often training
    was killed and resumed.

    Args:
        model: the network, its weights the start.
        samples: `samples[number]` is a dictionary of tensors for any number from 0; the same number, the same sample.
        task: what is made small, and what counts.
        recipe: how.
        folder: where checkpoints and logs go; made if it is not there.
        resume: go on from the checkpoint in `folder`; without one, start.
        processes: that each take a part of every batch (PyTorch's DistributedDataParallel by Lightning Fabric), and
            train as one would: batch norms, too, see the whole batch.
        on_step: is told after every step.
        on_validation: is given the step and the average, in evaluation mode, after every validation.

    Raises:
        TrainingError: the batch has no equal part for each process; or the losses or the gradient are no numbers, and
            the batch lies in `folder/diverged.safetensors`; or memory does not suffice; or the checkpoint is of
            something else.
        ArtifactError: a file cannot be written.
    """
    if recipe.batch % processes:
        raise TrainingError(f"A batch of {recipe.batch} has no {processes} equal parts. Take a multiple (--batch).")
    run = _Run(model, task, recipe, Path(folder), processes)
    try:
        with lack_of_memory_told(recipe.batch):
            run.train(samples, resume, on_step or _unheard, on_validation or _unheard)
    except KeyboardInterrupt:
        run.save_if_whole()
        raise
    return run.best()


class _Run:
    """The state of a run, in one place."""

    def __init__(self, model: nn.Module, task: Task, recipe: Recipe, folder: Path, processes: int) -> None:
        self.task, self.recipe, self.folder = task, recipe, folder
        self.fabric = _fabric(recipe, processes)
        torch.manual_seed(recipe.seed)
        self.home = next(model.parameters()).device
        self.plain: Any = _channels_last(model.to(self.fabric.device))
        optimizer = recipe.optimizer(self.plain)
        self.state = State(self.plain, _average(self.plain, recipe), optimizer)
        self.model, self.optimizer = self.fabric.setup(self.plain, optimizer)
        self.together = AcrossProcesses() if processes > 1 else nullcontext()
        self.step, self.lowest, self.stale, self.errors = 0, math.inf, 0, {}
        self.whole = False  # whether this is the state between two steps
        self.began: list[torch.Tensor] = []  # while a step can still be undone: what it changes before the weights
        if self.fabric.is_global_zero:
            ensure_folder(folder)

    @property
    def checkpoint(self) -> Path:
        return self.folder / FILE

    def train(
        self,
        samples: Dataset[Any],
        resume: bool,
        on_step: Callable[[Progress], object],
        on_validation: Callable[[int, nn.Module], object],
    ) -> None:
        if resume and self.checkpoint.exists():
            self._restore()
        elif self.fabric.is_global_zero:
            self.checkpoint.unlink(missing_ok=True)  # of an earlier run, which is written over from here on
            write_atomically(self.folder / "best.safetensors", encode(_named(self.state.average), {}))
        start, first = time.monotonic(), self.step
        self.whole = True
        with closing(Journal(self.folder, self.step)) if self.fabric.is_global_zero else nullcontext() as journal:
            for batch in self._batches(samples):
                losses = self._learn(self.fabric.to_device(batch))
                self.step += 1
                if journal is not None:
                    journal.step(self.step, self.optimizer.param_groups[0]["lr"], losses)
                self._look(journal, on_validation)
                self.whole = True
                if journal is not None:
                    speed = (time.monotonic() - start) / (self.step - first)
                    left = speed * (self.recipe.steps - self.step)
                    on_step(Progress(self.step, self.recipe.steps, losses, self.errors, left))
                if self.recipe.patience and self.stale >= self.recipe.patience:
                    log.info("No better validation for %d times: training ends at step %d.", self.stale, self.step)
                    break
        self.save()

    def best(self) -> nn.Module:
        """Return the average that validated best."""
        path = self.folder / "best.safetensors"
        self.fabric.barrier()
        tensors, _ = decode(path.read_bytes(), str(path))
        found = copy.deepcopy(self.plain)
        with torch.no_grad():
            for name, value in _named(found).items():
                value.copy_(tensors[name])
        self.plain.to(self.home)
        return found.to(self.home).eval()

    def save_if_whole(self) -> None:
        """Write a checkpoint of the last whole step, undoing one that was not finished; none where that cannot be."""
        if self.began:
            torch.set_rng_state(self.began.pop())
            with torch.no_grad():
                for buffer, before in zip(self.plain.buffers(), self.began, strict=True):
                    buffer.copy_(before)
            self.whole = True
        if self.whole:
            self.save()

    def save(self) -> None:
        """Write the checkpoint of this step."""
        if self.fabric.is_global_zero:
            known = {"step": self.step, "lowest": self.lowest, "stale": self.stale, "errors": self.errors}
            # JSON has no infinity.
            known["lowest"] = None if math.isinf(self.lowest) else self.lowest
            save_checkpoint(self.checkpoint, self.state, {**known, "recipe": _stable(self.recipe)})

    def _restore(self) -> None:
        document = load_checkpoint(self.checkpoint, self.state, {"recipe": _stable(self.recipe)})
        self.step, self.stale, self.errors = document["step"], document["stale"], document["errors"]
        self.lowest = math.inf if document["lowest"] is None else document["lowest"]
        log.info("Training goes on at step %d of %d.", self.step, self.recipe.steps)

    def _batches(self, samples: Dataset[Any]) -> Iterator[Batch]:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        size = self.recipe.batch
        numbers = [
            list(range(step * size, (step + 1) * size))[rank::world] for step in range(self.step, self.recipe.steps)
        ]
        workers = self.recipe.workers
        context = "fork" if workers and torch.multiprocessing.get_all_start_methods()[0] == "fork" else None
        loader: DataLoader[Any] = DataLoader(
            _Failing(samples),
            batch_sampler=numbers,
            collate_fn=_collated,
            generator=torch.Generator(),  # or the loader would draw from the one that the network draws from
            num_workers=workers,
            multiprocessing_context=context,
            pin_memory=self.fabric.device.type == "cuda",
        )
        with _opencv_alone():
            batches = iter(loader)
        return map(_sound, batches)

    def _learn(self, batch: Batch) -> dict[str, float]:
        """Take one step, and return the losses over all processes."""
        self.began = [*(buffer.detach().clone() for buffer in self.plain.buffers()), torch.get_rng_state()]
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * self.recipe.rate_at(self.step)
        self.plain.train()
        if self.recipe.frozen_norms:
            _freeze_norms(self.plain)
        with self.fabric.autocast(), self.together:
            losses = dict(self.task.losses(self.model, batch))
        total = torch.stack(list(losses.values())).sum()
        told = torch.stack([total.detach(), *(one.detach() for one in losses.values())])
        told = self.fabric.all_reduce(told, reduce_op="mean").tolist()
        if not math.isfinite(told[0]):
            raise self._diverged("the losses are no numbers", batch, dict(zip(losses, told[1:], strict=True)))
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        norm = nn.utils.clip_grad_norm_(self.plain.parameters(), self.recipe.clip)
        if not bool(torch.isfinite(norm)):
            raise self._diverged("the gradient is no number", batch, dict(zip(losses, told[1:], strict=True)))
        self.began = []
        self.optimizer.step()
        average: Any = self.state.average
        average.update_parameters(self.plain)
        return dict(zip(("total", *losses), told, strict=True))

    def _diverged(self, why: str, batch: Batch, losses: Mapping[str, float]) -> TrainingError:
        place = self.folder / "diverged.safetensors"
        with suppress(Exception):  # the disk may be the next to fail; what went wrong first is told
            write_atomically(place, encode({name: value.float() for name, value in batch.items()}, {"step": self.step}))
        parts = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        return TrainingError(
            f"At step {self.step + 1} {why} ({parts}); the batch is in {place}. "
            "Look at it, or train with a lower rate (--rate) or in fp32 (--precision fp32); --resume goes on from the "
            "last checkpoint."
        )

    def _look(self, journal: Journal | None, on_validation: Callable[[int, nn.Module], object]) -> None:
        """Validate and save where it is time."""
        last = self.step == self.recipe.steps
        if last or self.step % self.recipe.validate_every == 0:
            average: Any = self.state.average
            if self.fabric.is_global_zero:
                self.errors = dict(self.task.validate(average.module.eval()))
            self.errors = self.fabric.broadcast(self.errors)
            if not all(map(math.isfinite, self.errors.values())):
                told = ", ".join(f"{name} {value:g}" for name, value in self.errors.items())
                self.errors = {}
                self.save()
                raise TrainingError(
                    f"After step {self.step} the validation gives {told}. Look at the samples that it judges; the "
                    f"checkpoint of this step is in {self.folder}, and --resume goes on from it."
                )
            first = next(iter(self.errors.values()), -math.inf)
            better = first < self.lowest or not self.errors
            self.lowest, self.stale = (first, 0) if better else (self.lowest, self.stale + 1)
            if self.fabric.is_global_zero and better:
                write_atomically(self.folder / "best.safetensors", encode(_named(average), {}))
            if journal is not None and self.errors:
                journal.validation(self.step, self.errors)
                on_validation(self.step, average.module)
        if last or self.step % self.recipe.save_every == 0:
            self.save()


def _channels_last(model: nn.Module) -> nn.Module:
    for parameter in [*model.parameters(), *model.buffers()]:
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


class _Failing(Dataset[Any]):
    """Samples, or the errors in place of those that fail: raised in another process they would lose their form."""

    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples = samples

    def __getitem__(self, number: int) -> Any:
        try:
            return self.samples[number]
        except SecateurError as error:
            return error


def _collated(samples: list[Any]) -> Any:
    return next((one for one in samples if isinstance(one, SecateurError)), None) or default_collate(samples)


def _sound(batch: Any) -> Batch:
    if isinstance(batch, SecateurError):
        raise batch
    return batch


@contextmanager
def _opencv_alone() -> Iterator[None]:
    """Let OpenCV, if it is there, stop its threads, so that processes that are forked meanwhile take a core each.

    They could not stop them: it waits for threads that do not come along into a forked process.
    """
    cv2 = sys.modules.get("cv2")
    threads = cv2.getNumThreads() if cv2 is not None else 1
    if cv2 is None or threads <= 1:
        yield
        return
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _unheard(*_: Any) -> None:
    """Stand for a listener that is not there."""


def _fabric(recipe: Recipe, processes: int) -> Any:
    lightning = require("lightning_fabric" if is_installed("lightning_fabric") else "lightning.fabric")
    kind = "auto" if torch.cuda.is_available() else "cpu"
    strategy = "ddp" if processes > 1 else "auto"
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[recipe.precision]
    fabric = lightning.Fabric(accelerator=kind, devices=processes, strategy=strategy, precision=precision)
    if processes > 1:
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of weights that are channels-last
        fabric.launch()
    return fabric


def _average(model: nn.Module, recipe: Recipe) -> nn.Module:
    """Return the moving average of a model; it begins as a mean, so that the start is soon forgotten."""

    @torch.no_grad()
    def update(averages: Sequence[torch.Tensor], values: Sequence[torch.Tensor], count: Any) -> None:
        decay = min(recipe.averaging, (1 + int(count)) / (10 + int(count)))
        ours, theirs = list(averages), list(values)  # all of one type
        each: Any = torch
        if ours[0].is_floating_point():
            each._foreach_lerp_(ours, theirs, 1 - decay)
        else:
            each._foreach_copy_(ours, theirs)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def _named(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the values of a model, or of the one that is averaged, by their names."""
    inner = module.module if isinstance(module, AveragedModel) else module
    return values_of(inner)


def _freeze_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _stable(recipe: Recipe) -> dict[str, Any]:
    """Return what of a recipe decides the result, as JSON."""
    kept = asdict(recipe)
    for name in ("workers", "save_every"):
        kept.pop(name)
    return kept
