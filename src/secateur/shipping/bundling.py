"""`bundle`: a folder that runs by itself, with the network, a program for pictures, and what is known of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.artifact.atomic import check_new_folder, fill_folder_atomically
from secateur.errors import ExportError, RuntimeUnfitError, nearest
from secateur.graph.calls import Call, calls_of
from secateur.measurement.contest import Cell, contest
from secateur.models.pictures import numbers
from secateur.models.registry import entry_of
from secateur.runtimes.deployment import export
from secateur.runtimes.forms import evaluating, inference_form
from secateur.runtimes.machine import this_machine
from secateur.runtimes.network import Network
from secateur.runtimes.packages import version_of
from secateur.runtimes.quantizing import Samples
from secateur.runtimes.registry import check_able, runtime_of
from secateur.runtimes.session import Options, Precision
from secateur.runtimes.shapes import Sizes, output_shapes
from secateur.shipping.account import Bundle, document, readme
from secateur.shipping.script import Picture, kind_of, script

FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml"}  # by runtime
SECONDS = 3.0  # of measurement
OPTIONS = Options("fp32")  # as run.py opens it; the file has its precision already


def bundle(  # noqa: PLR0913 - each is a choice of its own
    model: nn.Module,
    folder: str | Path,
    example: Any,
    runtime: str = "onnxruntime",
    precision: Precision = "fp32",
    preprocessing: Mapping[str, Any] | None = None,
    samples: Samples = (),
    keep_float: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    measure: bool = True,
    force: bool = False,
) -> Bundle:
    """Write a folder with a model's exported file, and a program that puts pictures through it without PyTorch.

    The folder holds `model.onnx` or `model.xml` and `model.bin`, `run.py`, `README.md` and `measurements.json`. It
    appears whole, or not at all. The network takes one picture of the example's size.

    Args:
        model: the model; it is not changed.
        folder: one that is not there yet, or an empty one.
        example: how the model is called: a single picture; of a batch the first is taken.
        runtime: "onnxruntime" or "openvino".
        precision: "fp32"; "fp16", which halves the file; or "int8".
        preprocessing: `{"mean": ..., "std": ...}`, a number for each channel: pictures with values in [0, 1] become
            inputs by `(picture - mean) / std`. It may be left out for a model of the zoo.
        samples: inputs to calibrate INT8 on, one array for each input.
        keep_float: layers, or nodes of the file, that INT8 leaves as they are.
        metadata: what the network's file is to say of itself, as JSON.
        measure: time the network in the runtime, for a few seconds.
        force: write the folder even if the file computes something else than the model.

    Raises:
        ExportError: the model takes no single picture, its pre-processing is not known, it does not go into the file,
            or the file computes something else.
        RuntimeUnfitError: there is no such runtime or precision, or the model does not run on the example.
        RuntimeMissingError: a package is not installed.
        ArtifactError: the folder is there already, or cannot be written.

    Example:
        >>> from secateur.models import LeNet
        >>> made = bundle(LeNet(), "digits", torch.zeros(1, 1, 28, 28))  # doctest: +SKIP
        >>> sorted(path.name for path in made.folder.iterdir())  # doctest: +SKIP
        ['README.md', 'measurements.json', 'model.onnx', 'run.py']
    """
    _check_runtime(runtime)
    place = check_new_folder(folder)
    calls, picture = _called(model, example, preprocessing)
    form = inference_form(model, calls)
    tensors = form.call.tensors()
    outputs = output_shapes(form, tensors)
    with evaluating(form), torch.no_grad():
        kind = kind_of(outputs[0], form(*tensors)[0].is_floating_point())

    def fill(beside: Path) -> Bundle:
        file = beside / FILES[runtime]
        # Runtimes are faster at a fixed size, and run.py gives no other.
        given = {"samples": samples, "keep_float": keep_float, "metadata": metadata, "force": force}
        deployed = export(model, file, calls, precision, free=(), **given)
        made = Bundle(
            folder=place,
            model=type(model).__name__,
            parameters=sum(one.numel() for one in model.parameters()),
            runtime=runtime,
            version=version_of(runtime).partition("+")[0],
            deployed=replace(deployed, path=place / file.name),
            bytes=sum(path.stat().st_size for path in beside.iterdir()),
            picture=picture,
            inputs=tuple(tuple(one.shape) for one in tensors),
            outputs=outputs,
            kind=kind,
            machine=this_machine(),
            cell=_timed(file, runtime) if measure else None,
        )
        for name, text in _texts(made).items():
            (beside / name).write_text(text, encoding="utf-8")
        return made

    return fill_folder_atomically(folder, fill)


def _check_runtime(runtime: str) -> None:
    runtime_of(runtime)
    if runtime not in FILES:
        raise RuntimeUnfitError(
            f"A bundle runs without PyTorch, and {runtime} is a part of it.{nearest(runtime, FILES)}"
        )
    check_able(runtime, OPTIONS)


def _called(model: nn.Module, example: Any, preprocessing: Mapping[str, Any] | None) -> tuple[list[Call], Picture]:
    """Return how the model is called with one picture, and what becomes that picture.

    Raises:
        ExportError: it takes something else, or its pre-processing is not known.
    """
    name, calls = type(model).__name__, calls_of(example)
    tensors = calls[0].tensors()
    shown = ", ".join("x".join(map(str, one.shape)) for one in tensors)
    if len(tensors) != 1:
        raise ExportError(
            f"{name} takes {len(tensors)} inputs ({shown}), and run.py has one picture to give. Write a module around "
            "it that takes one, or write the file alone (secateur export)."
        )
    (tensor,) = tensors
    if tensor.dim() != 4 or tensor.shape[1] not in (1, 3) or tensor.dtype != torch.float32:
        raise ExportError(
            f"{name} takes {shown} in {str(tensor.dtype).removeprefix('torch.')}, which is no picture: run.py gives "
            "1x1xHxW or 1x3xHxW in float32. Give such an example (--input), or write the file alone (secateur export)."
        )
    channels, height, width = tensor.shape[1:]
    mean, std = _statistics(model, preprocessing, channels)
    return [call.map(lambda one: one[:1]) for call in calls], Picture(height, width, mean, std)


def _statistics(
    model: nn.Module, preprocessing: Mapping[str, Any] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    name, entry = type(model).__name__, entry_of(model)
    if preprocessing is None and entry is not None:
        return entry.mean, entry.std
    if preprocessing is None or not {"mean", "std"} <= preprocessing.keys():
        raise ExportError(
            f"How {name} wants its pictures is not known, and run.py has to prepare them. Say it with "
            "preprocessing={'mean': ..., 'std': ...}, in secateur.save or in bundle."
        )
    mean, std = (numbers(preprocessing[word], channels) for word in ("mean", "std"))
    if not mean or not std or min(std) <= 0:
        raise ExportError(
            f"{name} takes pictures of {channels} channels, and its preprocessing says mean={preprocessing['mean']}, "
            f"std={preprocessing['std']}. Give {channels} numbers for each, those of std above 0."
        )
    return mean, std


def _timed(file: Path, runtime: str) -> Cell:
    return contest([Network.of_file(file.stem, file)], runtime, OPTIONS, Sizes(), SECONDS, alone=False)[0]


def _texts(made: Bundle) -> dict[str, str]:
    deployed = made.deployed
    return {
        "run.py": script(made.title, made.runtime, deployed.path.name, made.picture, made.kind, deployed.outputs),
        "README.md": readme(made),
        "measurements.json": document(made),
    }
