"""How a network is trained: how long, how fast, how it is averaged, and what is written when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from secateur.errors import TrainingError, nearest

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        steps: how many batches.
        batch: samples in one, over all processes.
        rate: the learning rate of AdamW at its highest.
        slower: for modules by the beginning of their names, the share of the rate that they learn at.
        decay: weight decay; of norms and biases none.
        warmup: steps in which the rate rises from 0; after them it falls to 0 along half a cosine.
        clip: the largest norm of the gradient.
        averaging: decay of the exponential moving average of weights and statistics, which is what comes out.
        frozen_norms: batch norms keep their statistics.
        precision: of the arithmetic; weights are float32.
        seed: of the samples and of all that is drawn.
        workers: processes that make samples.
        save_every, validate_every: steps between checkpoints, and between validations.
        patience: validations without a better one after which training ends; 0: never.
        setting: what else decides the result, such as the data, as JSON, by names that its user knows: a run is not
            resumed with another one.
    """

    steps: int
    batch: int = 8
    rate: float = 1e-3
    slower: Mapping[str, float] = field(default_factory=dict)
    decay: float = 0.01
    warmup: int = 50
    clip: float = 5.0
    averaging: float = 0.998
    frozen_norms: bool = False
    precision: Precision = "fp32"
    seed: int = 0
    workers: int = 0
    save_every: int = 100
    validate_every: int = 100
    patience: int = 0
    setting: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every", "validate_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}={getattr(self, name)} makes no sense. Give a whole number of at least 1.")
        if self.warmup < 0:
            raise TrainingError(f"warmup={self.warmup} makes no sense. Give a whole number of at least 0.")
        if self.precision not in get_args(Precision):
            raise TrainingError(
                f"precision={self.precision!r} is not known. Say one of {', '.join(get_args(Precision))}."
            )

    def rate_at(self, step: int) -> float:
        """Return the share of the highest rate that a step, counted from 0, is taken with."""
        import math

        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW for a model's parameters.

        Raises:
            TrainingError: no parameter's name begins as `slower` says.
        """
        names = [name for name, _ in model.named_parameters()]
        for start in self.slower:
            if not any(name.startswith(start) for name in names):
                raise TrainingError(f"slower has {start!r}, with which no parameter begins.{nearest(start, names)}")
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            share = next((share for start, share in self.slower.items() if name.startswith(start)), 1.0)
            groups.setdefault((share, self.decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        settings: list[dict[str, Any]] = [
            {"params": params, "lr": self.rate * share, "highest": self.rate * share, "weight_decay": decay}
            for (share, decay), params in groups.items()
        ]
        return torch.optim.AdamW(settings)
