"""Attention that costs no square of the positions, and attention with few queries: channels, kernels, latents."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import conv
from tests.zoo.registry import specimen
from tests.zoo.tokens import CHANNELS, DIMS, HEADS, TOKENS, Projected, Separate, Stream

FUSED = ("embed", "qkv")
APART = ("embed", "q", "k", "v")
MAP = torch.zeros(2, 3, 6, 6)


# -- without the square of the positions -----------------------------------------------------------------------------


@specimen(TOKENS, cut=FUSED, reference="mask")
class CrossCovariance(Projected):
    """XCiT: channels attend to channels, normalised over the positions, with a temperature for each head."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))

    def mix(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 4, 1).unbind(0)
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.proj((weights.softmax(dim=-1) @ v).permute(0, 3, 1, 2).flatten(2))


@specimen(TOKENS, cut=APART, reference="mask")
class LinearByElu(Separate):
    """Features elu + 1, keys times values first, divided by the sum of the weights."""

    def mix(self, x):
        q, k, v = self.parts(x)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        context = torch.einsum("bhnd,bhne->bhde", k, v)
        total = 1 / (torch.einsum("bhnd,bhd->bhn", q, k.sum(dim=2)) + 1e-6)
        return self.joined(torch.einsum("bhnd,bhde,bhn->bhne", q, context, total))


@specimen(TOKENS, cut=FUSED, reference="mask")
class LinearBySoftmax(Projected):
    """Efficient attention: a softmax of the queries over dimensions, of the keys over positions."""

    def mix(self, x):
        q, k, v = self.parts(x)
        q, k = q.softmax(dim=-1) * self.dims**-0.5, k.softmax(dim=-2)
        return self.joined(q @ (k.transpose(-2, -1) @ v))


@specimen(MAP, cut=("stem", "qkv"))
class LinearByRelu(nn.Module):
    """EfficientViT: ReLU features; the sum of the weights by a column of ones beside the values."""

    def __init__(self):
        super().__init__()
        self.dims, self.stem = 4, conv(3, 8)
        self.qkv, self.proj, self.head = conv(8, 24, 1, bias=False), conv(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        b, _, h, w = x.shape
        q, k, v = self.qkv(x).reshape(b, -1, 3 * self.dims, h * w).transpose(-1, -2).chunk(3, dim=-1)
        q, k, v = F.relu(q), F.relu(k).transpose(-1, -2), F.pad(v, (0, 1), mode="constant", value=1.0)
        out = q @ (k @ v)
        out = out[..., :-1] / (out[..., -1:] + 1e-5)
        out = out.transpose(-1, -2).reshape(b, -1, h, w)
        return self.head((x + self.proj(out)).mean((2, 3)))


@specimen(MAP, cut=("stem", "qkv.0"))
class LeViTAttention(nn.Module):
    """LeViT: narrow keys, wide values, biases by position, hardswish, batch norms over flattened tokens."""

    def __init__(self):
        super().__init__()
        self.heads, self.key_dim, self.val_dim = 2, 4, 8
        self.stem, self.qkv = conv(3, 12), nn.Sequential(nn.Linear(12, 32, bias=False), nn.BatchNorm1d(32))
        self.proj, self.norm, self.head = nn.Linear(16, 12, bias=False), nn.BatchNorm1d(12), nn.Linear(12, 4)
        self.biases = nn.Parameter(torch.zeros(2, 36))
        places = torch.arange(36)
        self.register_buffer("index", (places[:, None] - places[None, :]).abs())

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        b, n, _ = x.shape
        qkv = self.qkv[1](self.qkv[0](x).flatten(0, 1)).reshape(b, n, -1)
        parts = qkv.view(b, n, self.heads, -1).split([self.key_dim, self.key_dim, self.val_dim], dim=3)
        q, k, v = parts[0].permute(0, 2, 1, 3), parts[1].permute(0, 2, 3, 1), parts[2].permute(0, 2, 1, 3)
        scores = q @ k * self.key_dim**-0.5 + self.biases[:, self.index]
        out = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, self.heads * self.val_dim)
        return self.head((x + self.norm(self.proj(F.hardswish(out)).flatten(0, 1)).view(b, n, -1)).mean(1))


# -- few queries -----------------------------------------------------------------------------------------------------


@specimen(TOKENS, cut=FUSED)
class ClassToken(Projected):
    """A learned token before the others, and positions added to all; the head reads the first."""

    def __init__(self):
        super().__init__()
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, CHANNELS)), nn.Parameter(torch.zeros(1, 7, CHANNELS))

    def forward(self, x):
        x = self.embed(x)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.places
        x = x + self.joined(F.scaled_dot_product_attention(*self.parts(self.norm(x))))
        return self.head(x[:, 0])


@specimen(TOKENS, cut=FUSED)
class RegisterTokens(Projected):
    """A class token and four registers, positions on the patches only; patches are averaged behind the registers."""

    def __init__(self):
        super().__init__()
        self.prefix = 5
        self.token, self.registers = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(1, 4, 16))
        self.places = nn.Parameter(torch.zeros(1, 6, 16))

    def forward(self, x):
        x = self.embed(x) + self.places
        start = [self.token.expand(len(x), -1, -1), self.registers.expand(len(x), -1, -1)]
        x = torch.cat([*start, x], 1)
        x = self.norm(x + self.joined(F.scaled_dot_product_attention(*self.parts(x))))
        return self.head(x[:, 0] + x[:, self.prefix :].mean(1))


@specimen(TOKENS, cut=APART)
class ClassAttention(Separate):
    """CaiT: only the class token asks; it is put back before the others."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, CHANNELS))

    def forward(self, x):
        x = self.embed(x)
        token = self.token.expand(x.shape[0], -1, -1)
        seen = self.norm(torch.cat((token, x), dim=1))
        b, n, _ = seen.shape
        q = self.q(seen[:, 0]).unsqueeze(1).reshape(b, 1, self.heads, self.dims).permute(0, 2, 1, 3)
        k = self.k(seen).reshape(b, n, self.heads, self.dims).permute(0, 2, 1, 3)
        v = self.v(seen).reshape(b, n, self.heads, self.dims).permute(0, 2, 1, 3)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, 1, self.heads * self.dims)
        return self.head(torch.cat([token + self.proj(out), x], dim=1)[:, 0])


@specimen(TOKENS, cut=("embed", "kv"))
class LatentPooling(Stream):
    """Attention pooling: a learned latent asks, its query has a layer of its own."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims = HEADS, DIMS
        self.latent = nn.Parameter(torch.zeros(1, 1, 12))
        self.q, self.kv, self.proj = nn.Linear(12, 16), nn.Linear(CHANNELS, 32), nn.Linear(16, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.norm(self.embed(x))
        b, n, _ = x.shape
        q = self.q(self.latent.expand(b, -1, -1)).reshape(b, 1, self.heads, self.dims).transpose(1, 2)
        k, v = self.kv(x).reshape(b, n, 2, self.heads, self.dims).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, 1, -1)
        return self.head(self.proj(out)[:, 0])


@specimen(TOKENS, cut=("embed", "q", "k", "v", "up"))
class LatentArray(Separate):
    """Perceiver: a learned array of four latents asks the tokens, and has its own layers behind."""

    def __init__(self):
        super().__init__()
        self.latents, self.latent_norm = nn.Parameter(torch.zeros(4, CHANNELS)), nn.LayerNorm(CHANNELS)
        self.up, self.down = nn.Linear(CHANNELS, 32), nn.Linear(32, CHANNELS)

    def forward(self, x):
        x = self.norm(self.embed(x))
        latents = self.latents.unsqueeze(0).repeat(x.shape[0], 1, 1)
        normed = self.latent_norm(latents)
        q = self.q(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.k, self.v))
        latents = latents + self.joined(F.scaled_dot_product_attention(q, k, v))
        return self.head((latents + self.down(F.gelu(self.up(latents)))).mean(1))


@specimen((torch.zeros(2, 3, 6, 6), torch.tensor([[1, 2, 0], [3, 1, 1]])), cut=("image.0", "words"))
class TwoTowers(nn.Module):
    """Pictures and words into one space: two towers, normalised, compared by a product and a learned factor."""

    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(conv(3, 12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 8))
        self.words, self.places = nn.Embedding(5, 16), nn.Parameter(torch.zeros(3, 16))
        self.norm, self.text = nn.LayerNorm(16), nn.Parameter(torch.zeros(16, 8))
        self.factor = nn.Parameter(torch.ones([]))

    def forward(self, picture, words):
        image = self.image(picture)
        text = self.norm(self.words(words) + self.places)
        text = text[torch.arange(text.shape[0]), words.argmax(dim=-1)] @ self.text
        image, text = (part / part.norm(dim=-1, keepdim=True) for part in (image, text))
        scores = self.factor.exp() * image @ text.t()
        return scores, scores.t()


@specimen(TOKENS, cut=("embed", "qkv"))
class Memory(Projected):
    """Keys and values of a first pass are put before those of a second one (a cache, as generation has it)."""

    def mix(self, x):
        _, k0, v0 = self.parts(x[:, :3])
        q, k, v = self.parts(x[:, 3:])
        k, v = torch.cat((k0, k), dim=2), torch.cat((v0, v), dim=-2)
        return F.pad(self.joined(F.scaled_dot_product_attention(q, k, v)), (0, 0, 3, 0))
