"""What goes in and what comes out: several inputs, several outputs, nested ones, paths that run or do not."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _TwoHeads(nn.Module):
    """A stem, a wide layer, and two heads."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide, self.map, self.head = conv_norm(3, 8), conv_norm(8, 12), conv(12, 2), pooled_head(12)

    def answers(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.wide(self.stem(x))
        return self.map(x), self.head(x)


@specimen((PICTURE, torch.zeros(2, 5)), cut=("stem.0", "embed"))
class PictureAndVector(nn.Module):
    """Two inputs of different kinds, joined before the head."""

    def __init__(self):
        super().__init__()
        self.stem, self.embed, self.out = conv_norm(3, 8), nn.Linear(5, 6), nn.Linear(14, 4)

    def forward(self, picture, vector):
        return self.out(torch.cat([self.stem(picture).mean((2, 3)), torch.relu(self.embed(vector))], dim=1))


@specimen({"picture": PICTURE, "strength": torch.zeros(2, 1, 1, 1)}, cut=("stem.0", "last.0"))
class KeywordInputs(nn.Module):
    """Called with keywords only, one of them left at its default."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)

    def forward(self, *, picture, strength, twice=True):
        x = self.last(self.stem(picture) * (1 + strength))
        return self.head(x + x if twice else x)


@specimen([(PICTURE, False), (PICTURE, True)], cut=("stem.0", "extra.0", "last.0"))
class SeveralCalls(nn.Module):
    """A flag decides which layers run; the example is two calls, to reach them all."""

    def __init__(self):
        super().__init__()
        self.stem, self.extra, self.last, self.head = conv_norm(3, 8), conv_norm(8, 8), conv_norm(8, 6), pooled_head(6)

    def forward(self, x, deep):
        x = self.stem(x)
        return self.head(self.last(self.extra(x) if deep else x))


@specimen({"inputs": {"a": PICTURE, "b": [PICTURE, PICTURE]}}, cut=("stem.0",))
class NestedInputs(nn.Module):
    """Tensors inside a list inside a dict."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(6, 8), pooled_head(8)

    def forward(self, inputs):
        return self.head(self.stem(torch.cat([inputs["a"] + inputs["b"][1], inputs["b"][0]], 1)))


@specimen(PICTURE, cut=("stem.0", "wide.0"))
class DictOutput(_TwoHeads):
    """An OrderedDict of answers, one of them missing (torchvision's segmentation)."""

    def forward(self, x):
        mapped, pooled = self.answers(x)
        return OrderedDict(out=mapped, aux=None, classes=pooled)


@specimen(PICTURE, cut=("stem.0", "wide.0"))
class NestedOutput(_TwoHeads):
    """Tuples in lists in a dict, with a number and a word among the tensors."""

    def forward(self, x):
        mapped, pooled = self.answers(x)
        return {"answers": [mapped, (pooled, 3)], "kind": "nested"}


@dataclass
class Answer:
    """What `DataclassOutput` returns."""

    mapped: torch.Tensor
    pooled: torch.Tensor
    note: str = ""


@specimen(PICTURE, cut=("stem.0", "wide.0"))
class DataclassOutput(_TwoHeads):
    """A dataclass of answers: no container that torch knows."""

    def forward(self, x):
        return Answer(*self.answers(x))


class Pair(NamedTuple):
    """What `NamedTupleOutput` returns."""

    mapped: torch.Tensor
    pooled: torch.Tensor


@specimen(PICTURE, cut=("stem.0", "wide.0"))
class NamedTupleOutput(_TwoHeads):
    """A named tuple of answers (GoogLeNet)."""

    def forward(self, x):
        return Pair(*self.answers(x))


@specimen(PICTURE, cut=("stem.0", "wide.0"), whole=("auxiliary",))
class AuxiliaryHead(_TwoHeads):
    """A head that runs in training only: no call reaches it, and it reads channels that could go."""

    def __init__(self):
        super().__init__()
        self.auxiliary = conv(12, 3, 1)

    def forward(self, x):
        x = self.wide(self.stem(x))
        return (self.head(x), self.auxiliary(x)) if self.training else self.head(x)


@specimen(PICTURE, cut=("stem.0",), whole=("unused.0",))
class UnusedLayers(nn.Module):
    """Layers that no forward ever calls, one of them without any parameters."""

    def __init__(self):
        super().__init__()
        self.stem, self.unused, self.idle, self.head = conv_norm(3, 8), conv_norm(8, 8), nn.Dropout(), pooled_head(8)

    def forward(self, x):
        return self.head(self.stem(x))


@specimen(PICTURE, cut=("stem.0",))
class InputReturned(nn.Module):
    """The input itself comes out beside the answer."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 8), pooled_head(8)

    def forward(self, x):
        return x, self.head(self.stem(x)), x[:, :1]


@specimen(
    (torch.tensor([[1, 2, 3], [0, 4, 2]]), torch.tensor([[True, True, False], [True, True, True]])),
    cut=("embed", "hidden"),
)
class TokensAndFlags(nn.Module):
    """Integer tokens and a mask of flags: both must stay what they are when the proof draws inputs."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(6, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, tokens, flags):
        x = self.embed(tokens).masked_fill(~flags.unsqueeze(-1), 0.0)
        x = torch.relu(self.hidden(x)) * flags.unsqueeze(-1)
        return self.out(x.sum(1) / flags.sum(1, keepdim=True))
