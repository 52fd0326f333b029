"""Measurements that were made before on this machine, so that they need not be made again."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from secateur import __version__
from secateur.artifact.atomic import write_atomically
from secateur.errors import ArtifactError
from secateur.runtimes.machine import this_machine
from secateur.runtimes.registry import presence_of
from secateur.runtimes.session import Options

_log = logging.getLogger("secateur")


def folder() -> Path:
    """Return where measurements are kept: SECATEUR_CACHE, or the user's cache folder."""
    if own := os.environ.get("SECATEUR_CACHE"):
        return Path(own).expanduser()
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "secateur" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "secateur"


def remembered(
    what: str, runtime: str, options: Options, details: Any, measure: Callable[[], Any], lasts: float = math.inf
) -> Any:
    """Return a measurement, a JSON value, from the cache or else made now.

    Args:
        what: the kind of measurement.
        runtime: the runtime's name; its version counts, and so does the machine.
        options: precision, device and threads.
        details: what else it hangs on, a JSON value.
        measure: makes it.
        lasts: how many seconds after it was made it still holds.
    """
    versions = [__version__, torch.__version__, presence_of(runtime).version]
    threads = options.threads or torch.get_num_threads()  # as far as anybody knows; the runtime may take others
    key = [what, str(this_machine()), runtime, versions, {**vars(options), "threads": threads}, details]
    return recalled(what, key, measure, lasts)


def recalled(what: str, key: Any, measure: Callable[[], Any], lasts: float = math.inf) -> Any:
    """Return a JSON value from the cache or else made now, by all that it hangs on, a JSON value, too."""
    name = f"{what}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]}.json"
    try:
        path = folder() / name
        found = json.loads(path.read_text(encoding="utf-8"))
        fresh = time.time() - path.stat().st_mtime < lasts
        if fresh and found["key"] == json.loads(json.dumps(key)) and found["value"]:
            return found["value"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        pass  # not there, or not ours
    value = measure()
    try:
        path = folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"key": key, "value": value}).encode())
    except (OSError, RuntimeError, ArtifactError) as error:  # there may be no home
        _log.warning("The measurement is not kept for the next time: %s", error)
    return value
