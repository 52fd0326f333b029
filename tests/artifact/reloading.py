"""Models by name, and a process that loads their files: `python -m tests.artifact.reloading FOLDER`.

The folder holds `jobs.json`, a list of jobs, and a file for each; the process writes what every loaded model puts out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import secateur
from secateur.models import LeNet, MobileNetV2, MODNet
from tests import torchvision_operators
from tests.oracle import tensors_of

ZOO = {
    "zoo/lenet": (LeNet, (2, 1, 28, 28)),
    "zoo/mobilenetv2": (MobileNetV2, (2, 3, 64, 64)),
    "zoo/modnet": (MODNet, (2, 3, 64, 64)),
}
OTHERS: dict[str, dict[str, Any]] = {  # what the smallest pictures need
    "torchvision/mobilenet_v3_small": {},
    "torchvision/resnet18": {},
    "torchvision/densenet121": {},
    "torchvision/shufflenet_v2_x1_0": {},
    "torchvision/efficientnet_b0": {},
    "torchvision/regnet_y_400mf": {},
    "torchvision/mnasnet0_5": {},
    "torchvision/squeezenet1_1": {},
    "torchvision/convnext_tiny": {},
    "torchvision/swin_t": {},
    "timm/mobilenetv4_conv_small_035": {},
    "timm/resnet10t": {},
    "timm/convnext_atto": {},
    "timm/ghostnet_050": {},
    "timm/edgenext_xx_small": {},
    "timm/vit_tiny_patch16_224": {"img_size": 64},
    "timm/deit3_small_patch16_224": {"img_size": 64},
    "timm/mixer_s32_224": {"img_size": 64},
    "timm/pvt_v2_b0": {},
    "timm/repvgg_a0": {},
}
NEED_DATA = frozenset({"torchvision/regnet_y_400mf"})  # their constructors compute with tensors
PICTURES = (2, 3, 64, 64)


def build(name: str) -> nn.Module:
    """Return a network with random weights, in evaluation mode."""
    maker, _, kind = name.partition("/")
    if maker == "zoo":
        return ZOO[name][0]().eval()
    torchvision_operators.declare()  # timm imports torchvision
    if maker == "torchvision":
        from torchvision import models

        return models.get_model(kind, weights=None).eval()
    import timm

    return timm.create_model(kind, **OTHERS[name]).eval()


def example(name: str, dtype: torch.dtype) -> torch.Tensor:
    """Return pictures for a network, always the same."""
    shape = ZOO[name][1] if name in ZOO else PICTURES
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def outputs(model: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what a model puts out, by number."""
    with torch.inference_mode():
        return {str(number): one.contiguous() for number, one in enumerate(tensors_of(model(inputs)))}


def main(folder: Path) -> None:
    """Load the file of every job, and write what the model puts out beside it."""
    torch.set_num_threads(1)
    for job in json.loads((folder / "jobs.json").read_text()):
        name, file = job["name"], folder / job["file"]
        with torch.device("meta" if job["without_data"] else "cpu"):
            into = None if name in ZOO else build(name)
        small = secateur.load(file, into=into, device="cpu")
        found = outputs(small, example(name, getattr(torch, job["dtype"])))
        safetensors.torch.save_file(found, file.with_suffix(".outputs"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
