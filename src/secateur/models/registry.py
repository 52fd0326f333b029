"""The zoo: the models that secateur brings, each with its example, its branches and its pre-processing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from secateur.errors import ArtifactError, nearest
from secateur.models.lenet import LeNet
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.models.modnet import MODNet


@dataclass(frozen=True)
class ZooEntry:
    """A model of the zoo.

    A picture with values in [0, 1] becomes an input by `(picture - mean) / std`, channel by channel. `branches` names
    the modules that make up each part of the network; where it is empty, the branches are the top-level children.
    `inference` are the keyword arguments of the form that leaves out what only training needs, if there is one.
    `backbone` is the module that figures of the whole show. `features` names the layers in which a student is compared
    with its teacher.
    """

    name: str
    builder: Callable[..., nn.Module]
    example_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    branches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inference: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = ""
    features: tuple[str, ...] = ()

    def build(self, **arguments: object) -> nn.Module:
        """Return a new model with random weights."""
        return self.builder(**arguments)

    def example(self) -> torch.Tensor:
        """Return an input of zeros."""
        return torch.zeros(self.example_shape)

    def prepared(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return pictures (N, C, H, W) with values in [0, 1] as the model wants them."""
        mean, std = (pictures.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pictures - mean) / std


ZOO: Mapping[str, ZooEntry] = {
    entry.name: entry
    for entry in (
        ZooEntry(
            "modnet",
            MODNet,
            (1, 3, 512, 512),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            inference={"inference": True},
            backbone="backbone",
            features=(
                "backbone.model.features.18.0",
                "lr_branch.conv_lr8x.layers.0",
                "hr_branch.conv_hr4x.2.layers.0",
                "hr_branch.conv_hr2x.3.layers.0",
                "f_branch.conv_f2x.layers.0",
            ),
            branches={"lr": ("lr_branch", "backbone"), "hr": ("hr_branch",), "fusion": ("f_branch",)},
        ),
        ZooEntry("mobilenetv2", MobileNetV2, (1, 3, 224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ZooEntry("lenet", LeNet, (1, 1, 28, 28), mean=(0.1307,), std=(0.3081,)),
    )
}


def zoo_entry(name: str) -> ZooEntry:
    """Return the zoo's entry of that name.

    Raises:
        ArtifactError: there is none; offers the nearest names.

    Example:
        >>> zoo_entry("lenet").example().shape
        torch.Size([1, 1, 28, 28])
    """
    if name not in ZOO:
        raise ArtifactError(
            f"There is no model {name!r}.{nearest(name, ZOO)} "
            "Name a model of the zoo, a saved file, or your own as package.module:callable."
        )
    return ZOO[name]


def entry_of(model: nn.Module) -> ZooEntry | None:
    """Return the entry that a model was built from; None for any other model, subclasses included."""
    return next((entry for entry in ZOO.values() if type(model) is entry.builder), None)
