"""One module or weight in several places."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


@specimen(PICTURE, cut=("stem.0", "step.0"))
class CalledTwice(nn.Module):
    """A block applied to its own output: inputs and outputs are the same channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.step, self.head = conv_norm(3, 8), conv_norm(8, 8), pooled_head(8)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = self.step(x)
        return self.head(x)


@specimen(PICTURE, cut=("a.0", "b.0", "shared"))
class SharedHead(nn.Module):
    """One layer reads two branches: their channels go together, though they never meet."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.shared, self.head = conv_norm(3, 8), conv_norm(3, 8, 5), conv(8, 6), pooled_head(12)

    def forward(self, x):
        return self.head(torch.cat([self.shared(self.a(x)), self.shared(self.b(x))], 1))


@specimen(PICTURE, cut=("a", "b", "last"))
class TiedWeights(nn.Module):
    """Two convolutions hold the same weight but biases of their own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.last, self.head = (
            conv(3, 8),
            conv(3, 8, dilation=2, padding=2),
            conv(16, 6),
            pooled_head(6),
        )
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.last(torch.relu(torch.cat([self.a(x), self.b(x)], 1))))


@specimen(PICTURE, cut=("encode", "deeper"))
class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weights, transposed."""

    def __init__(self):
        super().__init__()
        self.encode, self.deeper, self.bias = conv(3, 8), conv(8, 12), nn.Parameter(torch.zeros(8))

    def forward(self, x):
        x = torch.relu(self.deeper(torch.relu(self.encode(x))))
        x = torch.relu(F.conv_transpose2d(x, self.deeper.weight, self.bias, padding=1))
        return F.conv_transpose2d(x, self.encode.weight, padding=1)


@specimen(torch.tensor([[1, 4, 2, 0], [3, 3, 5, 1]]), cut=("embed",))
class TiedEmbedding(nn.Module):
    """A language model's output layer is its embedding: the width goes, the vocabulary stays."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(6, 12), nn.Linear(12, 12), nn.Linear(12, 6, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.out(x + torch.relu(self.mix(x)))


class _Branch(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.last = backbone, conv(8, 6)

    def forward(self, x):
        return self.last(self.backbone(x))


@specimen(PICTURE, cut=("backbone.0", "branch.last"))
class TwoNames(nn.Module):
    """One module registered under two names (MODNet's backbone): both names get the same small tensor."""

    def __init__(self):
        super().__init__()
        self.backbone = conv_norm(3, 8)
        self.branch, self.head = _Branch(self.backbone), pooled_head(14)

    def forward(self, x):
        return self.head(torch.cat([self.branch(x), self.branch.backbone(x)], dim=1))


@specimen(PICTURE, cut=("a", "b", "last"))
class SharedNorm(nn.Module):
    """One batch norm behind two convolutions, so their outputs are the same channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = conv(3, 8), conv(3, 8, 1), nn.BatchNorm2d(8)
        self.last, self.head = conv(16, 6), pooled_head(6)

    def forward(self, x):
        x = torch.cat([self.norm(self.a(x)), torch.relu(self.norm(self.b(x)))], 1)
        return self.head(self.last(x))


@specimen(PICTURE, cut=("stem.0", "step"))
class RecurrentConvolution(nn.Module):
    """A small convolutional recurrence: the state is made in the shape of the features."""

    def __init__(self):
        super().__init__()
        self.stem, self.step, self.gate, self.head = conv_norm(3, 6), conv(12, 6), conv(12, 6), pooled_head(6)

    def forward(self, x):
        x = self.stem(x)
        state = torch.zeros_like(x)
        for _ in range(3):
            both = torch.cat([x, state], 1)
            gate = torch.sigmoid(self.gate(both))
            state = gate * state + (1 - gate) * torch.tanh(self.step(both))
        return self.head(state)


@specimen(PICTURE, cut=("stem.0",))
class SharedActivation(nn.Module):
    """One PReLU behind two layers of the same width: its slopes tie them."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.slope, self.head = conv_norm(3, 8), conv(8, 8), nn.PReLU(8), pooled_head(8)

    def forward(self, x):
        return self.head(self.slope(self.last(self.slope(self.stem(x)))))
