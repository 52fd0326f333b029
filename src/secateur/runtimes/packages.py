"""Optional packages: imported where they are used, and named with the extra that brings them where they are missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from secateur.errors import RuntimeMissingError

EXTRAS = {
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx"),
    **dict.fromkeys(("openvino", "nncf"), "openvino"),
    **dict.fromkeys(("PIL", "cv2", "av", "pymatting"), "matting"),
    **dict.fromkeys(("lightning_fabric", "lightning", "tensorboardX"), "train"),
}


def require(package: str) -> Any:
    """Import an optional package; torch computes with as many threads as before, whatever the package sets.

    Raises:
        RuntimeMissingError: it is not installed, or broken.

    Example:
        >>> require("no_such_package")
        Traceback (most recent call last):
        secateur.errors.RuntimeMissingError: no_such_package is not installed. Run: pip install no_such_package
    """
    threads = torch.get_num_threads()
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise RuntimeMissingError(f"{package} does not import: {error}. Install what it asks for.") from error
        extra = EXTRAS.get(package.partition(".")[0])
        wanted = f"'secateur[{extra}]'" if extra else package
        raise RuntimeMissingError(f"{package} is not installed. Run: pip install {wanted}") from None
    except Exception as error:
        raise RuntimeMissingError(f"{package} does not import: {error}. Install it again.") from error
    finally:
        if torch.get_num_threads() != threads:  # numba's import sets it, and sums would have other last digits
            torch.set_num_threads(threads)


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Keep packages from warning users of what only the packages' authors can change."""
    listening = [(logging.getLogger(name), logging.getLogger(name).level) for name in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger, _ in listening:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in listening:
                logger.setLevel(level)


def is_installed(package: str) -> bool:
    """Tell whether a package is there, without importing it."""
    return importlib.util.find_spec(package) is not None


def version_of(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # it comes under another name, as onnxruntime-gpu does
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))
