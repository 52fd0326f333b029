"""The whole walk on the built-in models, as chapters that the command line prints one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import RenderableType
from rich.table import Table
from torch import nn

from secateur.artifact.atomic import fill_atomically
from secateur.artifact.shipped import pretrained
from secateur.artifact.writing import save
from secateur.errors import RuntimeMissingError
from secateur.graph.staging import one_thread
from secateur.graph.tracing import trace
from secateur.matting.finishing import Finish
from secateur.matting.pictures import save_picture
from secateur.matting.predicting import open_predictor
from secateur.measurement.branches import branch_costs
from secateur.measurement.layers import ModelChange, compare_layers
from secateur.measurement.timing import compare_module_times
from secateur.models.lenet import LeNet
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.models.registry import ZOO
from secateur.pipeline import prune
from secateur.planning.plans import Plan
from secateur.reporting.figures import draw_widths
from secateur.reporting.tables import accuracy_table, branch_table, proof_line, timing_table, total_line
from secateur.runtimes.network import Network
from secateur.training.classification import LabelledImages, accuracy, fit_classifier, load_digits

ARTICLE_CONFIG = [{"sparsity": 0.8, "op_types": ["Conv2d"]}]
PORTRAIT_FILE, FIGURE_FILE, DIGITS_FILE = "modnet-cut.safetensors", "widths.png", "lenet-cut.safetensors"
PERSON_FILE = "astronaut.png"

Digits = tuple[LabelledImages, LabelledImages]
Step = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Chapter:
    """A heading, and what is shown under it."""

    title: str
    shown: tuple[RenderableType, ...]


def walk(folder: Path, step: Step, seed: int = 0) -> Iterator[Chapter]:
    """Analyse MODNet, prune its backbone and the whole of it, cut a person out, then prune LeNet and let it recover.

    `step` is a context manager that announces what is being done. Files are written into `folder`.

    Raises:
        RuntimeMissingError: the packages that bring the picture and the digits are not installed.
    """
    torch.manual_seed(seed)
    picture = load_picture()
    portrait = ZOO["modnet"].prepared(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    digits = load_digits()
    modnet = pretrained("modnet")
    yield _by_branch(modnet, portrait, step)
    yield _backbone(modnet, portrait, folder, step)
    yield _whole(modnet, portrait, folder, step)
    yield _person(picture, folder, step)
    yield _digits(digits, folder, step, seed)


def load_picture() -> np.ndarray:
    """Return scikit-image's astronaut (a portrait of Eileen Collins by NASA, in the public domain), 512 x 512.

    The published pre-processing leaves that size as it is.

    Raises:
        RuntimeMissingError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise RuntimeMissingError(
            "The portrait comes with scikit-image, which is not installed. "
            "Install it with: pip install 'secateur[demo]'."
        ) from None
    return np.asarray(data.astronaut())


def _by_branch(modnet: nn.Module, portrait: torch.Tensor, step: Step) -> Chapter:
    with step("tracing MODNet"):
        branches = ZOO["modnet"].branches
        training = branch_costs(trace(modnet, portrait), branches)
        inference = branch_costs(trace(modnet, {"img": portrait, "inference": True}), branches)
    return Chapter(
        "1. What MODNet costs, by branch",
        (branch_table(training, "MODNet at 1×3×512×512", inference),),
    )


def _backbone(modnet: Any, portrait: torch.Tensor, folder: Path, step: Step) -> Chapter:
    backbone = MobileNetV2().eval()
    # It stands alone here, as in the article: MODNet's own weights, and the classifier that MODNet does without.
    backbone.load_state_dict(modnet.backbone.model.state_dict(), strict=False)
    small, plan, change = _pruned("the backbone by the article's list", backbone, portrait, step,
                                  config=ARTICLE_CONFIG, min_channels=1)  # fmt: skip
    timings = _timed("the backbone", backbone, small, portrait, step, rounds=10)
    with step("drawing"):
        draw_widths(change, "MODNet's backbone (MobileNetV2), 80 % of every group pruned by L1", folder / FIGURE_FILE)
    return Chapter(
        f"2a. Its backbone, pruned by L1 with the article's list {ARTICLE_CONFIG}",
        (total_line(change), proof_line(plan.proof), timings, f"Layer by layer: {folder / FIGURE_FILE}"),
    )


def _whole(modnet: nn.Module, portrait: torch.Tensor, folder: Path, step: Step) -> Chapter:
    small, plan, change = _pruned("the whole MODNet to 0.24x MACs", modnet, portrait, step, macs="0.24x")
    timings = _timed("MODNet", modnet, small, portrait, step, rounds=5)
    save(folder / PORTRAIT_FILE, small, plan)
    return Chapter(
        "2b. The whole MODNet, all three branches, to 0.24x of its MACs",
        (total_line(change), proof_line(plan.proof), timings, f"Saved: {folder / PORTRAIT_FILE}"),
    )


def _person(picture: np.ndarray, folder: Path, step: Step) -> Chapter:
    with step("cutting the astronaut out with modnet-small"):
        network = Network.of_model("modnet-small", pretrained("modnet-small"), torch.zeros(1, 3, *picture.shape[:2]))
        predictor = open_predictor(network)
        (matte,) = predictor.run([predictor.prepare(picture)])
        pixels = Finish()(picture, matte, None)
        fill_atomically(folder / PERSON_FILE, lambda beside: save_picture(beside, pixels, ".png"))
    return Chapter(
        "3. What such a network does once it is trained on: modnet-small, which comes with secateur",
        (f"The astronaut without what is behind her: {folder / PERSON_FILE}",),
    )


def _digits(digits: Digits, folder: Path, step: Step, seed: int) -> Chapter:
    train, test = digits
    scores = {}
    with step(f"training LeNet on {len(train.labels):,} scanned digits"), one_thread():
        lenet = LeNet()
        fit_classifier(lenet, train, epochs=20, seed=seed)
        scores["trained"] = (parameters(lenet), accuracy(lenet, test))
    small, plan, change = _pruned("LeNet", lenet, test.images[:1], step, ratio=0.5, min_channels=1)
    with step("one epoch of recovery"), one_thread():
        scores["pruned"] = (parameters(small), accuracy(small, test))
        fit_classifier(small, train, epochs=1, seed=seed)
        scores["after one epoch of recovery"] = (parameters(small), accuracy(small, test))
    save(folder / DIGITS_FILE, small, plan)
    table = accuracy_table(scores, f"Accuracy on {len(test.labels)} digits held out")
    return Chapter(
        "4. LeNet on real digits: half of every group pruned, then one epoch of training",
        (total_line(change), proof_line(plan.proof), table, f"Saved: {folder / DIGITS_FILE}"),
    )


def _pruned(
    what: str, model: nn.Module, example: torch.Tensor, step: Step, **budget: Any
) -> tuple[nn.Module, Plan, ModelChange]:
    with step(f"pruning {what}, and proving it"):
        small, plan = prune(model, example, **budget)
        return small, plan, compare_layers(model, small, trace(model, example), trace(small, example))


def _timed(what: str, model: nn.Module, small: nn.Module, portrait: torch.Tensor, step: Step, rounds: int) -> Table:
    with step(f"timing {what} on a portrait"):
        timings = compare_module_times({"before": model, "after": small}, (portrait,), rounds, 2, seconds=8)
    threads = torch.get_num_threads()
    return timing_table(
        timings, f"One portrait of 512×512, CPU, {threads} thread{'s' if threads > 1 else ''}, in turns"
    )


def parameters(model: nn.Module) -> int:
    """Return how many parameters a model has, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
