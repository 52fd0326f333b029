"""Modules around modules and functions: lambdas, averages, scripted parts, hooks, masks and norms on weights."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class Plain(nn.Module):
    """What most of these wrap: two layers, a flag, a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)

    def forward(self, x, double: bool = False):
        x = self.stem(x)
        if double:
            x = x * 2
        return self.head(self.last(x))


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., torch.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


@specimen(PICTURE, cut=("0", "3", "6.0"))
def LambdaLayers() -> nn.Module:  # noqa: N802 - a specimen is named like a class
    """A Sequential of layers and lambdas, one of which views and one of which permutes."""
    return nn.Sequential(
        conv(3, 8),
        Lambda(lambda x: F.leaky_relu(x, 0.1)),
        Lambda(lambda x: x.permute(0, 2, 3, 1)),
        nn.Linear(8, 10),
        Lambda(partial(torch.clamp, min=0.0)),
        Lambda(lambda x: x.movedim(-1, 1)),
        conv_norm(10, 6),
        Lambda(lambda x: x.flatten(2).mean(-1)),
        nn.Linear(6, 4),
    )


@specimen(PICTURE, cut=("first", "second"))
class FunctionsAsAttributes(nn.Module):
    """An activation, a norm and a whole step are functions in attributes; one of them is bound to the module."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = conv(3, 8), conv(8, 6), nn.Linear(6, 4)
        self.act: Callable[..., Any] = partial(F.elu, alpha=0.5)
        self.norm: Callable[..., Any] = F.instance_norm
        self.steps = {"first": self._step, "last": lambda x: x.mean((2, 3))}

    def _step(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.first(x)))

    def forward(self, x):
        return self.out(self.steps["last"](torch.relu(self.second(self.steps["first"](x)))))


@specimen(PICTURE, cut=("module.stem.0", "module.last.0"))
def MovingAverage() -> nn.Module:  # noqa: N802
    """torch's running average of a model's weights: the model one level down, a counter beside it."""
    return AveragedModel(Plain())


@specimen(PICTURE, cut=("net.stem.0", "net.last.0"))
class Learner(nn.Module):
    """A training harness around the model: a loss with weights of its own, settings, an example, steps."""

    def __init__(self):
        super().__init__()
        self.net, self.criterion = Plain(), nn.CrossEntropyLoss(weight=torch.ones(4))
        self.hparams, self.example_input_array, self.trainer = {"lr": 1e-3, "width": 8}, torch.zeros(1, 3, 12, 12), None

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.criterion(self(batch[0]), batch[1])

    def forward(self, x):
        return self.net(x)


@specimen(({"image": PICTURE, "strength": torch.zeros(2, 1, 1, 1), "name": "a"},), cut=("stem.0", "last.0"))
class TakesBatch(nn.Module):
    """The one argument is a dict as a data loader hands it out, with a word in it; the answer is put into it."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)

    def forward(self, batch):
        x = self.last(self.stem(batch["image"]) * (1 + batch["strength"]))
        return {"name": batch["name"], "answer": self.head(x)}


def scripted(module: nn.Module) -> Any:
    """Return a module of TorchScript, which torch no longer recommends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module)


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class ScriptedPart(nn.Module):
    """A frozen part in TorchScript takes the channels; what surrounds it can still be cut."""

    def __init__(self):
        super().__init__()
        self.stem, self.middle = conv_norm(3, 8), scripted(nn.Sequential(conv(8, 8), nn.ReLU()).requires_grad_(False))
        self.last, self.head = conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        return self.head(self.last(self.middle(self.stem(x))))


@specimen(PICTURE, cut=("last.0", "second.parametrizations.weight"), whole=("first.parametrizations.weight",))
class SpectralNorm(nn.Module):
    """Weights divided by their largest singular value: one of its vectors runs over inputs and kernel, which stay."""

    def __init__(self):
        super().__init__()
        self.first, self.second = parametrizations.spectral_norm(conv(3, 8)), parametrizations.spectral_norm(conv(8, 8))
        self.last, self.head = conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        return self.head(self.last(torch.relu(self.second(torch.relu(self.first(x))))))


@specimen(torch.zeros(4, 8), cut=("last",), whole=("turn",))
class OrthogonalWeight(nn.Module):
    """A weight made orthogonal in every forward: no part of it is orthogonal, so it stays."""

    def __init__(self):
        super().__init__()
        self.turn, self.last, self.out = (
            parametrizations.orthogonal(nn.Linear(8, 8)),
            nn.Linear(8, 12),
            nn.Linear(12, 3),
        )

    def forward(self, x):
        return self.out(torch.relu(self.last(torch.tanh(self.turn(x)))))


@specimen(PICTURE, cut=("last.0",))
class MaskedWeights(nn.Module):
    """torch's own pruning: weights times masks in buffers, written into the layer before every forward."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv(3, 8), conv_norm(8, 6), pooled_head(6)
        with torch.no_grad():  # it computes the weight once at once, and torch copies no tensor that has a history
            prune.l1_unstructured(self.stem, "weight", amount=0.3)

    def forward(self, x):
        return self.head(self.last(torch.relu(self.stem(x))))


@specimen(PICTURE, cut=("stem.0", "last.0"))
def PatchedForward() -> nn.Module:  # noqa: N802
    """A forward of the instance's own, bound to it in place of its class's."""
    model = Plain()
    model.forward = types.MethodType(lambda self, x: self.head(self.last(self.stem(x)) * 2), model)
    return model


@specimen(PICTURE, cut=("stem.0", "last.0"))
class LateHooks(nn.Module):
    """The first call puts hooks into the model and notes that it has, as a hub's models collect hidden states."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        if not hasattr(self, "hooked"):
            self.hooked = True
            self.stem.register_forward_hook(_doubled)
        return self.head(self.last(self.stem(x)))


def _doubled(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 2
