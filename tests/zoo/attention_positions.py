"""Attention that knows positions: tables of biases, slopes, rotations."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.registry import specimen
from tests.zoo.tokens import DIMS, HEADS, TOKENS, Projected, Separate

FUSED = ("embed", "qkv")


@specimen(TOKENS, cut=FUSED)
class RelativeBias(Projected):
    """A table of biases, one a head, gathered by a buffer of relative positions."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(11, HEADS))
        places = torch.arange(6)
        self.register_buffer("index", places[:, None] - places[None, :] + 5)

    def mix(self, x):
        q, k, v = self.parts(x)
        bias = self.table[self.index.view(-1)].view(6, 6, -1).permute(2, 0, 1).contiguous()
        scores = q * self.dims**-0.5 @ k.transpose(-2, -1) + bias.unsqueeze(0)
        return self.joined(scores.softmax(-1) @ v)


@specimen(TOKENS, cut=FUSED)
class RelativeBiasAsMask(Projected):
    """The bias as `attn_mask`, from an embedding (T5)."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, HEADS)

    def mix(self, x):
        places = torch.arange(x.shape[1], device=x.device)
        bias = self.table(places[:, None] - places[None, :] + 5).permute(2, 0, 1)[None]
        return self.joined(F.scaled_dot_product_attention(*self.parts(x), attn_mask=bias))


@specimen(TOKENS, cut=FUSED)
class LinearBias(Projected):
    """ALiBi: a slope for each head, a buffer, times the distance."""

    def __init__(self):
        super().__init__()
        self.register_buffer("slopes", torch.tensor([0.5, 0.25]).view(HEADS, 1, 1))

    def mix(self, x):
        places = torch.arange(x.shape[1], device=x.device)
        bias = self.slopes * (places[None, :] - places[:, None]).abs().neg()[None]
        return self.joined(F.scaled_dot_product_attention(*self.parts(x), attn_mask=bias.to(x.dtype)))


def halves_turned(x):
    """Turn pairs that lie in the two halves of the last dimension."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


@specimen(TOKENS, cut=("embed", "v"))
class RotaryHalves(Separate):
    """Rotary positions on two halves; the angles are buffers, one for each dimension of a head."""

    def __init__(self):
        super().__init__()
        angles = torch.outer(torch.arange(6.0), 10000 ** -(torch.arange(0, DIMS, 2) / DIMS))
        self.register_buffer("cos", torch.cat((angles, angles), -1).cos())
        self.register_buffer("sin", torch.cat((angles, angles), -1).sin())

    def turned(self, x):
        return x * self.cos + halves_turned(x) * self.sin

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(F.scaled_dot_product_attention(self.turned(q), self.turned(k), v))


@specimen(TOKENS, cut=("embed", "v"))
class RotaryPairs(Separate):
    """Rotary positions on neighbours: every second dimension, stacked and flattened again."""

    def __init__(self):
        super().__init__()
        angles = torch.outer(torch.arange(6.0), 10000 ** -(torch.arange(0, DIMS, 2) / DIMS))
        self.register_buffer("cos", angles.repeat_interleave(2, -1).cos())
        self.register_buffer("sin", angles.repeat_interleave(2, -1).sin())

    def turned(self, x):
        other = torch.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape)
        return x * self.cos + other * self.sin

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(F.scaled_dot_product_attention(self.turned(q), self.turned(k), v))


@specimen(TOKENS, cut=("embed", "q", "k", "v"))
class RotaryComputed(Separate):
    """Rotary positions with angles made in the forward from the number of dimensions: whole heads go instead."""

    def turned(self, x):
        n, d = x.shape[-2:]
        steps = torch.arange(0, d, 2, dtype=x.dtype, device=x.device) / d
        angles = torch.outer(torch.arange(n, dtype=x.dtype, device=x.device), 10000**-steps)
        angles = torch.cat((angles, angles), -1)
        return x * angles.cos() + halves_turned(x) * angles.sin()

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(F.scaled_dot_product_attention(self.turned(q), self.turned(k), v))


@specimen(TOKENS, cut=("embed", "v"))
class RotaryComplex(Separate):
    """Rotary positions as complex numbers (LLaMA): neighbours are the two parts of one number."""

    def __init__(self):
        super().__init__()
        self.register_buffer("angles", torch.outer(torch.arange(6.0), torch.ones(DIMS // 2)))

    def turned(self, x):
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        turn = torch.polar(torch.ones_like(self.angles), self.angles)
        return torch.view_as_real(pairs * turn).flatten(3)

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined(F.scaled_dot_product_attention(self.turned(q), self.turned(k), v))
