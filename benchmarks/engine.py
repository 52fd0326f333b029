"""Speed and memory of the engine, beside Torch-Pruning where it is installed: CPU seconds of one thread.

python benchmarks/engine.py [--json] [--rounds 5] [--only resnet50,modnet]

For each model the two run in turns in one process, and medians count, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import multiprocessing
import resource
import statistics
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import secateur  # noqa: E402
from secateur.models.modnet import MODNet  # noqa: E402
from tests import torchvision_operators  # noqa: E402

MODNET_EXAMPLE = torch.zeros(1, 3, 512, 512)
TORCHVISION = (
    "resnet18", "resnet50", "resnet152", "vgg16_bn", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "mnasnet1_0", "densenet121", "densenet201", "efficientnet_b0", "efficientnet_b7", "regnet_y_400mf", "regnet_y_32gf",
    "shufflenet_v2_x1_0", "googlenet", "inception_v3", "convnext_tiny", "convnext_large", "fcn_resnet50", "vit_b_16",
    "swin_t",
)  # fmt: skip
TIMM = ("dla102x2", "res2net50_26w_4s", "efficientnetv2_rw_s", "mobilenetv3_large_100", "mobilenetv3_small_100")
WITHOUT_DATA = ("convnext_large", "regnet_y_32gf")  # both engines look at their shapes alone
LARGE = ("convnext_large", "vit_l_16")  # built, traced, planned and cut without a weight in memory
SIDES = {"inception_v3": 299, "efficientnetv2_rw_s": 288}
OPTIONS = {
    "fcn_resnet50": {"weights_backbone": None},
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
}
LAYERS = (10, 30, 100, 300, 1000)
MEMORY = 12 * 2**30  # bytes of address space; some models make the peer ask for all there is


def main() -> None:
    """Measure everything and print it."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = [name for name in model_names() if not options.only or name in options.only.split(",")]
    found = {
        "speed": [_in_child(partial(speed_of, rounds=options.rounds), name) for name in names],
        "memory": [_in_child(memory_of, name) for name in names],
        "large": [_in_child(large_of, name) for name in LARGE if torchvision_operators.declare()],
        "growth": [growth_of(name, options.rounds) for name in CHAINS],
        "modnet_to_proof": proof_of_modnet(),
    }
    print(json.dumps(found, indent=1)) if options.json else print_tables(found)


def model_names() -> list[str]:
    """Return what can be built here."""
    timm = TIMM if importlib.util.find_spec("timm") else ()
    return ["modnet", *((*TORCHVISION, *timm) if torchvision_operators.declare() else ())]


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a model with random weights, or none, in eval mode, and its example."""
    torch.manual_seed(0)
    if name == "modnet":
        return MODNet().eval(), MODNET_EXAMPLE
    torchvision_operators.declare()
    if name in TIMM:
        import timm

        model = timm.create_model(name)
    else:
        from torchvision.models import get_model

        model = get_model(name, weights=None, **OPTIONS.get(name, {}))
    device = "meta" if name in WITHOUT_DATA else "cpu"
    side = SIDES.get(name, 224)
    return model.eval().to(device), torch.zeros(1, 3, side, side, device=device)


def speed_of(name: str, rounds: int) -> dict[str, Any]:
    """Time tracing and grouping, ours and theirs in turns in this process, which may not take all memory there is."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, example = build(name)
    contenders: dict[str, Callable[[], object]] = {"secateur": lambda: secateur.trace(model, example).groups}
    if theirs := torch_pruning():
        contenders["torch_pruning"] = lambda: theirs(model, example)
    taken: dict[str, list[float]] = {contender: [] for contender in contenders}
    failures: dict[str, str] = {}
    for turn in range(-1, rounds):
        for contender in [contender for contender in contenders if contender not in failures]:
            try:
                seconds = cpu_seconds(contenders[contender])
            except Exception as error:  # noqa: BLE001 - a peer's failure is a result
                failures[contender] = f"{type(error).__name__}: {' '.join(str(error).split())}"
                continue
            if turn >= 0:
                taken[contender].append(seconds)
    row = {"model": name, **{contender: statistics.median(times) for contender, times in taken.items() if times}}
    if "secateur" in row and "torch_pruning" in row:
        row["ratio"] = row["secateur"] / row["torch_pruning"]
    return {**row, "failures": failures}


def torch_pruning() -> Callable[[nn.Module, torch.Tensor], object] | None:
    """Return Torch-Pruning's way from a model to all of its groups, or None where it is not installed."""
    try:
        import torch_pruning as tp
    except ImportError:
        return None

    def groups(model: nn.Module, example: torch.Tensor) -> object:
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)
        return list(graph.get_all_groups())

    return groups


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the CPU time that a call takes in this process, without the garbage of an earlier one."""
    gc.collect()
    start = time.process_time()
    call()
    return time.process_time() - start


def memory_of(name: str) -> dict[str, Any]:
    """Measure what a trace adds to this process at its peak (resident), and what Python allocates."""
    torch.set_num_threads(1)
    model, example = build(name)
    secateur.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 8, 8))
    before = peak_megabytes(restart=True)
    secateur.trace(model, example)
    resident = peak_megabytes() - before
    tracemalloc.start()
    secateur.trace(model, example)
    return {"model": name, "resident_mb": resident, "python_mb": tracemalloc.get_traced_memory()[1] / 2**20}


def large_of(name: str) -> dict[str, Any]:
    """Trace, plan and cut a model without data: CPU seconds, and what that adds to this process at its peak."""
    torch.set_num_threads(1)
    torchvision_operators.declare()
    from torchvision.models import get_model

    with torch.device("meta"):
        model = get_model(name, weights=None).eval()
        example = torch.zeros(1, 3, 224, 224)
    before, start = peak_megabytes(restart=True), time.process_time()
    graph = secateur.trace(model, example)
    traced = time.process_time()
    small = secateur.cut(model, secateur.plan(graph, model, ratio=0.5, criterion="random"))
    return {
        "model": name,
        "trace_s": traced - start,
        "plan_and_cut_s": time.process_time() - traced,
        "resident_mb": peak_megabytes() - before,
        "parameters_m": [sum(parameter.numel() for parameter in each.parameters()) / 1e6 for each in (model, small)],
    }


def peak_megabytes(restart: bool = False) -> float:
    """Return the largest resident size of this process so far; `restart` forgets larger ones of before (Linux only)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if restart:
        Path("/proc/self/clear_refs").write_text("5")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10


def _in_child(function: Callable[[str], Any], name: str) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (name,))


class Residual(nn.Module):
    """A convolution beside its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.conv(x))


def _plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())


CHAINS: dict[str, Callable[[], nn.Module]] = {"plain": _plain, "residual": Residual}


def growth_of(name: str, rounds: int) -> dict[str, Any]:
    """Time chains of 10 to 1,000 layers; the exponent is the slope in a double logarithmic plot."""
    example, seconds = torch.zeros(1, 3, 32, 32), []
    for count in LAYERS:
        blocks = (CHAINS[name]() for _ in range(count))
        model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *blocks, nn.Conv2d(16, 2, 1)).eval()
        secateur.trace(model, example)
        times = [cpu_seconds(lambda model=model: secateur.trace(model, example).groups) for _ in range(rounds)]
        seconds.append(statistics.median(times))
    slopes = np.diff(np.log(seconds)) / np.diff(np.log(LAYERS))
    exponent = np.polyfit(np.log(LAYERS), np.log(seconds), 1)[0]
    return {
        "chain": name,
        "layers": dict(zip(map(str, LAYERS), seconds, strict=True)),
        "exponent": float(exponent),
        "last_exponent": float(slopes[-1]),
    }


def proof_of_modnet() -> dict[str, float]:
    """Time the whole way of MODNet at 512x512: trace, plan, cut, proof."""
    model, example = build("modnet")
    wall, start = time.perf_counter(), time.process_time()
    secateur.prune(model, example, ratio=0.5)
    return {"cpu_s": time.process_time() - start, "wall_s": time.perf_counter() - wall}


def print_tables(found: dict[str, Any]) -> None:
    """Print the figures for people."""
    print("Trace and groups, CPU seconds of one thread, median")
    for row in found["speed"]:
        figures = [f"{row[key]:8.3f}" if key in row else "      --" for key in ("secateur", "torch_pruning", "ratio")]
        failed = "; ".join(f"{who}: {what[:60]}" for who, what in row["failures"].items())
        print(f"  {row['model']:22} secateur {figures[0]}   Torch-Pruning {figures[1]}   ratio {figures[2]}  {failed}")
    ratios = {row["model"]: row["ratio"] for row in found["speed"] if "ratio" in row}
    if ratios:
        slower = ", ".join(name for name, ratio in ratios.items() if ratio > 1)
        print(f"  median ratio {statistics.median(ratios.values()):.2f} of {len(ratios)}; slower: {slower or 'none'}")
    print("Memory of the trace, MB")
    for row in found["memory"]:
        print(f"  {row['model']:22} resident {row['resident_mb']:8.1f}   Python {row['python_mb']:8.1f}")
    print("Large models without data")
    for row in found["large"]:
        full, small = row["parameters_m"]
        print(
            f"  {row['model']:22} trace {row['trace_s']:.2f} s, plan and cut {row['plan_and_cut_s']:.2f} s, resident "
            f"{row['resident_mb']:.0f} MB; {full:.0f} M parameters, then {small:.0f} M"
        )
    print("Growth with depth, CPU seconds")
    for row in found["growth"]:
        times = "  ".join(f"{count}: {seconds:.3f}" for count, seconds in row["layers"].items())
        print(f"  {row['chain']:10} {times}   exponent {row['exponent']:.2f}, last step {row['last_exponent']:.2f}")
    whole = found["modnet_to_proof"]
    print(f"MODNet 512x512, trace to proof: {whole['cpu_s']:.2f} s of CPU, {whole['wall_s']:.2f} s on the clock")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rounds", type=int, default=5, help="rounds whose median counts, after one that does not")
    parser.add_argument("--only", default="", help="names of models, separated by commas")
    return parser.parse_args()


if __name__ == "__main__":
    main()
