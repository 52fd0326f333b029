"""Self-attention as people write it: how queries, keys and values come about, and where the scale comes from."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.registry import specimen
from tests.zoo.tokens import CHANNELS, DIMS, HEADS, TOKENS, Projected, Separate, Stream

FUSED = ("embed", "qkv")
APART = ("embed", "q", "k", "v")


# -- where queries, keys and values come from ------------------------------------------------------------------------


@specimen(TOKENS, cut=FUSED)
class FusedByUnbind(Projected):
    """One layer for all three, viewed as (3, heads, dims), permuted and unbound (timm)."""

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)))


@specimen(TOKENS, cut=FUSED)
class FusedWithNumberOfParts(Projected):
    """Unbound after a view that says 3 as a number and merges batch and heads (Segment Anything)."""

    def mix(self, x):
        b, n, _ = x.shape
        parts = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts.reshape(3, b * self.heads, n, -1).unbind(0)
        mixed = ((q * DIMS**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.view(b, self.heads, n, -1).transpose(1, 2).reshape(b, n, -1))


@specimen(TOKENS, cut=FUSED)
class FusedByChunk(Projected):
    """One layer for all three, chunked, heads split off by a view with a live -1."""

    def mix(self, x):
        b, n, _ = x.shape
        q, k, v = (part.view(b, n, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return self.joined(F.scaled_dot_product_attention(q, k, v))


@specimen(TOKENS, cut=FUSED)
class FusedBySplit(Projected):
    """One layer for all three, split by an attribute (GPT)."""

    def __init__(self):
        super().__init__()
        self.width = HEADS * DIMS

    def mix(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).split(self.width, dim=2)
        q, k, v = (part.view(b, n, self.heads, self.width // self.heads).transpose(1, 2) for part in (q, k, v))
        return self.joined(F.scaled_dot_product_attention(q, k, v, is_causal=True))


@specimen(TOKENS, cut=FUSED)
class FusedBySelect(Projected):
    """`qkv[0], qkv[1], qkv[2]`, the softmax written out, the scale an attribute (first ViTs)."""

    def __init__(self):
        super().__init__()
        self.scale = DIMS**-0.5

    def mix(self, x):
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        return self.joined(((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1) @ v)


@specimen(TOKENS)
class FusedByStreamWidth(Projected):
    """`C // heads` and `reshape(B, N, C)`: the heads are measured by the width of the stream, and go with it."""

    def mix(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        out = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(b, n, c))


@specimen(TOKENS, cut=FUSED)
class FusedHeadsFirst(Projected):
    """The layer's outputs are heads first, then the three parts (GPT-NeoX): `view(B, N, heads, 3 * dims).chunk(3)`."""

    def mix(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.heads, -1).transpose(1, 2).chunk(3, dim=-1)
        return self.joined(F.scaled_dot_product_attention(q, k, v))


@specimen(TOKENS, cut=APART)
class ThreeLinears(Separate):
    """A layer for each."""

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)))


@specimen(TOKENS, cut=APART)
class NarrowKeys(Separate):
    """Keys and values of different widths."""

    def __init__(self):
        super().__init__(dims=4, value_dims=6)

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)))


@specimen(TOKENS, cut=("embed", "q", "kv"))
class KeysWithValues(Stream):
    """Queries apart, keys and values from one layer."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims = HEADS, DIMS
        self.q, self.kv = nn.Linear(CHANNELS, 16, bias=False), nn.Linear(CHANNELS, 32)
        self.proj = nn.Linear(16, CHANNELS)

    def mix(self, x):
        b, n, _ = x.shape
        q = self.q(x).reshape(b, n, self.heads, self.dims).transpose(1, 2)
        k, v = self.kv(x).reshape(b, n, 2, self.heads, self.dims).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))


@specimen(TOKENS, cut=FUSED)
class BiasOfThreeParts(Projected):
    """BEiT: a bias for queries and values, none for keys, put together by a concatenation with zeros."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * HEADS * DIMS, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(HEADS * DIMS)), nn.Parameter(torch.zeros(HEADS * DIMS))

    def mix(self, x):
        b, n, _ = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias, requires_grad=False), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.joined(F.scaled_dot_product_attention(*qkv.unbind(0)))


# -- the product, and its scale --------------------------------------------------------------------------------------


@specimen(TOKENS, cut=APART)
class ScaleByAttribute(Separate):
    """softmax(q k^T * scale) v with `torch.matmul`; the scale is a float that nobody recomputes."""

    def __init__(self):
        super().__init__()
        self.scale = DIMS**-0.5

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(torch.matmul(torch.softmax(torch.matmul(q, k.mT) * self.scale, dim=-1), v))


@specimen(TOKENS, cut=APART)
class ScaleByPower(Separate):
    """`dims ** -0.5` in the forward: the number follows the cut by itself, and the answer would not."""

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q * self.dims**-0.5 @ k.transpose(2, 3)).softmax(-1) @ v)


@specimen(TOKENS, cut=APART)
class ScaleByRoot(Separate):
    """`/ math.sqrt(dims)` in the forward (BERT)."""

    def mix(self, x):
        q, k, v = self.parts(x)
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.dims)
        return self.joined(torch.matmul(F.softmax(scores, dim=-1), v))


@specimen(TOKENS, cut=APART)
class ScaleBySize(Separate):
    """`q.shape[-1] ** -0.5`: a live size as a number."""

    def mix(self, x):
        q, k, v = self.parts(x)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
        return self.joined(torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v))


@specimen(TOKENS, cut=APART)
class ScaleByLiveRoot(Separate):
    """`/ math.sqrt(q.size(-1))` (the annotated transformer)."""

    def mix(self, x):
        q, k, v = self.parts(x)
        d = q.size(-1)
        return self.joined(((q @ k.transpose(-2, -1)) / math.sqrt(d)).softmax(-1) @ v)


@specimen(TOKENS, cut=APART)
class ScaleOfBoth(Separate):
    """Half of the scale on the queries, half on the keys: `dims ** -0.25` (diffusion models)."""

    def mix(self, x):
        q, k, v = self.parts(x)
        scale = 1 / math.sqrt(math.sqrt(self.dims))
        return self.joined(((q * scale) @ (k * scale).mT).softmax(-1) @ v)


@specimen(TOKENS, cut=APART)
class ScaleGiven(Separate):
    """`scaled_dot_product_attention(scale=...)` by a float attribute: no scale depends on the cut."""

    def __init__(self):
        super().__init__()
        self.scale = 0.3

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x), scale=self.scale))


@specimen(TOKENS, cut=APART)
class ScaleGivenLive(Separate):
    """`scaled_dot_product_attention(scale=dims ** -0.5)`."""

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x), scale=self.dims**-0.5))


@specimen(TOKENS, cut=APART)
class ScaleOfOtherPower(Separate):
    """muP: `1 / dims`, and not its root."""

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q @ k.mT / self.dims).softmax(-1) @ v)


@specimen(TOKENS, cut=APART)
class ScaleLearned(Separate):
    """A temperature for each head, a parameter."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q @ k.mT * self.temperature).softmax(-1) @ v)


@specimen(TOKENS, cut=FUSED)
class HeadsInBatch(Projected):
    """Heads are folded into the batch, and the products are `bmm` and `baddbmm` (fairseq)."""

    def mix(self, x):
        b, n, _ = x.shape
        q, k, v = (part.reshape(b * self.heads, n, self.dims) for part in self.parts(x))
        mask = x.new_zeros(b * self.heads, n, n)
        weights = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=1 / math.sqrt(self.dims)).softmax(-1)
        out = torch.bmm(weights, v).view(b, self.heads, n, self.dims)
        return self.joined(out)


@specimen(TOKENS, cut=FUSED)
class EinsumWithEllipsis(Projected):
    """Products by `einsum` with an ellipsis and without an arrow's usual letters."""

    def mix(self, x):
        q, k, v = self.parts(x)
        weights = torch.einsum("...id, ...jd -> ...ij", q * self.dims**-0.5, k).softmax(-1)
        return self.joined(torch.einsum("...ij, ...jd -> ...id", weights, v))


@specimen(TOKENS, cut=("embed", "qkv"))
class SingleHead(Stream):
    """One head, no view at all: the channels are the dimensions."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(CHANNELS, 3 * 12), nn.Linear(12, CHANNELS)

    def mix(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)


@specimen(TOKENS, cut=FUSED)
class CausalByBuffer(Projected):
    """nanoGPT: a triangle in a buffer, cut to the length, `masked_fill` with minus infinity."""

    def __init__(self):
        super().__init__()
        self.register_buffer("triangle", torch.tril(torch.ones(9, 9)).view(1, 1, 9, 9))

    def mix(self, x):
        q, k, v = self.parts(x)
        n = q.size(-2)
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.triangle[:, :, :n, :n] == 0, float("-inf"))
        return self.joined(F.softmax(scores, dim=-1) @ v)


@specimen(TOKENS, cut=FUSED)
class MaskByArguments(Projected):
    """A causal mask made on the spot, given as `attn_mask`."""

    def mix(self, x):
        n = x.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool, device=x.device).tril()
        return self.joined(F.scaled_dot_product_attention(*self.parts(x), attn_mask=mask[None, None]))
