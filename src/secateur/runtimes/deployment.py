"""`export`: a model as the file that it is deployed as, compared with PyTorch before anybody sees it."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.artifact.atomic import check_writable, fill_together
from secateur.errors import ExportError, RuntimeUnfitError
from secateur.runtimes import onnxruntime
from secateur.runtimes.exporting import OPSET, Exported, check_sound, export_onnx, telling_of_the_disk
from secateur.runtimes.forms import InferenceForm, fused_form, inference_form
from secateur.runtimes.network import Network
from secateur.runtimes.packages import require
from secateur.runtimes.parity import Gap, gaps, gaps_on_pictures, trial_inputs
from secateur.runtimes.paths import nodes_of
from secateur.runtimes.quantizing import Choice, quantized_ir, quantized_onnx
from secateur.runtimes.registry import open_network
from secateur.runtimes.samples import Samples
from secateur.runtimes.session import Options, Precision
from secateur.runtimes.shapes import Shapes, output_shapes, random_inputs

TOLERANCES: dict[str, float] = {"fp32": 1e-4, "fp16": 1e-2}  # of the largest output; int8 is only reported
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}
FEWEST_SAMPLES, MOST_JUDGED = 8, 64  # inputs that INT8 is calibrated on, and compared on

_log = logging.getLogger("secateur")


@dataclass(frozen=True)
class Deployed:
    """A file that was exported.

    Attributes:
        path: the file; an IR has its weights beside it, in a .bin.
        precision: of its weights and arithmetic.
        inputs: their names.
        outputs: their names.
        free: which of "batch", "height" and "width" may change.
        gaps: how far each output is from PyTorch's, at each size that was tried, and in INT8 on the samples.
    """

    path: Path
    precision: Precision
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: tuple[str, ...]
    gaps: tuple[Gap, ...]

    @property
    def worst(self) -> Gap:
        """The largest of the gaps."""
        return max(self.gaps, key=lambda gap: math.inf if math.isnan(gap.error) else gap.error)


def export(  # noqa: PLR0913 - each is a choice of its own
    model: nn.Module,
    path: str | Path,
    example: Any,
    precision: Precision = "fp32",
    free: Collection[str] | None = None,
    opset: int = OPSET,
    samples: Samples = (),
    keep_float: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Deployed:
    """Write a model as the file that a runtime opens, and compare what that computes with PyTorch.

    Args:
        model: the model; it is not changed.
        path: the file: `.onnx`, or `.xml` for an OpenVINO IR.
        example: how the model is called: a tensor, a tuple of arguments, or a dict of keyword arguments.
        precision: "fp32"; "fp16", which halves the file; or "int8".
        free: which of "batch", "height" and "width" may change; None: all that the model takes, and in which the file
            still computes what it does (some code turns sizes into numbers).
        opset: the version of ONNX's operators.
        samples: inputs to calibrate INT8 on, one array for each input.
        keep_float: layers, or nodes of the file, that INT8 leaves as they are.
        metadata: what an ONNX file, or the `rt_info` of an IR, is to say of itself, as JSON.
        force: write the file even if it computes something else.

    Raises:
        ExportError: the model does not go into the file, or the file computes something else.
        RuntimeUnfitError: the suffix or the precision is not known, or the model does not take another size.
        RuntimeMissingError: a package is not installed.
        ArtifactError: the file cannot be written.

    Example:
        >>> deployed = export(small, "small.onnx", torch.zeros(1, 3, 224, 224))  # doctest: +SKIP
        >>> deployed.free, deployed.worst.error  # doctest: +SKIP
        (('batch', 'height', 'width'), 3.1e-07)
    """
    path = Path(path).expanduser()
    _check(path, precision, samples, keep_float)
    form = inference_form(model, example)
    tensors = form.call.tensors()
    if precision == "int8":
        _check_samples(samples, tensors, free)
    # ONNX Runtime is as quick with the operations as they are; OpenVINO is not, and float16 overflows in some of them.
    half = precision == "fp16"
    deployed_form = fused_form(form, half) if half or path.suffix == ".xml" else form
    keep = partial(nodes_of, keep_float, model=form.model)
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        choices: list[Collection[str] | None] = [free] if free is not None or force else [None, ("batch",), ()]
        for choice in choices:
            try:
                exported = export_onnx(deployed_form, tensors, Path(folder) / "network.onnx", choice, opset, metadata)
            except RuntimeUnfitError as error:  # a size that looks free alone may not be free beside another
                if choice is choices[-1]:
                    raise
                _log.info("With %s free: %s", _said(choice), error)
                continue
            with telling_of_the_disk(exported.path):
                made = _made(exported, path.suffix, precision, samples, keep, metadata or {})
            try:
                found = _compared(form, exported, made, tensors, samples if precision == "int8" else ())
                deployed = Deployed(path, precision, exported.inputs, exported.outputs, exported.free, tuple(found))
                _judge(deployed, type(model).__name__, force)
            except (ExportError, RuntimeUnfitError) as error:
                if free is not None or not exported.free:
                    raise
                _log.info("With %s free: %s", _said(exported.free), error)
            else:
                _move(made, path)
                return deployed
    raise AssertionError("the last choice leaves nothing free, and returns or raises")


def _said(free: Collection[str] | None) -> str:
    return "all that can be" if free is None else ", ".join(free)


def _check(path: Path, precision: str, samples: Samples, keep_float: Sequence[str]) -> None:
    if path.suffix not in RUNTIMES:
        raise RuntimeUnfitError(
            f"{path} ends in neither .onnx nor .xml, which say what to write. Give it one of these."
        )
    if precision not in ("fp32", "fp16", "int8"):
        raise RuntimeUnfitError(f"A file is written in fp32, fp16 or int8, not in {precision}. Say one of these.")
    if precision == "int8" and len(samples) < FEWEST_SAMPLES:
        raise ExportError(
            f"INT8 wants inputs to calibrate on, at least {FEWEST_SAMPLES} and better some hundreds; there are "
            f"{len(samples)}. Give pictures that are like those of the use."
        )
    if keep_float and precision != "int8":
        raise RuntimeUnfitError(
            f"Only INT8 leaves layers in float, and the file is to be in {precision}. Ask for int8, or name none."
        )
    check_writable(path)


def _check_samples(samples: Samples, tensors: Sequence[torch.Tensor], free: Collection[str] | None) -> None:
    wanted = [(str(one.dtype).removeprefix("torch."), one.ndim) for one in tensors]
    for sample in samples:
        given = [(str(one.dtype), one.ndim) for one in sample]
        if given != wanted:
            raise ExportError(f"The model takes {_told(wanted)}, and a sample to calibrate on has {_told(given)}.")
        if free is not None and "batch" not in free and tensors[0].ndim and len(sample[0]) != len(tensors[0]):
            raise ExportError(
                f"The batch is fixed to {len(tensors[0])}, and a sample to calibrate on has {len(sample[0])}. Leave "
                "the batch free, or give samples of that size."
            )


def _told(kinds: Sequence[tuple[str, int]]) -> str:
    return " and ".join(f"{dtype} of {ndim} dimensions" for dtype, ndim in kinds) or "no array"


def _made(
    exported: Exported,
    suffix: str,
    precision: Precision,
    samples: Samples,
    keep_float: Choice,
    metadata: Mapping[str, Any],
) -> Path:
    """Write the file as it is to be, beside the ONNX in fp32 that it is made of."""
    out = exported.path.with_name(f"deployed{suffix}")
    if suffix == ".onnx":
        if precision == "fp32":
            shutil.copy(exported.path, out)
        else:
            halved = precision == "fp16"
            data = onnxruntime.halved(exported.path) if halved else quantized_onnx(exported.path, samples, keep_float)
            check_sound(require("onnx").load_from_string(data), "the model")
            out.write_bytes(data)
        return out
    library = require("openvino")
    if precision == "int8":
        model = quantized_ir(exported.path, samples, keep_float)
    else:
        try:
            model = library.Core().read_model(str(exported.path))
        except RuntimeError as error:
            raise ExportError(f"OpenVINO does not read the network: {' '.join(str(error).split())[:300]}") from error
    for key, value in metadata.items():
        told = value if isinstance(value, str) else json.dumps(value)
        model.set_rt_info(told, ["secateur", key.removeprefix("secateur.")])
    library.save_model(model, str(out), compress_to_fp16=precision == "fp16")
    return out


def _compared(
    form: InferenceForm, exported: Exported, made: Path, example: Sequence[torch.Tensor], samples: Samples
) -> list[Gap]:
    def takes(shapes: Shapes) -> bool:
        try:
            output_shapes(form, random_inputs(shapes, dtypes))
        except RuntimeUnfitError:
            return False
        return True

    dtypes = [one.dtype for one in example]
    session = open_network(Network.of_file(made.name, made), RUNTIMES[made.suffix], Options("fp32"))
    found = gaps(form, session, list(trial_inputs(example, exported.free, takes)))
    return found + (gaps_on_pictures(form, session, samples[:MOST_JUDGED]) if samples else [])


def _judge(deployed: Deployed, name: str, force: bool) -> None:
    tolerance, worst = TOLERANCES.get(deployed.precision), deployed.worst
    if tolerance is None or worst.error <= tolerance:
        return
    size = ", ".join("x".join(map(str, shape)) for shape in worst.sizes)
    what = (
        f"{name} in {deployed.precision} gives another {worst.output} than PyTorch for inputs of {size}: off by "
        f"{worst.error:.1e} of its largest value, where {tolerance:.0e} is allowed."
    )
    if not force:
        raise ExportError(f"{what} Nothing was written; force=True (--force) writes it all the same.")
    _log.warning("%s It is written all the same.", what)


def _move(made: Path, path: Path) -> None:
    """Bring a file to its place; of an IR the weights first, so that it never stands there without them."""
    suffixes = (".bin", path.suffix) if path.suffix == ".xml" else (path.suffix,)
    fill_together({path.with_suffix(suffix): partial(shutil.copyfile, made.with_suffix(suffix)) for suffix in suffixes})
