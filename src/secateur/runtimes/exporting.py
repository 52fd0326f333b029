"""A model as an ONNX file: named inputs and outputs, free sizes where the model allows them, checked."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.errors import STEP, ExportError, RuntimeUnfitError
from secateur.runtimes.forms import InferenceForm, evaluating
from secateur.runtimes.lacking import layers_calling, without_graphs
from secateur.runtimes.packages import quiet, require
from secateur.runtimes.shapes import AXES, Shapes, Sizes, batch_of, output_shapes, random_inputs

OPSET = 17
MOST_NAMED = 4  # layers
_LACKING = re.compile(r"operator 'aten::(?P<operation>\w+)' to ONNX opset version (?P<opset>\d+) is not supported")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
Axes = dict[str, dict[int, str]]

_log = logging.getLogger("secateur")


@dataclass(frozen=True)
class Exported:
    """An ONNX file, and which sizes of it are free."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: tuple[str, ...]  # of "batch", "height", "width"


def export_onnx(
    form: InferenceForm,
    example: Sequence[torch.Tensor],
    path: Path,
    free: Collection[str] | None = None,
    opset: int = OPSET,
    metadata: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a model as ONNX.

    Args:
        form: the model as it is deployed.
        example: its inputs.
        path: the file; written in place, so give one that nobody reads yet.
        free: which of "batch", "height" and "width" a user of the file may choose; None: all that the model takes.
        opset: version of the operators.
        metadata: what the file is to say of itself, as JSON.

    Raises:
        RuntimeMissingError: onnx is not installed.
        RuntimeUnfitError: the model does not take other sizes, though `free` asks for them.
        ExportError: an operator has no counterpart in ONNX (says which), or the file is not sound.
    """
    onnx = require("onnx")
    axes, chosen = free_axes(form, example, free)
    with telling_of_the_disk(path):
        if not _write(form, example, path, axes, opset):
            chosen = ()
    model = onnx.load(str(path))
    made = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if made != opset:
        raise ExportError(
            f"{type(form.model).__name__} goes into ONNX with opset {made}, not {opset}. Ask for that (--opset {made})."
        )
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    check_sound(model, type(form.model).__name__)
    with telling_of_the_disk(path):
        onnx.save(model, str(path))
    return Exported(path, form.inputs, form.outputs, chosen)


def check_sound(model: Any, name: str) -> None:
    """Let ONNX's own checker and shape inference go through a model that was made of `name`.

    Raises:
        ExportError: they find something.
    """
    onnx = require("onnx")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The ONNX file of {name} is not sound: {error}") from error


@contextmanager
def telling_of_the_disk(path: Path) -> Iterator[None]:
    """Tell of a temporary file that cannot be written.

    Raises:
        ExportError: the body raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"{path.name} cannot be written in {path.parent}: {error.strerror or error}. "
            "Free some space there, or name another folder for temporary files (TMPDIR)."
        ) from error


def free_axes(
    form: InferenceForm, example: Sequence[torch.Tensor], free: Collection[str] | None
) -> tuple[Axes, tuple[str, ...]]:
    """Return, by input and output, the names of the dimensions that may change, and which sizes these are.

    Raises:
        RuntimeUnfitError: one was asked for, and the model does not take another size.
    """
    shapes = tuple(tuple(one.shape) for one in example)
    before = output_shapes(form, example)
    axes: Axes = {name: {} for name in (*form.inputs, *form.outputs)}
    chosen = []
    for word in AXES.values():
        if free is not None and word not in free:
            continue
        try:
            after_in, after_out = _at_another(form, example, shapes, word)
        except RuntimeUnfitError:
            if free is not None:
                raise
            continue
        if after_in == shapes:
            continue
        chosen.append(word)
        for name, old, new in zip(
            (*form.inputs, *form.outputs), (*shapes, *before), (*after_in, *after_out), strict=True
        ):
            axes[name].update({dim: word for dim, (a, b) in enumerate(zip(old, new, strict=True)) if a != b})
    return axes, tuple(chosen)


def _at_another(
    form: InferenceForm, example: Sequence[torch.Tensor], shapes: Shapes, word: str
) -> tuple[Shapes, Shapes]:
    """Return the shapes of inputs and outputs with one size changed."""
    picture = next((shape for shape in shapes if len(shape) == 4), None)
    now = {"batch": batch_of(shapes)}
    if picture is not None:
        now |= {"height": picture[2], "width": picture[3]}
    if word not in now:
        return shapes, ()
    step = 1 if word == "batch" else STEP
    other = Sizes(**{word: now[word] + step}).of(shapes)
    return other, output_shapes(form, random_inputs(other, [one.dtype for one in example]))


def _write(form: InferenceForm, example: Sequence[torch.Tensor], path: Path, axes: Axes, opset: int) -> bool:
    """Export by torch's tracer, or else by its newer exporter; tell whether sizes are free, as by the first."""
    require("onnxscript")  # or torch tells of it in its own words
    options: dict[str, Any] = {
        "input_names": list(form.inputs),
        "output_names": list(form.outputs),
        "opset_version": opset,
    }
    silent = redirect_stdout(io.StringIO())
    with evaluating(form), torch.no_grad(), _attention_in_parts(), quiet("torch.onnx", "onnxscript"), silent:
        try:
            with without_graphs():
                torch.onnx.export(form, tuple(example), str(path), dynamo=False, dynamic_axes=axes, **options)
            return True
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - foreign code may fail in any way
            first = error
        try:
            torch.onnx.export(
                form, tuple(example), str(path), dynamo=True, external_data=False, verbose=False, **options
            )
        except Exception as error:  # noqa: BLE001 - as above
            refused = first, error
        else:
            _log.warning("The model goes into ONNX by torch's newer exporter alone, and its sizes are not free.")
            return False
    raise ExportError(_why_not(form, example, *refused)) from refused[1]


def _why_not(form: InferenceForm, example: Sequence[torch.Tensor], first: Exception, other: Exception) -> str:
    """Say which operation of which layer ONNX lacks, if that is it, or else what both of torch's exporters say."""
    name, lacking = type(form.model).__name__, _LACKING.search(str(first))
    if lacking is None:
        return f"{name} does not go into ONNX: {_one_line(first)} By torch's newer exporter: {_one_line(other)}"
    layers = [layer or "the model's own forward" for layer in layers_calling(form, example, lacking["operation"])]
    where = f", which {', '.join(layers[:MOST_NAMED])} {'call' if len(layers) > 1 else 'calls'}," if layers else ""
    return (
        f"{name} does not go into ONNX: there is nothing in opset {lacking['opset']} for the operation "
        f"{lacking['operation']}{where} and torch's newer exporter does not know it either. Write it with other "
        "operations, or ask for a later opset (--opset)."
    )


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Keep torch from computing attention as one operation, which has no counterpart in ONNX."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _one_line(error: Exception) -> str:
    return " ".join(_COLOURS.sub("", str(error)).split())[:300]
