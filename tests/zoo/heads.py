"""The way from pictures to vectors: flatten, view, means, products."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm
from tests.zoo.registry import specimen


class _Flattened(nn.Module):
    """Features of 16 channels at 5x5, then two linear layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool = conv_norm(3, 16), nn.AdaptiveAvgPool2d(5)
        self.hidden, self.out = nn.Linear(16 * 5 * 5, 12), nn.Linear(12, 4)

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x):
        return self.out(F.relu(self.hidden(self.flat(self.pool(self.stem(x))))))


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenLive(_Flattened):
    """`flatten(1)`: each channel owns 25 columns of the linear layer."""

    def flat(self, x):
        return x.flatten(1)


@specimen(PICTURE, cut=("hidden",), whole=("stem.0",))
class FlattenLiteral(_Flattened):
    """LeNet's `view(-1, 16 * 5 * 5)`: a number in the code, and with fewer channels a wrong batch, not an error."""

    def flat(self, x):
        return x.view(-1, 16 * 5 * 5)


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenByAttribute(_Flattened):
    """The flat size is an attribute."""

    def __init__(self):
        super().__init__()
        self.features = 16 * 5 * 5

    def flat(self, x):
        return x.view(-1, self.features)


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenByProduct(_Flattened):
    """The flat size is a product of an attribute and literals."""

    def __init__(self):
        super().__init__()
        self.width = 16

    def flat(self, x):
        return x.reshape(-1, self.width * 5 * 5)


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenBySize(_Flattened):
    """`view(x.size(0), -1)`."""

    def flat(self, x):
        return x.view(x.size(0), -1)


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenFeatures(_Flattened):
    """The old tutorial's `num_flat_features`: a product of live sizes in a loop."""

    def flat(self, x):
        features = 1
        for size in x.size()[1:]:
            features *= size
        return x.view(-1, features)


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenChannelsLast(_Flattened):
    """Channels are the fastest in the flat vector: each owns every 16th column."""

    def flat(self, x):
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenByLastSize(_Flattened):
    """The flat size is read off the linear layer that follows."""

    def flat(self, x):
        return x.view(-1, self.hidden.in_features)


@specimen(PICTURE, cut=("stem.0", "hidden"))
class FlattenTokens(_Flattened):
    """Places become a sequence, a linear layer works on the channels, then all is flattened."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 16)

    def flat(self, x):
        return self.embed(x.flatten(2).transpose(1, 2)).reshape(x.shape[0], -1)


@specimen(PICTURE, cut=("stem.0",), reference="mask")
class MeanOverChannels(nn.Module):
    """The answer is the mean over all channels: it has no weights to silence any by."""

    def __init__(self):
        super().__init__()
        self.stem, self.last = conv_norm(3, 8), conv_norm(8, 12)

    def forward(self, x):
        return torch.sigmoid(self.last(self.stem(x))).mean(dim=1)


@specimen(PICTURE, cut=("stem.0",), reference="mask")
class EnergyHead(nn.Module):
    """Sum of squares and log-sum-exp over the channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.last = conv_norm(3, 8), conv(8, 12)

    def forward(self, x):
        x = self.last(self.stem(x))
        return x.pow(2).sum(1), torch.logsumexp(x, dim=1)


@specimen(PICTURE, cut=("stem.0",))
class BilinearPooling(nn.Module):
    """The outer product of two branches, flattened: each column belongs to a channel of either."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right, self.out = conv_norm(3, 8), conv(8, 6), conv(8, 5), nn.Linear(30, 4)

    def forward(self, x):
        x = self.stem(x)
        left, right = self.left(x).flatten(2), self.right(x).flatten(2)
        return self.out(torch.bmm(left, right.transpose(1, 2)).flatten(1))


@specimen((PICTURE, PICTURE), cut=("stem.0",))
class CosineSiamese(nn.Module):
    """Two pictures through one network; the answer is a weightless product of the two embeddings."""

    def __init__(self):
        super().__init__()
        self.stem, self.embed = conv_norm(3, 8), nn.Linear(8, 12)

    def forward(self, a, b):
        a, b = (self.embed(self.stem(x).mean((2, 3))) for x in (a, b))
        return F.cosine_similarity(a, b), (a * b).sum(-1), torch.cdist(a, b)


@specimen(PICTURE, cut=("stem.0",))
class GramMatrix(nn.Module):
    """Style loss: products of all channels with all, summed up."""

    def __init__(self):
        super().__init__()
        self.stem, self.last = conv_norm(3, 8), conv(8, 6)

    def forward(self, x):
        x = self.last(self.stem(x)).flatten(2)
        return (x @ x.transpose(1, 2)).pow(2).sum((1, 2))


@specimen(PICTURE, cut=("stem.0",))
class ArgmaxOutput(nn.Module):
    """The answer is a class number and a flag: integers and booleans come out."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = conv_norm(3, 8), conv(8, 5)

    def forward(self, x):
        logits = self.out(self.stem(x))
        return logits, logits.argmax(1), logits.amax(1) > 0


@specimen(PICTURE, cut=("stem.0",), whole=("last.0",))
class FeaturesReturned(nn.Module):
    """Features leave the model beside the answer: whoever takes them counts on their channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        features = self.last(self.stem(x))
        return self.head(features.mean((2, 3))), features


@specimen(PICTURE, cut=("stem.0", "key", "value"))
class PlacesAttention(nn.Module):
    """Non-local block: queries times keys over the channels, softmax over places, times values."""

    def __init__(self):
        super().__init__()
        self.stem, self.query, self.key = conv_norm(3, 12), conv(12, 6, 1), conv(12, 6, 1)
        self.value, self.back, self.head = conv(12, 8, 1), conv(8, 12, 1), nn.Linear(12, 4)

    def forward(self, x):
        x = self.stem(x)
        n, _, h, w = x.shape
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        scores = torch.einsum("nci,ncj->nij", query, key).softmax(dim=-1)
        mixed = torch.einsum("nij,ncj->nci", scores, value).reshape(n, -1, h, w)
        return self.head((x + self.back(mixed)).mean((2, 3)))
