"""What this machine is: its processor, what that can do, and how much of it there is."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import torch

# What matters to the speed of a network, in the order of age.
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_fp16")
_INSTRUCTIONS_OF_ARM = ("asimd", "asimddp", "sve", "bf16", "i8mm", "sme")


@dataclass(frozen=True)
class Machine:
    """The machine that measurements hold for."""

    system: str
    processor: str
    cores: int  # that this process may use
    instructions: tuple[str, ...]
    memory_bytes: int | None
    accelerators: tuple[str, ...]

    def __str__(self) -> str:
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**30:.0f} GB"
        able = f", {' '.join(self.instructions)}" if self.instructions else ""
        more = "".join(f", {name}" for name in self.accelerators)
        return f"{self.processor}, {self.cores} cores{memory}{able}{more}"


def this_machine() -> Machine:
    """Look at the machine.

    Example:
        >>> this_machine().cores >= 1
        True
    """
    told = _told("/proc/cpuinfo")
    flags = set(re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", told, re.MULTILINE)[:1] or [""])
    there = set(" ".join(flags).split())
    name = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _told("/proc/meminfo"), re.MULTILINE)
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=name[1].strip() if name else platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        instructions=tuple(word for word in (*_INSTRUCTIONS, *_INSTRUCTIONS_OF_ARM) if word in there),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        accelerators=tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())),
    )


def _told(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
