"""Other people's networks by name: `torchvision/resnet18`, `segmentation/fcn_resnet50`, `timm/vit_tiny_patch16_224`.

`zoo/...` are the odd little models of the tests, for a quick look.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests import torchvision_operators

MOST_PARAMETERS = 120_000_000
SETS = ("torchvision", "segmentation", "timm")
EVERY = 10  # of timm's models, which is one in so many
SIDE = 224
SIDES = {"inception_v3": 299}
SEGMENTED = 21  # classes


class TooLargeError(Exception):
    """A model with more parameters than this benchmark takes."""


@dataclass(frozen=True)
class Subject:
    """A model in eval mode, how it is called, and how many classes it tells apart (None: it has no classifier)."""

    name: str
    model: nn.Module
    example: Any
    classes: int | None

    @property
    def parameters(self) -> int:
        return count_parameters(self.model)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def names_of(which: str) -> list[str]:
    """Return the names of a set, in order; of what is not installed, none."""
    if which == "timm":
        return all_of_timm()[::EVERY]
    if which == "zoo":
        from tests.zoo import ZOO

        return [f"zoo/{name}" for name in ZOO]
    if not torchvision_operators.declare():
        return []
    from torchvision import models

    module = models.segmentation if which == "segmentation" else models
    return [f"{which}/{name}" for name in models.list_models(module=module)]


def all_of_timm() -> list[str]:
    """Return the names of all of timm's models."""
    torchvision_operators.declare()
    try:
        import timm
    except ImportError:
        return []
    return [f"timm/{name}" for name in timm.list_models()]


def build(name: str) -> Subject:
    """Build a model with random weights.

    Raises:
        TooLargeError: it has more than 120 million parameters.
    """
    kind, _, own = name.partition("/")
    torch.manual_seed(0)
    random.seed(0)
    logging.disable(logging.WARNING)  # of other people's models
    try:
        subject = BUILDERS[kind](name, own)
    finally:
        logging.disable(logging.NOTSET)
    if subject.parameters > MOST_PARAMETERS:
        raise TooLargeError(f"{subject.parameters / 1e6:.0f} M parameters")
    return subject


def _torchvision(name: str, own: str) -> Subject:
    torchvision_operators.declare()
    from torchvision.models import get_model

    _check_size(lambda: get_model(own, weights=None))
    side = SIDES.get(own, SIDE)
    return Subject(name, get_model(own, weights=None).eval(), torch.zeros(1, 3, side, side), 1000)


def _segmentation(name: str, own: str) -> Subject:
    torchvision_operators.declare()
    from torchvision.models import get_model

    model = get_model(own, weights=None, weights_backbone=None)
    return Subject(name, model.eval(), torch.zeros(1, 3, SIDE, SIDE), SEGMENTED)


def _timm(name: str, own: str) -> Subject:
    torchvision_operators.declare()
    import timm

    _check_size(lambda: timm.create_model(own, pretrained=False))
    model: Any = timm.create_model(own, pretrained=False).eval()
    return Subject(name, model, torch.zeros(1, *model.default_cfg["input_size"]), model.num_classes or None)


def _zoo(name: str, own: str) -> Subject:
    from tests.zoo import ZOO

    return Subject(name, ZOO[own].build().eval(), ZOO[own].example, None)


BUILDERS: dict[str, Callable[[str, str], Subject]] = {
    "torchvision": _torchvision,
    "segmentation": _segmentation,
    "timm": _timm,
    "zoo": _zoo,
}


def _check_size(create: Callable[[], nn.Module]) -> None:
    """Count parameters without memory for them, where the model's constructor takes that."""
    try:
        with torch.device("meta"):
            size = count_parameters(create())
    except Exception:  # noqa: BLE001 - foreign code; the real thing is counted again
        return
    if size > MOST_PARAMETERS:
        raise TooLargeError(f"{size / 1e6:.0f} M parameters")


def classifiers(subject: Subject) -> Iterator[nn.Module]:
    """Give the layers whose outputs are the classes."""
    for module in subject.model.modules():
        outputs = getattr(module, "out_features", None) or getattr(module, "out_channels", None)
        if isinstance(module, (nn.Linear, nn.Conv2d)) and outputs is not None and outputs == subject.classes:
            yield module
