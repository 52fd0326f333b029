"""What a runtime opens: a model with its example, or a file that somebody exported."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import CodeType
from typing import Any, Literal

import torch
from torch import nn

from secateur.errors import ArtifactError, RuntimeUnfitError
from secateur.graph.calls import calls_of
from secateur.runtimes.exporting import Exported, export_onnx
from secateur.runtimes.forms import InferenceForm, fused_form, inference_form
from secateur.runtimes.packages import require
from secateur.runtimes.samples import Samples
from secateur.runtimes.shapes import Shapes, Sizes, random_inputs

FILES = (".onnx", ".xml")
PREPROCESSING = "secateur.preprocessing"  # under which an exported file tells it
Source = Literal["module", "exported", "fused"]  # what a runtime opens of a network
_RANDOM_SAMPLES = 2
_IMPORTABLE = "Make it of classes and functions that can be imported, or measure its exported file."


class Network:
    """A network that runtimes open.

    Attributes:
        name: what tables call it.
        form: the model as it is deployed; None if there is only a file.
        file: the ONNX or IR file that it came as; None for a model.
        shapes: of the inputs; in a file a free dimension is None.
        dtypes: of the inputs.
        samples: inputs to calibrate INT8 on; while there are none, random ones, which are good for timing alone.
        preprocessing: the mean and the deviation that it wants its pictures with; None if nobody knows.
    """

    def __init__(
        self,
        name: str,
        form: InferenceForm | None,
        file: Path | None,
        shapes: Sequence[Sequence[int | None]],
        dtypes: Sequence[torch.dtype],
    ) -> None:
        self.name, self.form, self.file = name, form, file
        self.shapes, self.dtypes = tuple(map(tuple, shapes)), tuple(dtypes)
        self.samples: Samples = ()
        self.preprocessing: dict[str, Any] | None = None

    @classmethod
    def of_model(cls, name: str, model: nn.Module, example: Any) -> Network:
        """Take a model; of one of the zoo the form that leaves out what only training needs.

        Raises:
            RuntimeUnfitError: it is called several times, with tensors in containers, or returns none.
        """
        form = inference_form(model, example)
        tensors = calls_of(example)[0].tensors()
        return cls(name, form, None, [tuple(one.shape) for one in tensors], [one.dtype for one in tensors])

    @classmethod
    def of_file(cls, name: str, path: str | Path) -> Network:
        """Take an ONNX file, or the .xml of an OpenVINO IR.

        Raises:
            ArtifactError: it is missing or damaged.
            RuntimeMissingError: the package that reads it is not installed.
        """
        path = Path(path)
        if not path.is_file():
            raise ArtifactError(f"{path} is not there. Check the path.")
        shapes, dtypes, told = _told_by_onnx(path) if path.suffix == ".onnx" else _told_by_ir(path)
        found = cls(name, None, path, shapes, dtypes)
        found.preprocessing = _preprocessing(told)
        return found

    def inputs(self, sizes: Sizes, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Return random inputs of a size.

        Raises:
            RuntimeUnfitError: the file leaves a size open that is not given, or is fixed to another.
        """
        known = [[1 if size is None else size for size in shape] for shape in self.shapes]
        wanted = sizes.of(known)
        for shape, asked in zip(self.shapes, wanted, strict=True):
            for size, one in zip(shape, asked, strict=True):
                if self.file is not None and size is not None and size != one:
                    raise RuntimeUnfitError(f"{self.file} is fixed to inputs of {_shown(shape)}, not {_shown(asked)}.")
        if any(
            size is None and one == 1 for a, b in zip(self.shapes, wanted, strict=True) for size, one in _inner(a, b)
        ):
            raise RuntimeUnfitError(f"{self.file} leaves the size of pictures open. Give one, such as 512x512.")
        return random_inputs(wanted, self.dtypes, seed)

    def packed(self, source: Source) -> bytes:
        """Return the network as bytes, for a process that this one starts: with its model, or with an export of it.

        Raises:
            RuntimeUnfitError: the model cannot be sent to another process.
            ExportError: the model does not go into ONNX.
        """
        with_model = source == "module"
        if not with_model and self.form is not None:
            getattr(self, source)  # made here, once for all
        twin = copy.copy(self)
        twin.form = self.form if with_model else None
        try:
            packed = pickle.dumps(twin)
        except Exception as error:
            raise RuntimeUnfitError(f"{self.name} cannot be sent to another process: {error}. {_IMPORTABLE}") from error
        if with_model and self.form is not None:
            own = next((one for one in self.form.modules() if type(one).__module__ == "__main__"), None)
            if own is not None:
                raise RuntimeUnfitError(
                    f"{self.name} holds {type(own).__name__}, whose class stands in the script that is running, and "
                    f"another process cannot import that. {_IMPORTABLE}"
                )
        return packed

    def calibration(self, shapes: Shapes | None = None) -> Samples:
        """Return the samples, or random inputs of these shapes, or of the example's."""
        if self.samples:
            return self.samples
        wanted = shapes or tuple(tuple(one.shape) for one in self.inputs(Sizes()))
        drawn = [random_inputs(wanted, self.dtypes, seed) for seed in range(_RANDOM_SAMPLES)]
        return [[one.numpy() for one in inputs] for inputs in drawn]

    @cached_property
    def identity(self) -> str:
        """A digest of what takes time: modules, their settings and code, inputs; the values of weights do not count.

        Raises:
            RuntimeUnfitError: there is only a file.
        """
        if self.form is None:
            raise RuntimeUnfitError(f"{self.file} is a file, and only models are told apart by their modules.")
        kinds = sorted(
            {f"{kind.__module__}.{kind.__qualname__} {_code_of(kind)}" for kind in map(type, self.form.modules())}
        )
        settings = [(name, _plain(vars(one))) for name, one in self.form.named_modules()]
        tensors = [(name, tuple(one.shape), str(one.dtype)) for name, one in self.form.state_dict().items()]
        call = self.form.call.map(lambda _: torch.empty(0))
        told = repr((repr(self.form.model), kinds, settings, tensors, self.shapes, self.dtypes, call.args, call.kwargs))
        return hashlib.sha256(told.encode()).hexdigest()

    @cached_property
    def exported(self) -> Exported:
        """The network as an ONNX file, made at the first use and gone with this object."""
        if self.form is None:
            assert self.file is not None
            if self.file.suffix != ".onnx":
                raise RuntimeUnfitError(f"{self.file} is an OpenVINO IR, which OpenVINO alone opens.")
            return Exported(self.file, (), (), ())
        return self._export(self.form)

    @cached_property
    def fused(self) -> Exported:
        """The same, rewritten so that it computes the same in fewer operations; a file is as it came."""
        return self.exported if self.form is None else self._export(fused_form(self.form))

    def _export(self, form: InferenceForm) -> Exported:
        folder = tempfile.mkdtemp(prefix="secateur-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        example = random_inputs(Sizes().of([[size or 1 for size in shape] for shape in self.shapes]), self.dtypes)
        return export_onnx(form, example, Path(folder) / "network.onnx")


def _code_of(kind: type[nn.Module]) -> str:
    """Return a digest of the code of a module's class and of those it derives from, but for torch's own."""

    def told(code: CodeType) -> list[Any]:
        constants = [told(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
        return [code.co_code.hex(), code.co_names, constants]

    own = [one for one in kind.__mro__ if not one.__module__.startswith(("torch.", "builtins"))]
    found = [(name, getattr(value, "__func__", value)) for one in own for name, value in sorted(vars(one).items())]
    codes = [(name, told(value.__code__)) for name, value in found if hasattr(value, "__code__")]
    return hashlib.sha256(repr(codes).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return the numbers and words in a value; of others nothing: they may look different in every process."""
    if isinstance(value, dict):
        return sorted((str(key), plain) for key, one in value.items() if (plain := _plain(one)) is not None)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return repr(value) if isinstance(value, bool | int | float | str | torch.dtype) else None


def _inner(shape: Sequence[int | None], asked: Sequence[int]) -> list[tuple[int | None, int]]:
    """Return the sizes but the batch's, which may be one."""
    return list(zip(shape, asked, strict=True))[1:]


def _shown(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _preprocessing(told: str | None) -> dict[str, Any] | None:
    """Return what an exported file says of its pre-processing, if it is of the right form."""
    try:
        found = json.loads(told or "null")
        return {name: [float(one) for one in found[name]] for name in ("mean", "std")}
    except (ValueError, TypeError, KeyError):
        return None


def _told_by_onnx(path: Path) -> tuple[list[list[int | None]], list[torch.dtype], str | None]:
    onnx = require("onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ArtifactError(f"{path} is no ONNX file, or a damaged one: {error}. Export it again.") from error
    graph = model.graph
    weights = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    shapes = [
        [dim.dim_value if dim.HasField("dim_value") else None for dim in one.type.tensor_type.shape.dim]
        for one in inputs
    ]
    kinds = [
        _kind(path, one.name, partial(onnx.helper.tensor_dtype_to_np_dtype, one.type.tensor_type.elem_type))
        for one in inputs
    ]
    told = {one.key: one.value for one in model.metadata_props}
    return shapes, kinds, told.get(PREPROCESSING)


def _kind(path: Path, name: str, tell: Callable[[], Any]) -> torch.dtype:
    """Return the dtype of an input, of which `tell` knows NumPy's."""
    import numpy as np

    try:
        return torch.from_numpy(np.empty(0, tell())).dtype
    except Exception as error:
        why = str(error).partition(". ")[0]
        raise ArtifactError(
            f"{path} has an input {name!r} of a kind that NumPy and PyTorch do not share ({why}). "
            "Export it with inputs of numbers, such as float32."
        ) from error


def _told_by_ir(path: Path) -> tuple[list[list[int | None]], list[torch.dtype], str | None]:
    openvino = require("openvino")
    try:
        model = openvino.Core().read_model(str(path))
    except Exception as error:
        raise ArtifactError(f"{path} is no OpenVINO IR, or a damaged one: {error}. Export it again.") from error
    shapes = [[dim.get_length() if dim.is_static else None for dim in one.get_partial_shape()] for one in model.inputs]
    kinds = [
        _kind(path, one.get_any_name() if one.get_names() else "", one.get_element_type().to_dtype)
        for one in model.inputs
    ]
    place = PREPROCESSING.split(".")
    return shapes, kinds, model.get_rt_info(place).astype(str) if model.has_rt_info(place) else None
