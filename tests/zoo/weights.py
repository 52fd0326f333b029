"""Weights that are no plain layer's: parametrised, functional, frozen, computed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


@specimen(PICTURE, cut=("first.parametrizations.weight", "second.parametrizations.weight", "last.0"), reference="mask")
class WeightNorm(nn.Module):
    """Weight norm: the weight is made of a length and a direction in every forward."""

    def __init__(self):
        super().__init__()
        self.first, self.second = parametrizations.weight_norm(conv(3, 8)), parametrizations.weight_norm(conv(8, 12))
        self.last, self.head = conv_norm(12, 8), pooled_head(8)

    def forward(self, x):
        return self.head(self.last(torch.relu(self.second(torch.relu(self.first(x))))))


class StandardizedConv2d(nn.Conv2d):
    """Weight standardisation: statistics over all inputs of a filter."""

    def forward(self, x):
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        std = self.weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5
        return F.conv2d(x, (self.weight - mean) / std, self.bias, self.stride, self.padding)


@specimen(PICTURE, cut=("last.0",), reference="mask")
class WeightStandardized(nn.Module):
    """BiT: the weight's statistics change when its inputs leave."""

    def __init__(self):
        super().__init__()
        self.first, self.second = StandardizedConv2d(3, 8, 3), StandardizedConv2d(8, 8, 3)
        self.last, self.head = conv_norm(8, 6), pooled_head(6)

    def forward(self, x):
        return self.head(self.last(torch.relu(self.second(torch.relu(self.first(x))))))


@specimen(torch.zeros(4, 10), cut=("last",))
class MatrixParameter(nn.Module):
    """`x @ self.weight + self.bias`: a linear layer that is no module, inputs first."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(10, 16)), nn.Parameter(torch.zeros(16))
        self.last, self.out = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.out(torch.relu(self.last(torch.relu(x @ self.weight + self.bias))))


@specimen(PICTURE, cut=("stem.0", "last"))
class EinsumLayer(nn.Module):
    """A 1x1 convolution written as an einsum over a parameter."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix = conv_norm(3, 8), nn.Parameter(torch.randn(12, 8))
        self.last, self.head = conv(12, 6), pooled_head(6)

    def forward(self, x):
        x = torch.einsum("oc,nchw->nohw", self.mix, self.stem(x))
        return self.head(torch.relu(self.last(torch.relu(x))))


@specimen(PICTURE, cut=("stem.0", "last"))
class FunctionalConvolution(nn.Module):
    """Weights in a ParameterList, used by functions."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv(8, 6), pooled_head(6)
        self.weights = nn.ParameterList([torch.randn(10, 8, 3, 3), torch.randn(8, 10, 1, 1)])

    def forward(self, x):
        x = self.stem(x)
        for weight in self.weights:
            x = torch.relu(F.conv2d(x, weight, padding=weight.shape[-1] // 2))
        return self.head(self.last(x))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class FrozenBackbone(nn.Module):
    """Parameters that want no gradient, under a norm that is trained: each stays as it is."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        for parameter in (*self.stem[0].parameters(), *self.head.parameters()):
            parameter.requires_grad_(False)

    def forward(self, x):
        return self.head(self.last(self.stem(x)))


@specimen(PICTURE, cut=("last.0",))
class PlainTensorAttribute(nn.Module):
    """A tensor that is neither parameter nor buffer, with one value a channel: nothing names it, nothing cuts it."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        self.offset = torch.linspace(-1, 1, 8).view(1, 8, 1, 1)

    def forward(self, x):
        return self.head(self.last(self.stem(x) + self.offset))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class NormalizedInput(nn.Module):
    """Mean and standard deviation of the picture as buffers: three channels that stay."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 6), pooled_head(6)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((3, 1, 1), 0.25), persistent=False)

    def forward(self, x):
        return self.head(self.last(self.stem((x - self.mean) / self.std)))


@specimen(PICTURE, cut=("kernel.0",))
class DynamicKernel(nn.Module):
    """A hypernetwork: the weights of a depthwise filter are computed from the picture itself."""

    def __init__(self):
        super().__init__()
        self.stem, self.kernel, self.head = conv_norm(3, 8), conv_norm(3, 8), pooled_head(8)

    def forward(self, x):
        x, kernel = self.stem(x), self.kernel(x).mean(0)[:, None, :3, :3]
        return self.head(F.conv2d(x, kernel, padding=1, groups=x.shape[1]))


@specimen(torch.tensor([[1, 4, 2, 0], [3, 3, 5, 1]]), cut=("hidden",))
class EmbeddingClassifier(nn.Module):
    """Embedding, positions, mean over the sequence, linear layers."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(6, 12), nn.Parameter(torch.zeros(1, 4, 12))
        self.hidden, self.out = nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, tokens):
        x = self.embed(tokens) + self.position
        return self.out(torch.relu(self.hidden(x.mean(1))))


@specimen((torch.zeros(2, 6), torch.zeros(2, 5)), cut=("a", "b"))
class BilinearLayer(nn.Module):
    """nn.Bilinear: a weight with two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.bilinear, self.out = (
            nn.Linear(6, 8),
            nn.Linear(5, 8),
            nn.Bilinear(8, 8, 6),
            nn.Linear(6, 3),
        )

    def forward(self, a, b):
        return self.out(torch.relu(self.bilinear(torch.relu(self.a(a)), torch.tanh(self.b(b)))))
