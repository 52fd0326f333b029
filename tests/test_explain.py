"""`explain` says what an expert would say: with what a layer goes, through which code, and why something stays.

`SECATEUR_REGENERATE=1` writes the texts in tests/golden anew.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.graph import rules
from secateur.graph.explanation.explaining import Explainer
from secateur.graph.explanation.remedies import NOTHING, remedy
from secateur.models import MobileNetV2, MODNet
from tests.zoo import ZOO

GOLDEN = Path(__file__).parent / "golden"
PICTURE = torch.zeros(1, 3, 64, 64)


class ECA(nn.Module):
    """Channel attention by a convolution along the channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        means = x.mean((2, 3))
        gate = torch.sigmoid(self.conv(means[:, None])).squeeze(1)
        return x * gate[:, :, None, None]


class WithECA(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.attention = ECA()
        self.last = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.head(self.last(self.attention(self.first(x))))


class TiedLanguage(nn.Module):
    """The words that come in and those that go out share their vectors."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(100, 32)
        self.middle = nn.Linear(32, 32)
        self.decoder = nn.Linear(32, 100, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, words):
        x = self.encoder(words)
        return self.decoder(x + torch.relu(self.middle(x)))


class Residual(nn.Module):
    """A stem, two branches that are added, and layers that nobody runs or that have no weights."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 1)
        self.spare = nn.Linear(3, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.block(x))


def published(name: str) -> Callable[[], nn.Module]:
    """Return what builds a network of torchvision."""

    def build() -> nn.Module:
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("torchvision is not installed")
        from torchvision import models

        return models.get_model(name, weights=None)

    return build


LARGE = torch.zeros(1, 3, 224, 224)
CASES: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "resnet50_stream": (published("resnet50"), PICTURE, "layer1.0.conv3"),
    "mobilenetv2_depthwise": (MobileNetV2, PICTURE, "features.2.conv.3"),
    "shufflenet_shuffle": (published("shufflenet_v2_x1_0"), PICTURE, "stage2.1.branch2.0"),
    "swin_qkv": (published("swin_t"), LARGE, "features.1.0.attn.qkv"),
    "modnet_ibnorm": (MODNet, PICTURE, "hr_branch.conv_hr4x.0.layers.0"),
    "densenet_concat": (published("densenet121"), PICTURE, "features.denseblock1.denselayer3.conv1"),
    "vit_patches": (published("vit_b_16"), LARGE, "conv_proj"),
    "efficientnet_se": (published("efficientnet_b0"), PICTURE, "features.2.0.block.2.fc1"),
    "eca": (WithECA, PICTURE, "first.0"),
    "tied": (TiedLanguage, torch.zeros(1, 5, dtype=torch.long), "decoder"),
}


@pytest.mark.parametrize("name", CASES)
def test_well_known_layers_read_as_an_expert_would_say_it(name):
    build, example, layer = CASES[name]
    torch.manual_seed(0)
    text = str(secateur.trace(build().eval(), example).explain(layer))
    place = GOLDEN / f"{name}.txt"
    if os.environ.get("SECATEUR_REGENERATE"):
        place.write_text(f"{text}\n", encoding="utf-8")
    assert comparable(text) == comparable(place.read_text(encoding="utf-8"))


def comparable(text: str) -> list[str]:
    """Return the words of a text without line numbers, which change with versions, and the breaks that follow them."""
    return re.sub(r"(\w+\.py):\d+", r"\1:N", text).split()


# -- what is said ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph():
    return secateur.trace(Residual(), PICTURE)


def test_the_way_to_a_partner_names_the_operation_and_its_line(graph):
    (outputs, _) = graph.explain("stem").sides
    (part,) = outputs.parts
    block = next(partner for partner in part.partners if (partner.layer, partner.role) == ("block.0", "written"))
    assert [step.module or step.op for step in block.chain] == ["stem", "add", "block.1", "block.0"]
    assert re.search(r"test_explain\.py:\d+$", block.chain[1].source)
    assert [partner.layer for partner in part.partners if partner.role == "read"] == ["block.0", "head"]


def test_what_stays_is_told_with_reason_place_and_remedy(graph):
    outputs, inputs = graph.explain("head").sides
    (obstacle,) = outputs.parts[0].obstacles
    assert outputs.parts[0].channels.tolist() == [0, 1]
    assert "leave the model" in obstacle.reason.text
    assert "free_outputs=True" in obstacle.remedy
    assert inputs.parts[0].group == "stem"


def test_a_tensor_or_another_name_of_the_layer_will_do(graph):
    assert graph.explain("stem.weight").layer.name == "stem"
    shared = secateur.trace(MODNet(), PICTURE).explain("lr_branch.backbone.model.features.0.0")
    assert shared.layer.name == "backbone.model.features.0.0"
    assert "Also called lr_branch.backbone" in str(shared)


def test_a_layer_that_never_ran_is_told_so(graph):
    explanation = graph.explain("spare")
    assert not explanation.ran
    assert "Never run by the example" in str(explanation)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("stam", "Did you mean stem?"),
        ("block", "holds layers that do. Ask about one of them: block.0, block.1."),
        ("block.2", "block.2 (ReLU) has no weights, so no channels of its own"),
        ("block.2", "Ask about block.1, which stands before it."),
        ("", "No layer with parameters is called ''."),
    ],
)  # fmt: skip
def test_names_that_are_no_layers_are_refused_with_a_hint(graph, name, wanted):
    with pytest.raises(secateur.ExplainError, match=re.escape(wanted)):
        graph.explain(name)


def test_a_graph_without_code_cannot_be_explained(graph):
    with pytest.raises(secateur.ExplainError, match="not made by trace"):
        replace(graph, coupling=None).explain("stem")


def test_explaining_leaves_graph_and_model_as_they_were():
    model = Residual()
    graph = secateur.trace(model, PICTURE)
    before = {name: id(tensor) for name, tensor in model.named_parameters()}
    first, second = str(graph.explain("stem")), str(graph.explain("stem"))
    assert first == second
    assert before == {name: id(tensor) for name, tensor in model.named_parameters()}
    assert model.training


# -- every layer of the zoo --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_every_group_is_explained_to_its_last_layer(name):
    graph = secateur.trace(ZOO[name].build(), ZOO[name].example)
    explainer = Explainer(graph)
    groups = {group.name: group for group in graph.groups}
    for layer in graph.layers:
        explanation = explainer.layer(layer)
        assert max(map(len, str(explanation).splitlines())) <= 100
        for part in (part for side in explanation.sides for part in side.parts):
            if part.group:
                told = {holder(graph, partner.layer) for partner in part.partners}
                assert told >= set(groups[part.group].layers)
                assert all(partner.chain for partner in part.partners)
            else:
                assert all(obstacle.reason.text and obstacle.remedy for obstacle in part.obstacles)
                assert part.obstacles


def holder(graph: secateur.Graph, name: str) -> str:
    """Return the layer of a partner, which goes by the name of its tensor where its module holds layers, too."""
    return name.rpartition(".")[0] if name in graph.tensors else name


# -- remedies ----------------------------------------------------------------------------------------------------------


def reasons() -> list[str]:
    """Return every reason for which a rule lets channels stay, as it stands in the code."""
    folder = Path(rules.__file__).parents[1]
    found = []
    for path in [*folder.glob("*.py"), *folder.glob("rules/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and _name(node) in ("fix", "pin", "rows_stay", "Reason"):
                texts = [piece.value for argument in node.args for piece in ast.walk(argument) if _is_text(piece)]
                found.append(" ".join(texts))
            elif isinstance(node, ast.Assign) and path.stem in ("recording", "running") and _is_text(node.value):
                found.append(node.value.value)
    return sorted({text for text in found if " " in text})


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("text", reasons())
def test_every_reason_has_a_remedy(text):
    assert remedy(text) != NOTHING


class Tail(nn.Module):
    """A convolution whose channels something holds, unless the remedy is taken."""

    def __init__(self, held: Callable[[nn.Module, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.conv, self.last, self.held = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1), held
        self.width, self.is_wide, self.loose = 16, True, torch.ones(16, 1, 1)
        self.register_buffer("kept", torch.ones(16, 1, 1))

    def forward(self, x):
        return self.last(self.held(self, self.conv(x)))


@pytest.mark.parametrize(
    ("held", "advice", "freed"),
    [
        (
            lambda _, x: x.view(x.shape[0], 16, x.shape[2], x.shape[3]).flatten(2).view(x.shape),
            "attribute (self.n)",
            lambda net, x: x.view(x.shape[0], net.width, x.shape[2], x.shape[3]).flatten(2).view(x.shape),
        ),
        (lambda net, x: x * net.loose, "parameter or buffer", lambda net, x: x * net.kept),
        (lambda _, x: x + float(x.shape[1]), "in __init__", lambda net, x: x + 16.0),
        (lambda _, x: x * 2 if x.shape[1] > 8 else x, "in __init__", lambda net, x: x * 2 if net.is_wide else x),
    ],
    ids=["number in the code", "loose tensor", "used as a number", "compared in size"],
)
def test_a_remedy_frees_the_channels(held, advice, freed):
    outputs = secateur.trace(Tail(held), PICTURE).explain("conv").sides[0]
    assert any(advice in obstacle.remedy for obstacle in outputs.parts[0].obstacles)
    outputs = secateur.trace(Tail(freed), PICTURE).explain("conv").sides[0]
    assert outputs.parts[0].group == "conv"


def test_free_outputs_is_the_remedy_for_what_leaves_the_model():
    graph = secateur.trace(Residual(), PICTURE, free_outputs=True)
    (part,) = graph.explain("head").sides[0].parts
    assert not part.obstacles
    assert part.group == "head"
