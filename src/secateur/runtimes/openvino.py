"""OpenVINO, on the processor or on an Intel GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from typing_extensions import override

from secateur.errors import RuntimeUnfitError
from secateur.runtimes.network import Network
from secateur.runtimes.packages import require
from secateur.runtimes.quantizing import quantized_ir
from secateur.runtimes.runtime import Runtime
from secateur.runtimes.session import PROFILED, Arrays, NodeTime, Options, Session, median_times
from secateur.runtimes.shapes import Shapes

_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}


def devices() -> tuple[str, ...]:
    """Return the devices that this machine has."""
    there = require("openvino").Core().available_devices
    return tuple(device.lower() for device in ("CPU", "GPU") if any(one.startswith(device) for one in there))


def precisions(device: str) -> tuple[str, ...]:
    """Return the precisions that a device computes in, other ones in fp32."""
    able = require("openvino").Core().get_property(device.upper(), "OPTIMIZATION_CAPABILITIES")
    return tuple(precision for precision, word in _CAPABILITIES.items() if word in able)


def open_openvino(network: Network, options: Options, shapes: Shapes | None, profiled: bool = False) -> OpenVinoSession:
    """Open a network in OpenVINO; the arithmetic is the one asked for, whatever the device would take by itself.

    In INT8 what is not quantised is computed in bf16 where the device does that, and else in fp32.

    Raises:
        RuntimeUnfitError: it cannot be compiled (says why).
        ExportError: the model does not go into ONNX.
    """
    path = network.file if network.file is not None else network.fused.path
    core = require("openvino").Core()
    try:
        quantized = options.precision == "int8"
        model = quantized_ir(path, network.calibration(shapes)) if quantized else core.read_model(str(path))
        if shapes is not None:
            model.reshape({place: list(shape) for place, shape in enumerate(shapes)})
        return OpenVinoSession(core, model, options, profiled)
    except RuntimeError as error:
        raise RuntimeUnfitError(f"{network.name} does not open in OpenVINO: {' '.join(str(error).split())}") from error


class OpenVinoSession(Session):
    """A model of OpenVINO, compiled for a device."""

    def __init__(self, core: Any, model: Any, options: Options, profiled: bool = False) -> None:
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _hint(options),
            "PERF_COUNT": profiled,
        }
        if options.threads and options.device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = options.threads
        self.compiled = core.compile_model(model, options.device.upper(), settings)
        super().__init__(*([_name(one) for one in ports] for ports in (model.inputs, model.outputs)))

    @override
    def bound(self, arrays: Arrays) -> Callable[[], Any]:
        request = self.compiled.create_infer_request()
        tensor = require("openvino").Tensor
        for place, one in enumerate(arrays):
            request.set_input_tensor(place, tensor(np.asarray(one, order="C")))

        def run() -> Any:
            request.infer()
            return request

        return run

    @override
    def read(self, result: Any) -> tuple[np.ndarray, ...]:
        return tuple(result.get_output_tensor(place).data.copy() for place in range(len(self.outputs)))


def profile(network: Network, options: Options, arrays: Arrays) -> list[NodeTime]:
    """Tell what each operation takes; those that are fused into another one have no time of their own."""
    run = open_openvino(network, options, tuple(one.shape for one in arrays), profiled=True).bound(arrays)
    return median_times([_node_times(run()) for _ in range(PROFILED + 1)][1:])


def _node_times(request: Any) -> list[NodeTime]:
    return [
        NodeTime(one.node_name, one.node_type, one.real_time.total_seconds() * 1e3)
        for one in request.get_profiling_info()
        if one.real_time.total_seconds() > 0
    ]


def _hint(options: Options) -> str:
    if options.precision == "int8":
        return "bf16" if "bf16" in precisions(options.device) else "f32"
    return _HINTS[options.precision]


def _name(port: Any) -> str:
    return port.get_any_name() if port.get_names() else "output"


OPENVINO = Runtime("openvino", "openvino", devices, precisions, open_openvino, source="fused", profile=profile)
