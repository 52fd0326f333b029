"""Other people's networks: torchvision's CNNs, half the channels gone, right by the oracle.

The default run takes the smallest member of every family; `pytest -m slow` takes them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import secateur
from tests.oracle import relative_error

models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")

BARE = {"weights": None}
SEGMENTATION = {"weights": None, "weights_backbone": None}
QUIET = {**BARE, "init_weights": False, "aux_logits": False}  # the auxiliary heads run in training only


@dataclass(frozen=True)
class Family:
    """Networks of one kind; `side` is the smallest picture that all of them take."""

    small: str
    others: tuple[str, ...] = ()
    side: int = 64
    options: dict[str, Any] = field(default_factory=lambda: BARE)


FAMILIES = (
    Family("alexnet"),
    Family("vgg11", ("vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"), side=32),
    Family("googlenet", side=48, options=QUIET),
    Family("inception_v3", side=96, options=QUIET),
    Family("resnet18", ("resnet34", "resnet50", "resnet101", "resnet152")),
    Family("resnext50_32x4d", ("resnext101_32x8d", "resnext101_64x4d")),
    Family("wide_resnet50_2", ("wide_resnet101_2",), side=32),
    Family("densenet121", ("densenet161", "densenet169", "densenet201")),
    Family("squeezenet1_1", ("squeezenet1_0",)),
    Family("mobilenet_v2"),
    Family("mobilenet_v3_small", ("mobilenet_v3_large",)),
    Family("mnasnet0_5", ("mnasnet0_75", "mnasnet1_0", "mnasnet1_3")),
    Family("shufflenet_v2_x0_5", ("shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0")),
    Family("efficientnet_b0", tuple(f"efficientnet_b{size}" for size in range(1, 8))),
    Family("efficientnet_v2_s", ("efficientnet_v2_m", "efficientnet_v2_l")),
    Family("regnet_x_400mf", tuple(f"regnet_x_{size}" for size in ("800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf"))),
    Family("regnet_y_400mf", tuple(f"regnet_y_{size}" for size in ("800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf"))),
    Family("convnext_tiny", ("convnext_small", "convnext_base", "convnext_large"), side=32),
    Family("segmentation.lraspp_mobilenet_v3_large", options=SEGMENTATION),
    Family("segmentation.fcn_resnet50", ("segmentation.fcn_resnet101",), 32, SEGMENTATION),
    Family(
        "segmentation.deeplabv3_mobilenet_v3_large",
        ("segmentation.deeplabv3_resnet50", "segmentation.deeplabv3_resnet101"),
        options=SEGMENTATION,
    ),
)

# Networks that keep more than 45 % of their parameters at ratio 0.5, and why.
KEPT: dict[str, tuple[float, str]] = {
    "shufflenet_v2_x0_5": (0.55, "three quarters of its parameters are the classifier's, whose 1,000 outputs stay"),
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.small)
def test_smallest_member(family):
    check(family.small, family)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name"), [pytest.param(family, name, id=name) for family in FAMILIES for name in family.others]
)
def test_other_members(family, name):
    check(name, family)


def check(name: str, family: Family) -> None:
    """Prune a network to half its channels and compare it with its masked self."""
    torch.manual_seed(1)
    model = models.get_model(name.removeprefix("segmentation."), **family.options).eval()
    example = torch.zeros(1, 3, family.side, family.side)
    plan = secateur.plan(secateur.trace(model, example), model, ratio=0.5, min_channels=1)
    small = secateur.cut(model, plan)
    left = parameters(small) / parameters(model)
    assert relative_error(model, plan, small, example) < 1e-9
    most, why = KEPT.get(name, (0.45, "half the channels leave about a quarter of the parameters"))
    assert left < most, f"{left:.1%} of the parameters are left; expected under {most:.0%}: {why}"


def parameters(model: torch.nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
