"""The task of a matting network: the published losses, a teacher beside them, and errors on people never trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from secateur.errors import TrainingError
from secateur.matting.compositing import Sample
from secateur.matting.losses import Outputs, matting_losses, semantic_entropy, teaching_losses
from secateur.training.distilling import Teacher, feature_loss, watched
from secateur.training.int8 import AsINT8

CHECKED = 64  # pixels of the sides of the picture that a network is tried on
FEATURES = 0.3  # weight of the features' error; the losses of the outputs are of the same order


@dataclass(frozen=True)
class Matting:
    """What a matting network is trained to do (`secateur.training.fitting.Task`).

    Attributes:
        mean, std: an image with values in [0, 1] becomes an input by `(image - mean) / std`.
        teacher: the unpruned network, to learn from as well.
        taught: how much the teacher's word weighs beside the truth's.
        entropy: whether the semantic map's loss is `semantic_entropy`, not the published one.
        int8: the network is trained and validated as it will be in INT8; the teacher stays in float.
        validation: samples of people that are not trained on; all of them are looked at.
    """

    mean: Sequence[float]
    std: Sequence[float]
    teacher: Teacher | None = None
    taught: float = 1.0
    entropy: bool = False
    int8: AsINT8 | None = None
    validation: Mapping[str, Dataset[Sample]] = field(default_factory=dict)

    @torch.no_grad()
    def check(self, model: nn.Module) -> None:
        """Make sure that a network takes pictures and returns mattes, before the long work.

        Raises:
            TrainingError: it does not.
        """
        image = normalized(torch.zeros(1, 3, CHECKED, CHECKED), self.mean, self.std)
        was = model.training
        try:
            with self._deployed(model):
                matte = triple(model.eval()(image))[2]
        except (RuntimeError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            raise TrainingError(
                f"{type(model).__name__} does not run on a picture: {why.rstrip('.')}. Give a matting network."
            ) from error
        finally:
            model.train(was)
        if matte is None or tuple(matte.shape) != (1, 1, CHECKED, CHECKED):
            shape = "nothing" if matte is None else "x".join(map(str, matte.shape))
            raise TrainingError(
                f"{type(model).__name__} gives {shape} for a picture of {CHECKED}x{CHECKED}, where a matte of its size "
                "is wanted. Give a matting network."
            )

    def losses(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of samples."""
        image = normalized(batch["image"], self.mean, self.std)
        layers = self.teacher.layers if self.teacher is not None else ()
        inner = getattr(model, "module", model)
        with watched(inner, layers) as features, self._deployed(inner):
            outputs = triple(model(image))
        losses = matting_losses(outputs, image, batch["matte"], batch["trimap"])
        if self.entropy and outputs[0] is not None:
            losses["semantic"] = semantic_entropy(outputs[0], batch["matte"])
        if self.teacher is not None:
            told, theirs = self.teacher(image)
            taught = teaching_losses(outputs, triple(told), batch["trimap"])
            losses |= {name: self.taught * loss for name, loss in taught.items()}
            if layers:
                losses["features"] = self.taught * FEATURES * feature_loss(features, theirs)
        return losses

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean absolute difference of the mattes: on all sets of samples together, then on each."""
        found = {}
        for name, samples in self.validation.items():
            errors = []
            for number in range(len(samples)):  # type: ignore[arg-type]
                sample = samples[number]
                errors.append(float((self.matte(model, sample["image"]) - sample["matte"]).abs().mean()))
            found[f"mad_{name}"] = sum(errors) / len(errors)
        return {"mad": sum(found.values()) / len(found), **found} if found else {}

    @torch.no_grad()
    def matte(self, model: nn.Module, image: torch.Tensor) -> torch.Tensor:
        """Return a network's matte (1, H, W) of an image (3, H, W) with values in [0, 1]."""
        device = next(model.parameters()).device
        with self._deployed(model):
            matte = triple(model(normalized(image[None].to(device), self.mean, self.std)))[2]
        assert matte is not None
        return matte[0].float().to(image.device)

    def _deployed(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Return the context in which a network computes as it will where it is deployed."""
        return nullcontext() if self.int8 is None else self.int8(model)


def normalized(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return images (N, 3, H, W) in [0, 1] as a network takes them: `(image - mean) / std`, channels last."""
    centre, scale = (images.new_tensor(list(values)).view(-1, 1, 1) for values in (mean, std))
    return ((images - centre) / scale).contiguous(memory_format=torch.channels_last)


def triple(outputs: Any) -> Outputs:
    """Return a network's outputs as semantic map, detail and matte, the first two None where it has the matte alone.

    Raises:
        TrainingError: they are neither three nor one.
    """
    if isinstance(outputs, torch.Tensor):
        return (None, None, outputs)
    if isinstance(outputs, (tuple, list)) and len(outputs) in (1, 3):
        return (None, None, outputs[0]) if len(outputs) == 1 else tuple(outputs)
    raise TrainingError(
        f"A matting network returns its matte (N, 1, H, W), or (semantic, detail, matte) as MODNet does; this one "
        f"returns {type(outputs).__name__}. Wrap it in a module that does."
    )
