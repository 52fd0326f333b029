"""Networks in INT8, calibrated on inputs of the user's own; weights by channel, activations by tensor."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from secateur.errors import ExportError, SecateurError
from secateur.runtimes.correcting import correct_biases, free_outputs
from secateur.runtimes.equalizing import equalized
from secateur.runtimes.packages import quiet, require
from secateur.runtimes.samples import Run, Samples

_MEANS = frozenset(("ReduceMean", "ReduceL2", "MVN"))
_ARITHMETIC = frozenset(("Add", "Subtract", "Multiply", "Divide", "Power", "Sqrt", "Maximum"))

_CHANNEL_SCALES = 13  # opset
_NO_WORK = frozenset(("Constant", "Parameter", "Result"))

Choice = Callable[[Sequence[str]], list[str]]  # of nodes by name


def _none(_: Sequence[str]) -> list[str]:
    return []


def quantized_onnx(path: Path, samples: Samples, keep_float: Choice = _none) -> bytes:
    """Return an ONNX file in INT8, as pairs of QuantizeLinear and DequantizeLinear, by ONNX Runtime.

    Ranges are means over the samples, as NNCF takes them; biases make up for what weights lose; outputs are not
    rounded. Weights have 7 of the 8 bits: processors with AVX2 but without VNNI add pairs of 8-bit products in 16
    bits, where sums of full range overflow, and the network is wrong.

    Args:
        path: the file in fp32.
        samples: what it is calibrated on.
        keep_float: from the names of all nodes to those that stay in fp32.

    Raises:
        ExportError: ONNX Runtime cannot quantise it (says why).
    """
    quantization = require("onnxruntime.quantization")
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder, quiet("", "nncf"):
        source, prepared, out = (Path(folder) / f"{name}.onnx" for name in ("equalized", "prepared", "int8"))
        try:
            source.write_bytes(_with_channel_scales(equalized(path, samples, _opened_in_onnx_runtime)))
            quantization.shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            graph = require("onnx").load(str(prepared)).graph
            weights = {one.name for one in graph.initializer}  # old files list them among the inputs
            names = [one.name for one in graph.input if one.name not in weights]
            kept = keep_float([one.name for one in graph.node])
            quantization.quantize_static(
                str(prepared),
                str(out),
                _reader(quantization, names, samples),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,
                nodes_to_exclude=kept,
                extra_options={"CalibMovingAverage": True},
            )
            network, made = (require("onnx").load(str(one)) for one in (prepared, out))
            correct_biases(made, network, samples, _opened_in_onnx_runtime)
            free_outputs(made)
        except SecateurError:
            raise
        except Exception as error:
            raise ExportError(f"ONNX Runtime does not quantise the network: {' '.join(str(error).split())}") from error
        return made.SerializeToString()


def _with_channel_scales(network: bytes) -> bytes:
    """Return a network in the first opset that has scales by channel, if it is in an older one."""
    onnx = require("onnx")
    model = onnx.load_from_string(network)
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if opset >= _CHANNEL_SCALES:
        return network
    return onnx.version_converter.convert_version(model, _CHANNEL_SCALES).SerializeToString()


def _opened_in_onnx_runtime(network: bytes) -> Run:
    ort = require("onnxruntime")
    settings = ort.SessionOptions()
    settings.log_severity_level = 3  # errors
    session = ort.InferenceSession(network, settings, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda sample: session.run(None, dict(zip(names, sample, strict=True)))


def _reader(quantization: Any, names: Sequence[str], samples: Samples) -> Any:
    class Reader(quantization.CalibrationDataReader):
        """Hands the samples out one by one."""

        def __init__(self) -> None:
            self.left: Iterator[Sequence[np.ndarray]] = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.left, None)
            return None if sample is None else dict(zip(names, sample, strict=True))

    return Reader()


def quantized_ir(path: Path, samples: Samples, keep_float: Choice = _none) -> Any:
    """Return a file as a model of OpenVINO in INT8, by NNCF.

    Statistics over pictures, and what is scaled by them, stay in float: in 8 bits they cost quality and time. Weights
    have half of their range, as in `quantized_onnx` and for its reason.

    Args:
        path: the file in fp32, ONNX or an IR.
        samples: what it is calibrated on.
        keep_float: from the names of all nodes to those that stay in fp32.

    Raises:
        ExportError: NNCF cannot quantise it (says why).
    """
    nncf, core = require("nncf"), require("openvino").Core()
    advanced = nncf.quantization.advanced_parameters
    with quiet("", "nncf"), redirect_stdout(io.StringIO()):  # a bar of progress
        try:
            is_onnx = path.suffix == ".onnx"
            model = core.read_model(equalized(path, samples, _opened_in_openvino) if is_onnx else str(path))
            nodes = [node for node in model.get_ordered_ops() if node.get_type_name() not in _NO_WORK]
            every = [node.get_friendly_name() for node in nodes]
            names = list(dict.fromkeys([*keep_float(every), *statistical_nodes(model)]))
            return nncf.quantize(
                model,
                nncf.Dataset([list(sample) for sample in samples]),
                subset_size=len(samples),
                preset=nncf.QuantizationPreset.MIXED,  # activations asymmetric: few here have zero in their middle
                advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=advanced.OverflowFix.ENABLE),
                ignored_scope=nncf.IgnoredScope(names=names) if names else None,
            )
        except SecateurError:
            raise
        except Exception as error:
            raise ExportError(f"NNCF does not quantise the network: {' '.join(str(error).split())[:300]}") from error


def _opened_in_openvino(network: bytes) -> Run:
    core = require("openvino").Core()
    compiled = core.compile_model(core.read_model(network), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda sample: list(compiled(list(sample)).values())


def statistical_nodes(model: Any) -> list[str]:
    """Return the names of the nodes that take means over pictures, and of the arithmetic that follows from these.

    That is what an instance norm is made of where it is no operation of its own. A convolution, an activation, or
    whatever else does more than arithmetic ends it.

    Args:
        model: a model of OpenVINO.
    """
    found: list[str] = []
    statistical: set[str] = set()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        sources = [value.get_node().get_friendly_name() for value in node.input_values()]
        if kind in _MEANS or (kind in _ARITHMETIC and not statistical.isdisjoint(sources)):
            name = node.get_friendly_name()
            statistical.add(name)
            found.append(name)
    return found
