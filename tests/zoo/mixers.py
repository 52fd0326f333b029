"""What stands beside or instead of attention: gated units, mixers over tokens, parallel branches, gates on tokens."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen
from tests.zoo.tokens import CHANNELS, DIMS, HEADS, TOKENS, Projected, Stream

# -- gated units -----------------------------------------------------------------------------------------------------


@specimen(TOKENS, cut=("embed", "up"))
class TokenPerceptron(Stream):
    """Two linear layers around a GELU."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, 32), nn.Linear(32, CHANNELS)

    def mix(self, x):
        return self.down(F.gelu(self.up(x)))


class _Gated(Stream):
    """A gated unit of 24 channels."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, 48), nn.Linear(24, CHANNELS)


@specimen(TOKENS, cut=("embed", "up"))
class SwiGLUFused(_Gated):
    """Gate and value from one layer, chunked (DINOv2's `w12`)."""

    def mix(self, x):
        first, second = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(first) * second)


@specimen(TOKENS, cut=("embed", "up"))
class GEGLU(_Gated):
    """GELU of one half times the other, by attribute."""

    def __init__(self):
        super().__init__()
        self.hidden = 24

    def mix(self, x):
        value, gate = self.up(x).split(self.hidden, dim=-1)
        return self.down(value * F.gelu(gate))


@specimen(TOKENS, cut=("embed", "up"))
class GatedByGLU(_Gated):
    """`F.glu`."""

    def mix(self, x):
        return self.down(F.glu(self.up(x), dim=-1))


@specimen(TOKENS, cut=("embed", "gate", "value"))
class SwiGLUSeparate(Stream):
    """Gate and value from two layers, with a norm between (EVA-02, LLaMA)."""

    def __init__(self):
        super().__init__()
        self.gate, self.value = nn.Linear(CHANNELS, 24), nn.Linear(CHANNELS, 24, bias=False)
        self.inner, self.down = nn.LayerNorm(24), nn.Linear(24, CHANNELS)

    def mix(self, x):
        return self.down(self.inner(F.silu(self.gate(x)) * self.value(x)))


@specimen(TOKENS, cut=("embed", "up"))
class GatedWithConvolution(Stream):
    """A depthwise convolution between the two linear layers, over tokens laid out as a picture (PVT v2)."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, 24), nn.Linear(24, CHANNELS)
        self.depthwise = conv(24, 24, groups=24)

    def mix(self, x):
        x = self.up(x)
        b, _, c = x.shape
        x = self.depthwise(x.transpose(1, 2).view(b, c, 2, 3)).flatten(2).transpose(1, 2)
        return self.down(F.gelu(x))


# -- side by side ----------------------------------------------------------------------------------------------------


@specimen(TOKENS, cut=("embed", "qkv", "up"))
class ParallelBranches(Projected):
    """Attention and perceptron beside each other on one norm (PaLM)."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, 24), nn.Linear(24, CHANNELS)

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x))) + self.down(F.gelu(self.up(x)))


@specimen(TOKENS, cut=("embed", "into"))
class ParallelFused(Stream):
    """ViT-22B: one layer in for both branches, one layer out from their concatenation."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims, self.hidden = HEADS, DIMS, 24
        self.sizes = [24, 16, 16, 16]
        self.into, self.out = nn.Linear(CHANNELS, 72), nn.Linear(40, CHANNELS)

    def mix(self, x):
        b, n, _ = x.shape
        up, q, k, v = torch.split(self.into(x), self.sizes, dim=-1)
        q, k, v = (part.view(b, n, self.heads, self.dims).transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return self.out(torch.cat([F.gelu(up), out], dim=-1))


# -- over tokens -----------------------------------------------------------------------------------------------------


@specimen(TOKENS, cut=("embed", "tokens.0", "up"))
class TokenMixer(Stream):
    """MLP-Mixer: a perceptron over the tokens, then one over the channels."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6))
        self.up, self.down, self.second = nn.Linear(CHANNELS, 24), nn.Linear(24, CHANNELS), nn.LayerNorm(CHANNELS)

    def mix(self, x):
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return x + self.down(F.gelu(self.up(self.second(x))))


@specimen(TOKENS, cut=("embed", "up"))
class SpatialGating(Stream):
    """gMLP: one half of the channels, normed and mixed over the tokens, gates the other."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, 24), nn.Linear(12, CHANNELS)
        self.inner, self.tokens = nn.LayerNorm(12), nn.Linear(6, 6)

    def mix(self, x):
        value, gate = F.gelu(self.up(x)).chunk(2, dim=-1)
        gate = self.tokens(self.inner(gate).transpose(-1, -2)).transpose(-1, -2)
        return self.down(value * gate)


@specimen(TOKENS, cut=("embed",))
class SpatialGatingByConvolution(Stream):
    """gMLP with a convolution of kernel one over the tokens."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, 24), nn.Linear(12, CHANNELS)
        self.tokens = nn.Conv1d(6, 6, 1)

    def mix(self, x):
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(value * self.tokens(gate))


@specimen(TOKENS, cut=("embed", "up"))
class AffineMixer(Stream):
    """ResMLP: bare scales and shifts instead of norms, one linear layer over the tokens."""

    def __init__(self):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(1, 1, CHANNELS)), nn.Parameter(torch.zeros(1, 1, CHANNELS))
        self.tokens, self.up, self.down = nn.Linear(6, 6), nn.Linear(CHANNELS, 24), nn.Linear(24, CHANNELS)

    def mix(self, x):
        x = torch.addcmul(self.beta, self.alpha, x)
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return self.down(F.gelu(self.up(x)))


@specimen(TOKENS, cut=("embed", "reduce"))
class GatedTokens(Stream):
    """Squeeze and excitation on tokens: averaged over them, one factor a channel."""

    def __init__(self):
        super().__init__()
        self.reduce, self.expand = nn.Linear(CHANNELS, 8), nn.Linear(8, CHANNELS)

    def mix(self, x):
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean(dim=1, keepdim=True)))))


@specimen(PICTURE, cut=("stem.0", "up"))
class PoolingMixer(nn.Module):
    """PoolFormer: average pooling minus the input, a group norm of one group, 1x1 convolutions, layer scales."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.norm2 = conv_norm(3, 12), nn.GroupNorm(1, 12), nn.GroupNorm(1, 12)
        self.up, self.down, self.scale = conv(12, 24, 1), conv(24, 12, 1), nn.Parameter(torch.ones(12))
        self.head = pooled_head(12)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(x)
        x = x + self.scale.unsqueeze(-1).unsqueeze(-1) * (F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y)
        return self.head(x + self.down(F.gelu(self.up(self.norm2(x)))))


@specimen(PICTURE, cut=("stem.0", "up"), reference="mask")
class ResponseNorm(nn.Module):
    """ConvNeXt v2's global response norm: a channel's energy over the mean energy of all."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 12), pooled_head(12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.weight, self.bias = nn.Parameter(torch.ones(24)), nn.Parameter(torch.zeros(24))

    def forward(self, x):
        x = self.stem(x)
        y = F.gelu(self.up(x.permute(0, 2, 3, 1)))
        energy = y.norm(p=2, dim=(1, 2), keepdim=True)
        share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        y = y + torch.addcmul(self.bias, self.weight, y * share)
        return self.head(x + self.down(y).permute(0, 3, 1, 2))


@specimen(TOKENS, cut=("embed", "into"))
class StateSpace(Stream):
    """Mamba's frame: one layer in for value and gate, a causal depthwise convolution over time, a gate."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(CHANNELS, 48, bias=False), nn.Linear(24, CHANNELS, bias=False)
        self.causal = nn.Conv1d(24, 24, 3, groups=24, padding=2)

    def mix(self, x):
        n = x.shape[1]
        value, gate = self.into(x).chunk(2, dim=-1)
        value = F.silu(self.causal(value.transpose(1, 2))[:, :, :n].transpose(1, 2))
        return self.out(value * F.silu(gate))
