"""The form in which a model is deployed: tensors in, tensors out, each with a name."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from secateur.errors import RuntimeUnfitError, TraceError, better_sizes
from secateur.graph.calls import Call, calls_of
from secateur.graph.staging import modules_of
from secateur.models.registry import entry_of
from secateur.models.rewriting.rewriting import rewritten
from secateur.surgery.cutting import copied

_log = logging.getLogger("secateur")


class InferenceForm(nn.Module):
    """A model as one function from tensors to a tuple of tensors, in evaluation mode.

    What is no tensor among the arguments stays as the example has it; of the outputs, those that are None are left out.

    Attributes:
        inputs: names of the inputs: the parameters of the model's forward, or "input" for a single one.
        outputs: names of the outputs: keys, fields, or "output" with a number if there are several.
    """

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call
        self.places = _places(model, call)
        self.inputs = ("input",) if len(self.places) == 1 else tuple(str(name) for name, _ in self.places)
        found = [name for name, _ in named_outputs(_returned(model, call))]
        if not found:
            raise RuntimeUnfitError(f"{type(model).__name__} returns no tensor, so there is nothing to deploy.")
        self.outputs = _apart(found, taken=self.inputs)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model on one tensor for each input, and return one for each output."""
        args, kwargs = list(self.call.args), dict(self.call.kwargs)
        for (name, place), tensor in zip(self.places, tensors, strict=True):
            if place is None:
                kwargs[str(name)] = tensor
            else:
                args[place] = tensor
        return tuple(output for _, output in named_outputs(self.model(*args, **kwargs)))


def inference_form(model: nn.Module, example: Any) -> InferenceForm:
    """Return a copy of a model as it is deployed, on the processor; one of the zoo without what only training needs.

    Raises:
        RuntimeUnfitError: the example is several calls, or holds tensors in containers, the model does not run on it,
            or no tensor comes out.
        CutError: the model cannot be copied.
    """
    first, *others = calls_of(example)
    if others:
        raise RuntimeUnfitError("A model is deployed by one call, and the example is several. Give one of them.")
    call, entry = first, entry_of(model)
    if entry is not None:
        call = Call(call.args, {**call.kwargs, **entry.inference})
    return InferenceForm(copied(model).cpu(), call.map(torch.Tensor.cpu))


def _returned(model: nn.Module, call: Call) -> Any:
    try:
        with evaluating(model), torch.no_grad():
            return model(*call.args, **call.kwargs)
    except Exception as error:
        shown = ", ".join("x".join(map(str, one.shape)) for one in call.tensors())
        raise RuntimeUnfitError(
            f"{type(model).__name__} does not run on {shown}: {' '.join(str(error).split())[:300].rstrip('. ')}. Give "
            f"an example that it runs on (--input).{better_sizes(one.shape for one in call.tensors())}"
        ) from error


def _apart(names: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Return names that are all different, also from those that are taken."""
    found: list[str] = []
    for name in names:
        number, free = 1, name
        while free in found or free in taken:
            number, free = number + 1, f"{name}_{number}"
        found.append(free)
    return tuple(found)


def fused_form(form: InferenceForm, half_safe: bool = False) -> InferenceForm:
    """Return the form of a model that computes the same in fewer operations; the form itself where that fails.

    Args:
        form: the form.
        half_safe: sums of instance norms stay in float16's range.
    """
    try:
        return InferenceForm(rewritten(form.model, [form.call], half_safe), form.call)
    except TraceError as error:
        _log.info("The model is exported as it is: %s", error)
        return form


def named_outputs(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in what a model returned, with names."""
    if isinstance(value, torch.Tensor):
        yield name or "output", value
        return
    start = f"{name}_" if name else ""
    if isinstance(value, Mapping):
        parts = [(f"{start}{key}", one) for key, one in value.items()]
    elif is_dataclass(value):
        parts = [(f"{start}{field.name}", getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        parts = _numbered([one for one in value if one is not None], start)
    else:
        parts = []
    for part, one in parts:
        yield from named_outputs(one, part)


def _numbered(values: Sequence[Any], start: str) -> list[tuple[str, Any]]:
    if len(values) == 1:
        return [(start.rstrip("_"), values[0])]
    return [(f"{start or 'output_'}{number}", one) for number, one in enumerate(values)]


def _places(model: nn.Module, call: Call) -> list[tuple[str, int | None]]:
    """Return the name and place of each tensor among the arguments; the place of a keyword is None."""
    names = [name for name in inspect.signature(model.forward).parameters if name not in ("args", "kwargs")]
    places: list[tuple[str, int | None]] = [
        (names[place] if place < len(names) else f"input_{place}", place)
        for place, value in enumerate(call.args)
        if isinstance(value, torch.Tensor)
    ]
    places += [(key, None) for key, value in call.kwargs.items() if isinstance(value, torch.Tensor)]
    if len(places) < len(call.tensors()):
        raise RuntimeUnfitError(
            f"{type(model).__name__} takes tensors in lists or dicts, and a deployed network takes each by itself. "
            "Write a module around it that does."
        )
    return places


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the body with the model in evaluation mode; each module's own mode comes back."""
    modes = [(module, module.training) for _, module in modules_of(model)]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
