"""The runtimes by name, and what this machine has of them."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import RuntimeMissingError, RuntimeUnfitError, nearest
from secateur.runtimes import compiled, eager, onnxruntime, openvino
from secateur.runtimes.network import Network
from secateur.runtimes.packages import EXTRAS, is_installed, require, version_of
from secateur.runtimes.runtime import Runtime
from secateur.runtimes.session import Options, Session
from secateur.runtimes.shapes import Shapes

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        eager.PLAIN, eager.CHANNELS_LAST, compiled.COMPILED, onnxruntime.ONNX_RUNTIME, openvino.OPENVINO,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Presence:
    """What this machine has of a runtime; `devices` is empty if it is missing, and `remedy` says how to get it."""

    name: str
    version: str
    devices: tuple[tuple[str, tuple[str, ...]], ...]  # each with its precisions
    remedy: str = ""


def presence_of(name: str) -> Presence:
    """Say what this machine has of a runtime."""
    runtime = runtime_of(name)
    if not is_installed(runtime.package):
        return Presence(name, "", (), f"pip install 'secateur[{EXTRAS[runtime.package]}]'")
    try:
        found = tuple((device, runtime.precisions(device)) for device in runtime.devices())
    except RuntimeMissingError as error:
        return Presence(name, "", (), str(error))
    return Presence(name, version_of(runtime.package), found)


def open_network(
    network: Network, runtime: str, options: Options | None = None, shapes: Shapes | None = None
) -> Session:
    """Open a network in a runtime.

    Args:
        network: a model or a file.
        runtime: one of "torch", "torch-channels-last", "torch-compile", "onnxruntime" and "openvino".
        options: precision, device and threads; fp32 on the processor if left out.
        shapes: of the inputs, where it is to run on no others: some runtimes are faster then.

    Raises:
        RuntimeUnfitError: there is no such runtime, or it has no such device or precision, or cannot run the network.
        RuntimeMissingError: its package is not installed.
        ExportError: the model does not go into the file that the runtime opens.

    Example:
        >>> import numpy, torch
        >>> network = Network.of_model("conv", torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
        >>> [output.shape for output in open_network(network, "torch")(numpy.zeros((2, 3, 8, 8), "float32"))]
        [(2, 4, 6, 6)]
    """
    options = options or Options()
    check_able(runtime, options)
    return runtime_of(runtime).open(network, options, shapes)


def check_able(runtime: str, options: Options) -> None:
    """Make sure, before the long work, that a runtime is there and computes on a device in a precision.

    Raises:
        RuntimeUnfitError: there is no such runtime, device or precision.
        RuntimeMissingError: its package is not installed.
    """
    there = presence_of(runtime)
    if there.remedy:
        require(runtime_of(runtime).package)  # tells of one that is broken
        raise RuntimeMissingError(f"{runtime} is not installed. Run: {there.remedy}")
    able = dict(there.devices)
    if options.device not in able:
        raise RuntimeUnfitError(
            f"{runtime} has no device {options.device!r} on this machine; it has {', '.join(able)}. "
            "Say one of these, or install a build for that device."
        )
    if options.precision not in able[options.device]:
        raise RuntimeUnfitError(
            f"{runtime} does not compute in {options.precision} on {options.device}; it does in "
            f"{', '.join(able[options.device])}. Say one of these."
        )


def runtime_of(name: str) -> Runtime:
    """Return a runtime by name.

    Raises:
        RuntimeUnfitError: there is none; offers the nearest names.
    """
    if name not in RUNTIMES:
        raise RuntimeUnfitError(f"There is no runtime {name!r}.{nearest(name, RUNTIMES)}")
    return RUNTIMES[name]
