"""Steps on places as tokens: attention in several forms, torch's own layer, gated units, mixers over places."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.generator.registry import SIDE, Layer, kind

PLACES = SIDE * SIDE


def tokens_of(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) to (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def map_of(x: torch.Tensor) -> torch.Tensor:
    """(B, H * W, C) to (B, C, H, W)."""
    return x.transpose(1, 2).unflatten(2, (SIDE, SIDE))


PROJECTIONS = ("unbound", "chunked", "split", "selected", "apart", "heads first")
PRODUCTS = ("fused", "attribute", "power", "root", "einsum", "cosine")
ADDITIONS = ("none", "bias", "causal", "norm", "gate", "window")


@kind
class Attention(Layer):
    """Attention beside the features: projections, product and an addition drawn from several forms each."""

    @classmethod
    def numbers(cls, choose, width):
        forms = (choose(range(len(options))) for options in (PROJECTIONS, PRODUCTS, ADDITIONS))
        return (*forms, choose([1, 2, 3]), choose([2, 4, 5]), choose([1, 3, 4]))

    def __init__(self, inputs: list[int], projection: int, product: int, addition: int, heads: int, dims: int, v: int):
        super().__init__()
        width = inputs[0]
        self.widths = (width,)
        self.form, self.product, self.addition = PROJECTIONS[projection], PRODUCTS[product], ADDITIONS[addition]
        self.heads, self.dims, self.scale = heads, dims, dims**-0.5
        self.value_dims = v if self.form == "apart" else dims
        self.inner = heads * dims
        sizes = (self.inner, self.inner, heads * self.value_dims)
        self.into = nn.ModuleList(nn.Linear(width, size) for size in (sizes if self.form == "apart" else [sum(sizes)]))
        self.out = nn.Linear(heads * self.value_dims, width)
        self.before = nn.LayerNorm(width) if width > 1 else nn.Identity()
        self.table = nn.Parameter(torch.randn(heads, PLACES, PLACES)) if self.addition == "bias" else None
        self.norms = nn.ModuleList(nn.LayerNorm(dims) for _ in range(2 * (self.addition == "norm")))
        self.gate = nn.Linear(width, heads * self.value_dims) if self.addition == "gate" else None

    def parts(self, x):
        """Return queries, keys and values, (B, heads, N, dims) each."""
        b, n, _ = x.shape
        made = [layer(x) for layer in self.into]
        if self.form == "unbound":
            return made[0].reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4).unbind(0)
        if self.form == "selected":
            qkv = made[0].view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            return qkv[0], qkv[1], qkv[2]
        if self.form == "heads first":
            return made[0].view(b, n, self.heads, -1).transpose(1, 2).chunk(3, dim=-1)
        if self.form == "chunked":
            made = made[0].chunk(3, dim=-1)
        if self.form == "split":
            made = made[0].split(self.inner, dim=-1)
        return [part.view(b, n, self.heads, -1).transpose(1, 2) for part in made]

    def attended(self, q, k, v):
        """Return (B, heads, N, value_dims)."""
        bias = self.table
        if self.addition == "causal":
            bias = torch.full((q.shape[2], q.shape[2]), -1e4, dtype=q.dtype, device=q.device).triu(1)
        if self.product == "fused":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        scores = self.scores(q, k)
        weights = (scores if bias is None else scores + bias).softmax(-1)
        return torch.einsum("bhij,bhjd->bhid", weights, v) if self.product == "einsum" else weights @ v

    def scores(self, q, k):
        """Return (B, heads, N, N)."""
        if self.product == "attribute":
            return q @ k.transpose(-2, -1) * self.scale
        if self.product == "power":
            return q * q.shape[-1] ** -0.5 @ k.mT
        if self.product == "root":
            return torch.matmul(q, k.mT) / math.sqrt(q.size(-1))
        if self.product == "einsum":
            return torch.einsum("bhid,bhjd->bhij", q, k) * self.scale
        return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 5

    def mix(self, x):
        """Return what is added to tokens (B, N, C)."""
        q, k, v = self.parts(x)
        if self.addition == "norm":
            q, k = self.norms[0](q), self.norms[1](k)
        out = self.attended(q, k, v).transpose(1, 2).flatten(2)
        return self.out(out if self.gate is None else out * torch.sigmoid(self.gate(x)))

    def forward(self, x):
        tokens = tokens_of(x)
        seen = self.before(tokens)
        if self.addition == "window":
            b, n, c = seen.shape
            seen = seen.view(b, SIDE, n // SIDE, c).transpose(1, 2).reshape(b * SIDE, -1, c)
            mixed = self.mix(seen).view(b, SIDE, SIDE, -1).transpose(1, 2).reshape(b, n, -1)
        else:
            mixed = self.mix(seen)
        return [map_of(tokens + mixed)]


@kind
class SharedKeys(Layer):
    """Grouped queries: four heads ask, one or two answer; keys are repeated in one of three ways."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose([1, 2]), choose([2, 4]), choose(range(3)))

    def __init__(self, inputs: list[int], answering: int, dims: int, way: int):
        super().__init__()
        self.widths, self.way = (8,), way
        self.heads, self.answering, self.dims = 4, answering, dims
        self.q = nn.Linear(inputs[0], 4 * dims)
        self.k, self.v = nn.Linear(inputs[0], answering * dims), nn.Linear(inputs[0], answering * dims)
        self.out = nn.Linear(4 * dims, 8)

    def repeated(self, x):
        if self.way == 0:
            return x.repeat_interleave(self.heads // self.answering, dim=1)
        b, heads, n, d = x.shape
        return x[:, :, None].expand(b, heads, self.heads // heads, n, d).reshape(b, self.heads, n, d)

    def forward(self, x):
        x = tokens_of(x)
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.dims).transpose(1, 2)
        k, v = (part(x).view(b, n, self.answering, self.dims).transpose(1, 2) for part in (self.k, self.v))
        if self.way == 2:
            out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            out = F.scaled_dot_product_attention(q, self.repeated(k), self.repeated(v))
        return [torch.relu(map_of(self.out(out.transpose(1, 2).flatten(2))))]


@kind
class Multihead(Layer):
    """`nn.MultiheadAttention` beside the features."""

    @classmethod
    def fits(cls, *widths):
        return widths[0] % 2 == 0

    @classmethod
    def numbers(cls, choose, width):
        return (choose([1, 2]), choose([False, True]), choose([False, True]))

    def __init__(self, inputs: list[int], heads: int, batch_first: bool, weights: bool):
        super().__init__()
        self.widths, self.weights = (inputs[0],), weights
        self.attention = nn.MultiheadAttention(inputs[0], heads, batch_first=batch_first)

    def forward(self, x):
        tokens = tokens_of(x)
        laid = tokens if self.attention.batch_first else tokens.transpose(0, 1)
        mixed = self.attention(laid, laid, laid, need_weights=self.weights)[0]
        return [map_of(tokens + (mixed if self.attention.batch_first else mixed.transpose(0, 1)))]


@kind
class CrossAttention(Layer):
    """The first feature asks the second; both keep their own widths."""

    inputs = 2

    @classmethod
    def numbers(cls, choose, width):
        return (choose([1, 2]), choose([2, 3]))

    def __init__(self, inputs: list[int], heads: int, dims: int):
        super().__init__()
        self.widths, self.heads, self.dims = (inputs[0],), heads, dims
        self.q, self.kv = nn.Linear(inputs[0], heads * dims), nn.Linear(inputs[1], 2 * heads * dims)
        self.out = nn.Linear(heads * dims, inputs[0])

    def forward(self, x, other):
        x, other = tokens_of(x), tokens_of(other)
        b, n, _ = other.shape
        q = self.q(x).unflatten(-1, (self.heads, self.dims)).transpose(1, 2)
        k, v = self.kv(other).reshape(b, n, 2, self.heads, self.dims).permute(2, 0, 3, 1, 4)
        return [map_of(x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)))]


@kind
class LinearAttention(Layer):
    """Keys times values first, with ReLU features; no softmax."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose([1, 2]), choose([2, 4]))

    def __init__(self, inputs: list[int], heads: int, dims: int):
        super().__init__()
        self.widths, self.heads, self.dims = (inputs[0],), heads, dims
        self.qkv, self.out = nn.Linear(inputs[0], 3 * heads * dims), nn.Linear(heads * dims, inputs[0])

    def forward(self, x):
        x = tokens_of(x)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.relu(q) @ (torch.relu(k).transpose(-2, -1) @ v) / n
        return [map_of(x + self.out(mixed.transpose(1, 2).flatten(2)))]


@kind
class Gated(Layer):
    """A gated unit: fused by chunk, by `F.glu`, by a split in an attribute, or from two layers."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(4)), choose([2, 5, 8]))

    def __init__(self, inputs: list[int], way: int, hidden: int):
        super().__init__()
        self.widths, self.way, self.hidden = (inputs[0],), way, hidden
        self.up = nn.ModuleList(nn.Linear(inputs[0], hidden) for _ in range(2)) if way == 3 else None
        self.both = None if way == 3 else nn.Linear(inputs[0], 2 * hidden)
        self.down = nn.Linear(hidden, inputs[0])

    def gated(self, x):
        if self.up is not None:
            return F.silu(self.up[0](x)) * self.up[1](x)
        if self.way == 0:
            value, gate = self.both(x).chunk(2, dim=-1)
            return F.silu(gate) * value
        if self.way == 1:
            return F.glu(self.both(x), dim=-1)
        value, gate = self.both(x).split(self.hidden, dim=-1)
        return value * F.gelu(gate)

    def forward(self, x):
        x = tokens_of(x)
        return [map_of(x + self.down(self.gated(x)))]


@kind
class PlaceMixer(Layer):
    """Linear layers over the places, with a hidden width of their own; or one half of the channels gates the other."""

    @classmethod
    def numbers(cls, choose, width):
        return (choose([3, 6]), choose([False, True]) if width % 2 == 0 else False)

    def __init__(self, inputs: list[int], hidden: int, gating: bool):
        super().__init__()
        self.gating = gating
        self.widths = (inputs[0] // 2 if gating else inputs[0],)
        self.up, self.down = nn.Linear(PLACES, hidden), nn.Linear(hidden, PLACES)

    def mixed(self, x):
        return self.down(torch.relu(self.up(x.flatten(2)))).view_as(x)

    def forward(self, x):
        if not self.gating:
            return [x + self.mixed(x)]
        value, gate = x.chunk(2, dim=1)
        return [value * self.mixed(gate)]
