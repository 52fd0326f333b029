"""ONNX Runtime, on the processor or on CUDA."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from secateur.errors import RuntimeUnfitError
from secateur.runtimes.network import Network
from secateur.runtimes.packages import require
from secateur.runtimes.quantizing import quantized_onnx
from secateur.runtimes.runtime import Runtime
from secateur.runtimes.session import PROFILED, Arrays, NodeTime, Options, Session, median_times
from secateur.runtimes.shapes import Shapes

_FUSED = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "Add"}
)  # into the convolution before

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def devices() -> tuple[str, ...]:
    """Return the devices that this build computes on."""
    there = require("onnxruntime").get_available_providers()
    return tuple(device for device, provider in PROVIDERS.items() if provider in there)


def precisions(_: str) -> tuple[str, ...]:
    """Return the precisions that a device computes in."""
    return ("fp32", "fp16", "int8")


def open_onnx(network: Network, options: Options, shapes: Shapes | None, profiled: str = "") -> OnnxSession:
    """Open a network in ONNX Runtime; weights and operators in fp16 if asked for, inputs and outputs stay as they are.

    Raises:
        RuntimeUnfitError: the file is no ONNX, or an operator of it is missing (says which).
        ExportError: the model does not go into ONNX.
    """
    path = network.exported.path
    if options.precision == "int8":
        return OnnxSession(quantized_onnx(path, network.calibration(shapes)), options, profiled)
    return OnnxSession(path if options.precision == "fp32" else halved(path), options, profiled)


class OnnxSession(Session):
    """An ONNX file in ONNX Runtime."""

    def __init__(self, source: Path | bytes, options: Options, profiled: str = "") -> None:
        ort = require("onnxruntime")
        settings = ort.SessionOptions()
        settings.log_severity_level = 3  # errors
        settings.intra_op_num_threads = options.threads
        if profiled:
            settings.enable_profiling, settings.profile_file_prefix = True, profiled
        try:
            self.session = ort.InferenceSession(
                source if isinstance(source, bytes) else str(source), settings, providers=[PROVIDERS[options.device]]
            )
        except Exception as error:
            name = source if isinstance(source, Path) else "The network"
            raise RuntimeUnfitError(f"{name} does not open in ONNX Runtime: {' '.join(str(error).split())}") from error
        super().__init__(
            [one.name for one in self.session.get_inputs()], [one.name for one in self.session.get_outputs()]
        )
        self.device = options.device

    @override
    def bound(self, arrays: Arrays) -> Callable[[], Any]:
        if self.device == "cpu":
            given = {name: np.asarray(one, order="C") for name, one in zip(self.inputs, arrays, strict=True)}
            return lambda: self.session.run(None, given)
        binding = self.session.io_binding()
        ort = require("onnxruntime")
        for name, one in zip(self.inputs, arrays, strict=True):
            binding.bind_ortvalue_input(
                name, ort.OrtValue.ortvalue_from_numpy(np.asarray(one, order="C"), self.device, 0)
            )
        for name in self.outputs:
            binding.bind_output(name, self.device)

        def run() -> Any:
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return binding.get_outputs()

        return run

    @override
    def read(self, result: Any) -> tuple[np.ndarray, ...]:
        return tuple(one if isinstance(one, np.ndarray) else one.numpy() for one in result)


def profile(network: Network, options: Options, arrays: Arrays) -> list[NodeTime]:
    """Tell what each operation takes; those that are fused into another one have no time of their own."""
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        session = open_onnx(
            network, options, tuple(one.shape for one in arrays), profiled=str(Path(folder) / "profile")
        )
        run = session.bound(arrays)
        for _ in range(PROFILED + 1):
            run()
        events = json.loads(Path(session.session.end_profiling()).read_text(encoding="utf-8"))
        convolutions = _convolutions(network.exported.path)
    runs: list[list[NodeTime]] = [[]]
    for event in events:
        if event["name"] == "model_run":  # it is told after its operations
            runs.append([])
        elif event["name"].endswith("_kernel_time"):
            name, kind = str(event["name"]).removesuffix("_kernel_time"), event["args"]["op_name"]
            path = convolutions.get(name.removesuffix("_nchwc"), name)
            runs[-1].append(NodeTime(path, kind, event["dur"] / 1e3))
    return median_times(runs[1:-1])  # after the last comes what is no run


def _convolutions(file: Path) -> dict[str, str]:
    """Return, by tensor, the convolution that it comes from through activations: fused ones are named after that."""
    found: dict[str, str] = {}
    for node in require("onnx").load(str(file), load_external_data=False).graph.node:
        if node.op_type == "Conv":
            found[node.output[0]] = node.name
        elif node.op_type in _FUSED and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def halved(path: Path) -> bytes:
    """Return an ONNX file with weights and operators in fp16."""
    onnx, float16 = require("onnx"), require("onnxruntime.transformers.float16")
    model = float16.convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)
    # It adds its casts of inputs at the end; the standard wants nodes in the order in which they can run.
    require("onnxruntime.transformers.onnx_model").OnnxModel.graph_topological_sort(model.graph)
    return model.SerializeToString()


ONNX_RUNTIME = Runtime("onnxruntime", "onnxruntime", devices, precisions, open_onnx, source="exported", profile=profile)
