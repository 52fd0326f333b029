"""How much memory there is, and a limit on a process, where the system knows both."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_HEADROOM = 0.85  # of what is free; the rest is for everything else that runs


def allowance(processes: int = 1) -> int | None:
    """Return how many bytes each of several processes may take so that the machine survives; None if not known."""
    known = [size for size in (_free(), _control_group()) if size is not None]
    return int(_HEADROOM * min(known) / processes) if known else None


def limit(most: int | None) -> None:
    """Let this process' data grow to so many bytes at most; beyond that, allocation fails."""
    if most is not None and sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))


def peak() -> int | None:
    """Return the largest number of bytes that this process has held; None where the system does not say."""
    told = _told("/proc/self/status", r"VmHWM:\s+(\d+) kB")  # getrusage also counts the process that started this one
    if told is not None:
        return told
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def is_exhausted(error: Exception) -> bool:
    """Tell whether an error of a runtime says that memory is at its end."""
    words = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation", "failed to allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _free() -> int | None:
    return _told("/proc/meminfo", r"MemAvailable:\s+(\d+) kB")


def _told(path: str, pattern: str) -> int | None:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _control_group() -> int | None:
    """Return what a container leaves; what it holds of files goes when it is wanted."""
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / f"memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
        cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(encoding="ascii"), re.MULTILINE)
        return None if most == "max" else max(0, int(most) - int(used) + int(cached[1] if cached else 0))
    except (OSError, ValueError):
        return None
