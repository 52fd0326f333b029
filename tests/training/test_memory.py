"""What a step frees is there for the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

SCRIPT = """
import resource, sys
import torch
from secateur.training.memory import freed_memory_kept

def faults_of_a_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(40 << 20, dtype=torch.uint8) for _ in range(4)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def again():
    return [faults_of_a_round() for _ in range(6)][-1]  # blocks find their places in the first ones

def held():
    return int(open("/proc/self/statm").read().split()[1])

torch.set_num_threads(1)
usual, before = again(), held()
with freed_memory_kept():
    kept, within = again(), held()
print(usual, kept, before, within, held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc alone is tuned")
def test_large_blocks_are_taken_again_within_and_handed_back_after():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    usual, kept, before, within, after = map(int, done.stdout.split())
    assert usual > 100, "this system hands large blocks out without a page fault"
    assert kept < usual / 20
    blocks = (4 * 40 << 20) // resource.getpagesize()
    assert within - before > 0.9 * blocks
    assert after - before < 0.1 * blocks
