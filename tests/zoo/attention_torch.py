"""torch's own attention layers, in every way they are called."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.registry import specimen
from tests.zoo.tokens import CHANNELS, HEADS, TOKENS, Stream


class _Multihead(Stream):
    """`nn.MultiheadAttention` on the stream."""

    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True, **options)

    def mix(self, x):
        return self.attention(x, x, x)[0]


@specimen(TOKENS, cut=("embed",))
class MultiheadBatchFirst(_Multihead):
    """Self-attention; `embed_dim` is the stream's width, and the heads' dimensions go with it."""


@specimen(TOKENS, cut=("embed",))
class MultiheadSequenceFirst(Stream):
    """The usual layout of torch: positions first; weights are asked for, and dropped."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, HEADS, dropout=0.1)

    def mix(self, x):
        x = x.transpose(0, 1)
        out, weights = self.attention(x, x, x, need_weights=True)
        return out.transpose(0, 1) + weights.mean() * 0


@specimen(TOKENS, cut=("embed",))
class MultiheadWithoutWeights(_Multihead):
    """No weights asked for: torch takes `scaled_dot_product_attention`."""

    def mix(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@specimen(TOKENS, cut=("embed",))
class MultiheadWeightsUsed(_Multihead):
    """The weights of each head are part of the answer."""

    def mix(self, x):
        out, weights = self.attention(x, x, x, average_attn_weights=False)
        return out * weights.amax((1, 3)).unsqueeze(-1)


@specimen(TOKENS, cut=("embed",))
class MultiheadMasked(_Multihead):
    """A causal mask and a padding mask."""

    def mix(self, x):
        mask = torch.triu(torch.full((6, 6), float("-inf"), dtype=x.dtype, device=x.device), diagonal=1)
        padding = torch.zeros(x.shape[0], 6, dtype=x.dtype, device=x.device)
        return self.attention(x, x, x, key_padding_mask=padding, attn_mask=mask, need_weights=False)[0]


@specimen(TOKENS, cut=("embed",))
class MultiheadWithoutBias(_Multihead):
    """No biases."""

    def __init__(self):
        super().__init__(bias=False)


@specimen((TOKENS, torch.zeros(2, 5, 10)), cut=("embed", "context"))
class MultiheadCross(_Multihead):
    """Queries from the stream, keys and values from another one; each side has its own width."""

    def __init__(self):
        super().__init__(kdim=8, vdim=8)
        self.context = nn.Linear(10, 8)

    def forward(self, x, other):
        x, other = self.embed(x), F.relu(self.context(other))
        return self.head((x + self.attention(self.norm(x), other, other, need_weights=False)[0]).mean(1))


@specimen(TOKENS, cut=("embed", "context"))
class MultiheadKeyAndValueWidths(_Multihead):
    """`kdim` and `vdim` both differ from the width of the queries."""

    def __init__(self):
        super().__init__(kdim=8, vdim=10)
        self.context, self.values = nn.Linear(CHANNELS, 8), nn.Linear(CHANNELS, 10)

    def mix(self, x):
        return self.attention(x, self.context(x), self.values(x), need_weights=False)[0]


@specimen(TOKENS, cut=("embed",))
class MultiheadExtraKey(_Multihead):
    """`add_bias_kv` and `add_zero_attn`: a learned key and a zero one beside the others."""

    def __init__(self):
        super().__init__(add_bias_kv=True, add_zero_attn=True)


@specimen(TOKENS, cut=("embed", "layer.linear1"))
class EncoderLayer(Stream):
    """`nn.TransformerEncoderLayer`, norms behind: in eval mode torch runs it as one fused operation."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(CHANNELS, HEADS, 24, batch_first=True)

    def mix(self, x):
        return self.layer(x)


@specimen(TOKENS, cut=("embed", "encoder.layers.0.linear1", "encoder.layers.1.linear1"))
class Encoder(Stream):
    """`nn.TransformerEncoder` of two layers, norms before, positions first."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(CHANNELS, HEADS, 24, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(CHANNELS), enable_nested_tensor=False)

    def mix(self, x):
        return self.encoder(x.transpose(0, 1)).transpose(0, 1)


@specimen((TOKENS, torch.zeros(2, 5, 12)), cut=("embed", "layer.linear1"))
class DecoderLayer(Stream):
    """`nn.TransformerDecoderLayer`: self-attention, and attention to another sequence."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(CHANNELS, HEADS, 24, batch_first=True)

    def forward(self, x, memory):
        return self.head(self.layer(self.embed(x), self.embed(memory)).mean(1))
