"""Convolutions and attention in one network: detectors with queries, token pyramids, convolutional transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import conv_norm
from tests.zoo.registry import specimen

SCENE = torch.zeros(2, 3, 64, 64)
PICTURE = torch.zeros(2, 3, 32, 32)


@dataclass
class Detections:
    """What `HybridDetector` returns."""

    logits: torch.Tensor
    boxes: torch.Tensor


# -- a CNN, one encoder layer on its last map, a pyramid, queries taken from it ----------------------------------------


class MapEncoder(nn.Module):
    """One layer of attention over the places of a map, with waves as positions."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.width = width
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def _positions(self, height: int, width: int, like: torch.Tensor) -> torch.Tensor:
        y, x = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (height, width))
        y, x = torch.meshgrid(y, x, indexing="ij")
        rates = 100.0 ** -torch.linspace(0, 1, self.width // 4, device=like.device, dtype=like.dtype)
        waves = [place.flatten()[:, None] @ rates[None] for place in (x, y)]
        return torch.cat([part for wave in waves for part in (wave.sin(), wave.cos())], dim=1)[None]

    def forward(self, x):
        _, c, h, w = x.shape
        tokens = x.flatten(2).permute(0, 2, 1)
        query = tokens + self._positions(h, w, x)
        tokens = self.norm1(tokens + self.self_attn(query, query, value=tokens, need_weights=False)[0])
        tokens = self.norm2(tokens + self.linear2(F.gelu(self.linear1(tokens))))
        return tokens.permute(0, 2, 1).reshape(-1, c, h, w).contiguous()


class Fusion(nn.Module):
    """Two paths over a concatenation, one through blocks of a 3x3 and a 1x1 side by side; their sum goes on."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.one, self.other = conv_norm(inputs, outputs, 1), conv_norm(inputs, outputs, 1)
        self.wide = nn.ModuleList(conv_norm(outputs, outputs) for _ in range(2))
        self.narrow = nn.ModuleList(conv_norm(outputs, outputs, 1) for _ in range(2))

    def forward(self, x):
        y = self.one(x)
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            y = F.silu(wide(y) + narrow(y))
        return y + self.other(x)


@specimen(
    SCENE,
    cut=("stages.0.0", "stages.1.0", "stages.2.0", "encoder.linear1", "down.one.0", "down.other.0", "score_hidden"),
    whole=("score", "box.2"),
)
class HybridDetector(nn.Module):
    """RT-DETR: attention over the last map only, a pyramid by convolutions, the best places become queries."""

    def __init__(self, width: int = 24, classes: int = 5, queries: int = 6):
        super().__init__()
        self.num_queries = queries
        self.stem = nn.Sequential(conv_norm(3, 8, stride=2), conv_norm(8, 12, stride=2))
        self.stages = nn.ModuleList(conv_norm(a, b, stride=2) for a, b in ((12, 16), (16, 24), (24, 32)))
        self.project = nn.ModuleList(conv_norm(a, width, 1) for a in (24, 32))
        self.encoder = MapEncoder(width, 4, 2 * width)
        self.lateral, self.up, self.step = conv_norm(width, width, 1), Fusion(2 * width, width), conv_norm(width, width)
        self.pool, self.down = conv_norm(width, width, stride=2), Fusion(2 * width, width)
        self.score_hidden, self.score = nn.Linear(width, width), nn.Linear(width, classes)
        self.box = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        self.mix = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps = [project(level) for project, level in zip(self.project, maps[1:], strict=True)]
        top = self.lateral(self.encoder(maps[-1]))
        middle = self.up(torch.cat([F.interpolate(top, scale_factor=2.0, mode="nearest"), maps[0]], dim=1))
        last = self.down(torch.cat([self.pool(self.step(middle)), top], dim=1))
        memory = torch.cat([level.flatten(2).permute(0, 2, 1) for level in (middle, last)], dim=1)
        hidden = F.relu(self.score_hidden(memory))
        best = torch.topk(self.score(hidden).max(-1).values, self.num_queries, dim=1).indices
        queries = memory.gather(dim=1, index=best.unsqueeze(-1).repeat(1, 1, memory.shape[-1]))
        queries = self.norm(queries + self.mix(queries, memory, memory)[0])
        return Detections(self.score(F.relu(self.score_hidden(queries))), self.box(queries).sigmoid())


# -- a transformer with queries of its own -----------------------------------------------------------------------------


@specimen(
    SCENE,
    cut=(
        "backbone.0.0",
        "backbone.1.0",
        "project",
        "queries",
        "transformer.encoder.layers.0.linear1",
        "transformer.encoder.layers.0.self_attn.out_proj",
        "transformer.decoder.layers.0.linear1",
        "transformer.decoder.layers.1.multihead_attn.out_proj",
    ),
    whole=("classes", "boxes.2"),
)
class QueryDetector(nn.Module):
    """DETR: an encoder and a decoder, learned queries, rows and columns as positions, a dict of outputs."""

    def __init__(self, width: int = 16, classes: int = 5, queries: int = 7):
        super().__init__()
        self.backbone = nn.Sequential(
            conv_norm(3, 8, stride=2), conv_norm(8, 12, stride=2), conv_norm(12, 24, stride=2)
        )
        self.project = nn.Conv2d(24, width, 1)
        self.transformer = nn.Transformer(width, 2, 1, 2, 2 * width, batch_first=True)
        self.queries = nn.Embedding(queries, width)
        self.rows, self.columns = nn.Embedding(10, width // 2), nn.Embedding(10, width // 2)
        self.classes = nn.Linear(width, classes + 1)
        self.boxes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, x):
        features = self.project(self.backbone(x))
        h, w = features.shape[-2:]
        rows, columns = (table.weight[:size] for table, size in ((self.rows, h), (self.columns, w)))
        places = torch.cat([columns[None].repeat(h, 1, 1), rows[:, None].repeat(1, w, 1)], -1).flatten(0, 1)[None]
        queries = self.queries.weight.unsqueeze(0).repeat(len(x), 1, 1)
        found = self.transformer(places + features.flatten(2).permute(0, 2, 1), queries)
        return {"pred_logits": self.classes(found), "pred_boxes": self.boxes(found).sigmoid()}


# -- a pyramid of tokens -----------------------------------------------------------------------------------------------


class ReducedAttention(nn.Module):
    """Keys and values come from a map that a strided convolution has made smaller."""

    def __init__(self, dim: int, heads: int, ratio: int):
        super().__init__()
        self.num_heads, self.head_dim, self.ratio = heads, dim // heads, ratio
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        if ratio > 1:
            self.sr, self.norm = nn.Conv2d(dim, dim, ratio, ratio), nn.LayerNorm(dim)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], -1, self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, x, height, width):
        batch, _, channels = x.shape
        q, source = self._heads(self.query(x)), x
        if self.ratio > 1:
            source = self.sr(x.permute(0, 2, 1).reshape(batch, channels, height, width))
            source = self.norm(source.reshape(batch, channels, -1).permute(0, 2, 1))
        k, v = self._heads(self.key(source)), self._heads(self.value(source))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)).softmax(-1)
        context = (weights @ v).transpose(1, 2).contiguous()
        return self.out(context.view(*context.shape[:-2], self.num_heads * self.head_dim))


class MixedForward(nn.Module):
    """A feed-forward part on tokens with a depthwise convolution in it, for which they become a map."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)

    def forward(self, x, height, width):
        x = self.dense1(x)
        batch, _, channels = x.shape
        x = self.dwconv(x.transpose(1, 2).view(batch, channels, height, width)).flatten(2).transpose(1, 2)
        return self.dense2(F.gelu(x))


class TokenStage(nn.Module):
    """Overlapping patches, then one layer."""

    def __init__(self, inputs: int, dim: int, patch: int, stride: int, ratio: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(inputs, dim, patch, stride, patch // 2), nn.LayerNorm(dim)
        self.norm1, self.attn = nn.LayerNorm(dim), ReducedAttention(dim, 2, ratio)
        self.norm2, self.mlp, self.last = nn.LayerNorm(dim), MixedForward(dim, 2 * dim), nn.LayerNorm(dim)

    def forward(self, x):
        x = self.proj(x)
        batch, _, height, width = x.shape
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = x + self.attn(self.norm1(x), height, width)
        x = self.last(x + self.mlp(self.norm2(x), height, width))
        return x.reshape(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()


@specimen(
    PICTURE,
    cut=(
        "stages.0.proj",
        "stages.0.attn.query",
        "stages.0.mlp.dense1",
        "stages.1.mlp.dwconv",
        "linear_c.0",
        "linear_c.1",
        "linear_fuse",
    ),
    whole=("classifier",),
)
class TokenPyramid(nn.Module):
    """SegFormer: keys and values from a reduced map, depthwise convolutions on tokens, a decoder of linear layers."""

    def __init__(self, dims: tuple[int, ...] = (16, 24), decoder: int = 20, classes: int = 4):
        super().__init__()
        self.stages = nn.ModuleList([TokenStage(3, dims[0], 7, 4, 2), TokenStage(dims[0], dims[1], 3, 2, 1)])
        self.linear_c = nn.ModuleList(nn.Linear(dim, decoder) for dim in dims)
        self.linear_fuse, self.norm = nn.Conv2d(2 * decoder, decoder, 1, bias=False), nn.BatchNorm2d(decoder)
        self.classifier = nn.Conv2d(decoder, classes, 1)

    def forward(self, x):
        maps = []
        for stage, linear in zip(self.stages, self.linear_c, strict=True):
            x = stage(x)
            batch, _, height, width = x.shape
            tokens = linear(x.flatten(2).transpose(1, 2))
            maps.append(tokens.permute(0, 2, 1).reshape(batch, -1, height, width))
        size = maps[0].size()[2:]
        maps = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in maps]
        return self.classifier(F.relu(self.norm(self.linear_fuse(torch.cat(maps[::-1], dim=1)))))


# -- convolutions in the manner of transformers ------------------------------------------------------------------------


class ChannelsFirstNorm(nn.Module):
    """A layer norm over dimension 1, written out."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), 1e-6

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(spread + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class PermutedBlock(nn.Module):
    """A depthwise convolution, then linear layers with the channels last; a learned scale a channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv, self.layernorm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.layer_scale_parameter = nn.Parameter(1e-6 * torch.ones(dim)) if dim > 0 else None

    def forward(self, x):
        y = self.layernorm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(F.gelu(self.pwconv1(y)))
        if self.layer_scale_parameter is not None:
            y = self.layer_scale_parameter * y
        return x + y.permute(0, 3, 1, 2)


@specimen(
    PICTURE,
    cut=("embed", "blocks.0.pwconv1", "blocks.0.pwconv2", "blocks.1.dwconv", "reduce"),
    whole=("classifier",),
    reference="mask",
)
class PermutedConvolutions(nn.Module):
    """ConvNeXt: permuted there and back in every block, layer scales, a norm over channels written out."""

    def __init__(self, dims: tuple[int, int] = (12, 16)):
        super().__init__()
        self.embed, self.embed_norm = nn.Conv2d(3, dims[0], 4, 4), ChannelsFirstNorm(dims[0])
        self.blocks = nn.ModuleList(PermutedBlock(dim) for dim in dims)
        self.reduce_norm, self.reduce = ChannelsFirstNorm(dims[0]), nn.Conv2d(dims[0], dims[1], 2, 2)
        self.layernorm, self.classifier = nn.LayerNorm(dims[1]), nn.Linear(dims[1], 5)

    def forward(self, pixel_values):
        x = self.blocks[0](self.embed_norm(self.embed(pixel_values)))
        x = self.blocks[1](self.reduce(self.reduce_norm(x)))
        return self.classifier(self.layernorm(x.mean([-2, -1])))
