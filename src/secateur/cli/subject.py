"""The model that a command is about: what MODEL, --model, --weights, --input and --seed together stand for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from secateur.artifact.reading import Contents, cut_by_all, full_size, read, restore
from secateur.artifact.shipped import shipped, trained_networks
from secateur.errors import ArtifactError, nearest
from secateur.graph.calls import Call, calls_of, zeros_for
from secateur.measurement.branches import top_level_branches
from secateur.models.checkpoints import load_checkpoint
from secateur.models.registry import ZOO, entry_of
from secateur.models.selection import select
from secateur.planning.plans import Plan
from secateur.runtimes.shapes import Sizes

_log = logging.getLogger("secateur")
Example = list[tuple[torch.Tensor, ...] | Call]  # calls, as for `trace`
RANDOM, BUILT_IN = "random", "built-in"  # weights of no file


@dataclass(frozen=True)
class Subject:
    """A model, how it is called, and what is known about it."""

    name: str
    model: nn.Module
    example: Example
    branches: Mapping[str, Sequence[str]]
    weights: str  # "random", "built-in", a file's name, or "as built" for the user's own model
    earlier: tuple[Plan, ...] = ()  # the plans that made it smaller already

    @property
    def title(self) -> str:
        """The class's name with the size of the inputs, for headings."""
        shapes = ", ".join("×".join(map(str, one.shape)) for call in calls_of(self.example) for one in call.tensors())
        return f"{type(self.model).__name__} at {shapes}"

    @property
    def inference_example(self) -> dict[str, Any] | None:
        """The example in the form that leaves out what only training needs, if the zoo says that there is one."""
        entry = entry_of(self.model)
        if entry is None or not entry.inference or len(self.example) != 1:
            return None
        (call,) = calls_of(self.example)
        parameters = inspect.signature(self.model.forward).parameters
        return {**dict(zip(parameters, call.args, strict=False)), **call.kwargs, **entry.inference}


def find_subject(
    name: str,
    shapes: Sequence[tuple[int, ...]] = (),
    weights: str | None = None,
    seed: int = 0,
    full: str | None = None,
) -> Subject:
    """Build the model that the user named, a saved file's from the full-size model `full` if it is not of the zoo.

    A built-in model has the weights that come with it, if any do, unless others are named, or "random".

    Raises:
        click.UsageError: no such model, or no input shape is known for it.
        ArtifactError: a file or the user's own code does not give a model.
    """
    torch.manual_seed(seed)
    if is_file(name):
        return _saved(name, shapes, weights, full)
    if full is not None:
        raise click.UsageError(f"--model is for saved files, and {name} names a model itself. Leave --model out.")
    if name in trained_networks() and name not in ZOO:
        subject = _saved(str(shipped(name)), shapes, weights, None)
        return replace(subject, name=name, weights=weights or BUILT_IN)
    if ":" not in name and name not in ZOO:
        raise click.UsageError(
            f"There is no model {name!r}.{nearest(name, (*ZOO, *trained_networks()))} "
            "Name a model of the zoo, a saved file, or your own as package.module:callable."
        )
    selected = select(name)
    example = fitted(example_of(shapes, selected.entry.example_shape if selected.entry else None), selected.model)
    if weights is None and name in trained_networks():
        load_checkpoint(selected.model, shipped(name))
        return Subject(name, selected.model, example, branches_of(selected.model), BUILT_IN)
    if weights not in (None, RANDOM):
        load_checkpoint(selected.model, weights)
    origin = weights or (RANDOM if selected.entry else "as built")
    return Subject(name, selected.model, example, branches_of(selected.model), origin)


def warn_if_random(subject: Subject) -> None:
    """Say so where a command's result is worth what the weights are worth, and these are random."""
    if subject.weights == RANDOM:
        _log.warning("The weights of %s are random. Give trained ones with --weights.", subject.name)


def part_of(subject: Subject, name: str) -> Subject:
    """Return a part of a model as the subject; it is called with what the whole is called with.

    Raises:
        click.UsageError: there is no such part, or the whole is pruned already.
    """
    parts = {known: part for known, part in subject.model.named_modules() if known}
    if name not in parts:
        raise click.UsageError(f"{subject.name} has no part {name!r}.{nearest(name, parts)}")
    if subject.earlier:
        raise click.UsageError(
            f"{subject.name} is pruned already, and its parts cannot be saved apart. Prune it whole."
        )
    part = parts[name]
    return replace(subject, name=f"{subject.name}, {name}", model=part, branches=branches_of(part))


def at_size(subject: Subject, batch: int | None, size: tuple[int, int] | None) -> Subject:
    """Return a subject that is called with so many inputs at once, and pictures of this height and width."""
    if batch is None and size is None:
        return subject
    sizes = Sizes(batch, *(size or (None, None)))

    def resized(call: Call) -> Call:
        shapes = iter(sizes.of([tuple(one.shape) for one in call.tensors()]))
        return call.map(lambda tensor: _zeros(next(shapes)).to(tensor.dtype))

    return replace(subject, example=[resized(call) for call in calls_of(subject.example)])


def is_file(name: str) -> bool:
    """Tell whether a MODEL is meant as a saved file."""
    if name.endswith(".safetensors"):
        return True
    return ":" not in name and name not in (*ZOO, *trained_networks()) and Path(name).is_file()


def full_size_model(contents: Contents, full: str | None, weights: str | None) -> nn.Module:
    """Return the model that a file was pruned from, with the weights given or else random ones."""
    model = select(full).model if full is not None else full_size(contents)
    if weights is not None:
        load_checkpoint(model, weights)
    return model


def example_of(shapes: Sequence[tuple[int, ...]], declared: tuple[int, ...] | None) -> Example:
    """Return the example, one call of zeros, of the shapes given or else the declared one.

    Raises:
        click.UsageError: there are neither, or they do not fit into memory.
    """
    wanted = list(shapes) or ([declared] if declared else [])
    if not wanted:
        raise click.UsageError("The size of the model's input is not known. Give it with --input, such as 1x3x224x224.")
    return [tuple(_zeros(shape) for shape in wanted)]


def calls_of_plan(plan: Plan) -> Example:
    """Return the example that a plan was made for, its tensors zero.

    Raises:
        ArtifactError: the plan does not say.
        TraceError: there is no such dtype, or no memory for such a tensor.
    """
    if not plan.calls:
        raise ArtifactError("The file does not say how the model is called. Prune the model again.")
    return zeros_for(plan.calls)


def _saved(name: str, shapes: Sequence[tuple[int, ...]], weights: str | None, full: str | None) -> Subject:
    contents = read(name)
    whole = full_size_model(contents, full, None)
    if weights is None:
        model = restore(contents, whole)
    else:
        model = cut_by_all(contents, contents.plans, whole)
        if weights != RANDOM:
            load_checkpoint(model, weights)
    model = widened(model)
    example = fitted(example_of(shapes, None) if shapes else calls_of_plan(contents.plan), model)
    return Subject(name, model, example, branches_of(model), weights or name, contents.plans)


def widened(model: nn.Module) -> nn.Module:
    """Return a model in float32 if it is stored in half the bytes: inputs are float32, and so is the arithmetic."""
    halves = (torch.float16, torch.bfloat16)
    return model.float() if any(one.dtype in halves for one in model.parameters()) else model


def kind_of(model: nn.Module) -> torch.dtype:
    """Return the floating dtype that a model is in."""
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def fitted(example: Example, model: nn.Module) -> Example:
    """Return an example in the floating dtype that a model is in."""
    kind = kind_of(model)

    def in_kind(one: torch.Tensor) -> torch.Tensor:
        return one.to(kind) if one.is_floating_point() else one

    return [call.map(in_kind) if isinstance(call, Call) else tuple(map(in_kind, call)) for call in example]


def branches_of(model: nn.Module) -> Mapping[str, Sequence[str]]:
    """Return the branches of a model of the zoo, or the children of another one, with the prefixes of their names."""
    entry = entry_of(model)
    return entry.branches if entry and entry.branches else top_level_branches(model)


def _zeros(shape: tuple[int, ...]) -> torch.Tensor:
    try:
        return torch.zeros(shape)
    except RuntimeError:
        size = "x".join(map(str, shape))
        raise click.UsageError(f"An input of {size} does not fit into memory. Give a smaller one.") from None
