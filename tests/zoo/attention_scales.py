"""Where the scale of attention comes from, and what else hangs on the weights that it could be folded into."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.zoo.registry import specimen
from tests.zoo.tokens import CHANNELS, DIMS, HEADS, TOKENS, Projected, Separate

APART = ("embed", "q", "k", "v")


# -- how the number is computed --------------------------------------------------------------------------------------


@specimen(TOKENS, cut=APART)
class ScaleByNumpy(Separate):
    """`/ np.sqrt(dims)`: numpy takes the integer apart."""

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q @ k.mT / np.sqrt(self.dims)).softmax(-1) @ v)


@specimen(TOKENS, cut=("embed",))
class ScaleByNumpyOfSize(Separate):
    """`/ float(np.power(q.shape[-1], 0.5))`: a plain number in the end."""

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q @ k.mT / float(np.power(q.shape[-1], 0.5))).softmax(-1) @ v)


@specimen(TOKENS, cut=("embed", "v"))
class ScaleByTensor(Separate):
    """`/ torch.sqrt(torch.tensor(dims))`: the number becomes a tensor."""

    def mix(self, x):
        q, k, v = self.parts(x)
        root = torch.sqrt(torch.tensor(q.size(-1), dtype=x.dtype))
        return self.joined((q @ k.mT / root).softmax(-1) @ v)


@specimen(TOKENS, cut=("embed", "v"))
class ScaleInFull(Separate):
    """A tensor filled with the number: `torch.full`, `new_full`."""

    def mix(self, x):
        q, k, v = self.parts(x)
        scale = torch.full((1, 1, 1, 1), self.dims, dtype=x.dtype) * q.new_full((1,), q.shape[-1])
        return self.joined((q @ k.mT * scale**-0.25).softmax(-1) @ v)


@specimen(TOKENS, cut=APART)
class ScaleByAlpha(Separate):
    """`baddbmm` with `alpha`, beside a bias with `beta`."""

    def mix(self, x):
        q, k, v = (part.flatten(0, 1) for part in self.parts(x))
        bias = x.new_ones(len(q), x.shape[1], x.shape[1])
        scores = torch.baddbmm(bias, q, k.mT, beta=0.5, alpha=1 / math.sqrt(self.dims))
        return self.joined((scores.softmax(-1) @ v).unflatten(0, (-1, self.heads)))


@specimen(TOKENS, cut=("embed", "v"))
class ScaleInSum(Separate):
    """The number is added with `alpha`, and bounds a clamp: it is a value there."""

    def mix(self, x):
        q, k, v = self.parts(x)
        scores = torch.add(q @ k.mT, x.new_ones(1), alpha=q.shape[-1]).clamp(max=3.0 * self.dims)
        return self.joined(scores.tanh().softmax(-1) @ v)


@specimen(TOKENS, cut=APART)
class ScaleInPlace(Separate):
    """`mul_` and `div_` in place on a view of the queries."""

    def mix(self, x):
        q, k, v = self.parts(x)
        q = q.clone()
        q.mul_(self.dims**-0.5)
        return self.joined((q @ k.mT).div_(2.0).softmax(-1) @ v)


@specimen(TOKENS, cut=APART)
class ScaleByModule(Separate):
    """A scale with a gain that is learned: a parameter times a live number."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q @ k.mT * (self.gain * self.dims**-0.5)).softmax(-1) @ v)


# -- what else hangs on the weights ----------------------------------------------------------------------------------


class _OneLayer(Separate):
    """Queries and keys come from one and the same layer."""

    def parts(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.dims).transpose(1, 2)
        return q, q, self.v(x).view(b, n, self.heads, self.dims).transpose(1, 2)


@specimen(TOKENS, cut=("embed", "v"))
class QueriesAreKeys(_OneLayer):
    """Reformer: multiplying that layer's weights would count twice."""

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)))


@specimen(TOKENS, cut=("embed", "v"))
class LayerCalledTwice(Separate):
    """Queries and keys of different tokens by two calls of one layer."""

    def mix(self, x):
        b, n, _ = x.shape
        q, k = (self.q(part).view(b, n, self.heads, self.dims).transpose(1, 2) for part in (x, torch.tanh(x)))
        v = self.v(x).view(b, n, self.heads, self.dims).transpose(1, 2)
        return self.joined(F.scaled_dot_product_attention(q, k, v))


@specimen(TOKENS, cut=("embed",))
class QueriesAdded(Separate):
    """MViT: the queries are added to what comes out."""

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(q + F.scaled_dot_product_attention(q, k, v))


@specimen(TOKENS, cut=("embed",))
class QueriesAndKeysAdded(Separate):
    """Queries and keys are both used a second time, unscaled."""

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(torch.relu(q) * torch.tanh(k) + F.scaled_dot_product_attention(q, k, v))


@specimen(TOKENS, cut=("embed", "v"))
class RelativeKeys(Separate):
    """Queries meet keys with the scale, and learned positions without."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.randn(6, DIMS))

    def mix(self, x):
        q, k, v = self.parts(x)
        scores = q @ k.mT / math.sqrt(self.dims) + torch.einsum("bhid,jd->bhij", q, self.places)
        return self.joined(scores.softmax(-1) @ v)


@specimen(TOKENS, cut=("embed",))
class RelativeSums(Separate):
    """Transformer-XL: biases added to the queries, two products, one scale over their sum."""

    def __init__(self):
        super().__init__()
        self.u, self.w = nn.Parameter(torch.randn(HEADS, 1, DIMS)), nn.Parameter(torch.randn(HEADS, 1, DIMS))
        self.places, self.r = nn.Parameter(torch.randn(6, CHANNELS)), nn.Linear(CHANNELS, HEADS * DIMS)

    def mix(self, x):
        q, k, v = self.parts(x)
        r = self.r(self.places).view(6, self.heads, self.dims).transpose(0, 1)
        scores = ((q + self.u) @ k.mT + (q + self.w) @ r.mT) * self.dims**-0.5
        return self.joined(scores.softmax(-1) @ v)


@specimen(TOKENS, cut=("v",))
class WeightNormedQueries(Separate):
    """Queries and keys from layers under weight norm: their rows are not what is stored."""

    def __init__(self):
        super().__init__()
        self.q, self.k = parametrizations.weight_norm(self.q), parametrizations.weight_norm(self.k)

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)))


@specimen(TOKENS, cut=("embed", "v"))
class NormedWithoutWeights(Separate):
    """Norms without weights behind both layers: nothing before them changes what comes out."""

    def mix(self, x):
        q, k, v = self.parts(x)
        q, k = F.layer_norm(q, (self.dims,)), F.layer_norm(k, (self.dims,))
        return self.joined(F.scaled_dot_product_attention(q, k, v))


@specimen(TOKENS, cut=APART)
class BlockTwice(Separate):
    """One block, applied twice: its weights are multiplied once."""

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)))

    def forward(self, x):
        x = self.embed(x)
        for _ in range(2):
            x = x + self.mix(self.norm(x))
        return self.head(x.mean(1))


@specimen(TOKENS, cut=("embed",))
class ScaleOnValues(Projected):
    """`dims ** -0.5` multiplies the values, too, and a rectified product (squared ReLU attention)."""

    def mix(self, x):
        q, k, v = self.parts(x)
        weights = torch.relu(q @ k.mT * self.dims**-0.5).square()
        return self.joined(weights @ (v / math.sqrt(self.dims)))


@specimen(TOKENS, cut=("embed",))
class ScaleOnOneHead(Projected):
    """Only the first head's scores are divided."""

    def mix(self, x):
        q, k, v = self.parts(x)
        scores = q @ k.mT
        scores = torch.cat([scores[:, :1] / math.sqrt(self.dims), scores[:, 1:]], dim=1)
        return self.joined(scores.softmax(-1) @ v)
