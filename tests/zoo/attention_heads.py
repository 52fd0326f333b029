"""What heads share and what tells them apart: groups of heads, norms, talk, gates."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.registry import specimen
from tests.zoo.tokens import CHANNELS, DIMS, HEADS, TOKENS, Projected, Separate

FUSED = ("embed", "qkv")
APART = ("embed", "q", "k", "v")


# -- fewer keys than queries -----------------------------------------------------------------------------------------


class _Grouped(Separate):
    """Four heads of queries, two of keys and values."""

    def __init__(self):
        super().__init__(heads=4, kv_heads=2, dims=6, value_dims=6)


@specimen(TOKENS, cut=APART)
class GroupedByRepeat(_Grouped):
    """Grouped queries: keys and values by `repeat_interleave`."""

    def mix(self, x):
        q, k, v = self.parts(x)
        k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        return self.joined(F.scaled_dot_product_attention(q, k, v))


@specimen(TOKENS, cut=APART)
class GroupedByExpand(_Grouped):
    """Grouped queries: keys and values by `expand` and `reshape` (LLaMA in transformers)."""

    def repeated(self, x):
        b, heads, n, d = x.shape
        return x[:, :, None].expand(b, heads, 2, n, d).reshape(b, heads * 2, n, d)

    def mix(self, x):
        q, k, v = self.parts(x)
        scores = q @ self.repeated(k).transpose(2, 3) / math.sqrt(self.dims)
        return self.joined(scores.softmax(-1) @ self.repeated(v))


@specimen(TOKENS, cut=APART)
class GroupedByFlag(_Grouped):
    """Grouped queries: `enable_gqa=True`."""

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x), enable_gqa=True))


@specimen(TOKENS, cut=("embed", "v"))
class GroupedByView(_Grouped):
    """Grouped queries: a dimension for the group of each head, and broadcasting."""

    def mix(self, x):
        q, k, v = self.parts(x)
        b, _, n, d = q.shape
        q = q.reshape(b, self.kv_heads, -1, n, d)
        weights = torch.einsum("bghid,bgjd->bghij", q * self.dims**-0.5, k).softmax(-1)
        return self.joined(torch.einsum("bghij,bgjd->bghid", weights, v).flatten(1, 2))


@specimen(TOKENS, cut=APART)
class SingleKey(Separate):
    """Multi-query: one head of keys and values for all."""

    def __init__(self):
        super().__init__(heads=4, kv_heads=1, dims=6, value_dims=6)

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q @ k.transpose(-1, -2) * self.dims**-0.5).softmax(-1) @ v)


# -- norms, talk, scales ---------------------------------------------------------------------------------------------


@specimen(TOKENS, cut=FUSED)
class NormedQueries(Projected):
    """Layer norms over the dimensions of a head, for queries and keys."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(DIMS), nn.LayerNorm(DIMS)

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v))


@specimen(TOKENS, cut=FUSED, reference="mask")
class RootNormedQueries(Projected):
    """RMS norms over the dimensions of a head."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = nn.RMSNorm(DIMS), nn.RMSNorm(DIMS)

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v))


@specimen(TOKENS, cut=FUSED)
class SubNorm(Projected):
    """A layer norm over all heads' channels before the projection (EVA-02)."""

    def __init__(self):
        super().__init__()
        self.inner = nn.LayerNorm(HEADS * DIMS)

    def mix(self, x):
        out = F.scaled_dot_product_attention(*self.parts(x))
        return self.proj(self.inner(out.transpose(1, 2).flatten(2)))


@specimen(TOKENS, cut=FUSED)
class TalkingHeads(Projected):
    """CaiT: linear layers across the heads, before and behind the softmax."""

    def __init__(self):
        super().__init__()
        self.before, self.behind = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)

    def mix(self, x):
        q, k, v = self.parts(x)
        scores = q * self.dims**-0.5 @ k.transpose(-2, -1)
        weights = self.before(scores.permute(0, 2, 3, 1)).softmax(-2)
        return self.joined(self.behind(weights).permute(0, 3, 1, 2) @ v)


@specimen(TOKENS, cut=("embed", "qkv"))
class LayerScale(Projected):
    """A factor for each channel of the branch, a bare parameter."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(1e-5 * torch.ones(CHANNELS))

    def mix(self, x):
        return self.gamma * self.joined(F.scaled_dot_product_attention(*self.parts(x)))


@specimen(TOKENS, cut=("embed", "qkv"))
class GatedHeads(Projected):
    """A gate for each head, computed from the token."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(CHANNELS, HEADS)

    def mix(self, x):
        gate = torch.sigmoid(self.gate(x)).transpose(1, 2).unsqueeze(-1)
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)) * gate)


@specimen(TOKENS, cut=("embed", "q", "k", "v", "gate"))
class GatedChannels(Separate):
    """A gate for each channel of the heads, as wide as the values."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(CHANNELS, HEADS * DIMS)

    def mix(self, x):
        out = F.scaled_dot_product_attention(*self.parts(x)).transpose(1, 2).flatten(2)
        return self.proj(out * F.silu(self.gate(x)))
