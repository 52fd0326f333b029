"""Vision transformers as others write them: config objects, dataclass outputs, heads by view, windows, queries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.registry import specimen

PICTURE = torch.zeros(2, 3, 32, 32)


@dataclass
class Config:
    """What a model is built from; its modules keep it and read it again in the forward."""

    hidden_size: int = 24
    num_attention_heads: int = 4
    intermediate_size: int = 48
    num_hidden_layers: int = 2
    num_channels: int = 3
    image_size: int = 32
    patch_size: int = 8
    num_labels: int = 5
    window_size: int = 4
    dropout: float = 0.1
    depths: tuple[int, ...] = (1, 2)
    hidden_sizes: list[int] = field(default_factory=lambda: [16, 24])
    sr_ratios: tuple[int, ...] = (4, 2)


@dataclass
class EncoderOutput:
    """What an encoder returns."""

    last_hidden_state: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class ClassifierOutput:
    """What a classifier returns."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None


# -- plain vision transformer ------------------------------------------------------------------------------------------


class HeadwiseAttention(nn.Module):
    """Query, key and value by layers of their own; heads by a view to `shape[:-1] + (heads, head size)`."""

    def __init__(self, config: Config):
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = int(config.hidden_size / config.num_attention_heads)
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, self.all_head_size) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def transpose_for_scores(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.size()[:-1], self.num_attention_heads, self.attention_head_size)
        return x.view(shape).permute(0, 2, 1, 3)

    def forward(self, x, bias=None):
        q, k, v = (self.transpose_for_scores(layer(x)) for layer in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.attention_head_size)
        scores = scores if bias is None else scores + bias
        context = torch.matmul(self.dropout(F.softmax(scores, dim=-1)), v).permute(0, 2, 1, 3).contiguous()
        return context.view((*context.size()[:-2], self.all_head_size))


class TransformerLayer(nn.Module):
    """Norm, attention, norm, feed-forward part, each with a residual."""

    def __init__(self, config: Config):
        super().__init__()
        self.layernorm_before, self.layernorm_after = (nn.LayerNorm(config.hidden_size, eps=1e-12) for _ in range(2))
        self.attention, self.output = HeadwiseAttention(config), nn.Linear(config.hidden_size, config.hidden_size)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.mlp_output = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x):
        x = x + self.output(self.attention(self.layernorm_before(x)))
        return x + self.mlp_output(F.gelu(self.intermediate(self.layernorm_after(x))))


class PatchTokens(nn.Module):
    """Patches, special tokens in front, positions that are resampled when the picture has another size."""

    def __init__(self, config: Config, special: int = 1):
        super().__init__()
        self.config, self.patch_size, self.special = config, config.patch_size, special
        patches = (config.image_size // config.patch_size) ** 2
        self.tokens = nn.Parameter(torch.zeros(1, special, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.randn(1, patches + special, config.hidden_size))
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)

    def interpolate_pos_encoding(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        patches, places = x.shape[1] - self.special, self.position_embeddings.shape[1] - self.special
        if patches == places and height == width:
            return self.position_embeddings
        dim, side = x.shape[-1], int(places**0.5)
        grid = self.position_embeddings[:, self.special :].reshape(1, side, side, dim).permute(0, 3, 1, 2)
        size = (height // self.patch_size, width // self.patch_size)
        grid = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)
        flat = grid.permute(0, 2, 3, 1).view(1, -1, dim)
        return torch.cat((self.position_embeddings[:, : self.special], flat), dim=1)

    def forward(self, pixel_values, interpolate=False):
        batch, channels, height, width = pixel_values.shape
        if channels != self.config.num_channels:
            raise ValueError("the picture's channels do not fit the configuration")
        x = self.projection(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat((self.tokens.expand(batch, -1, -1), x), dim=1)
        return x + (self.interpolate_pos_encoding(x, height, width) if interpolate else self.position_embeddings)


class _PictureTransformer(nn.Module):
    special = 1

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        self.embeddings = PatchTokens(config, self.special)
        self.layer = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=1e-12)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def encoded(self, pixel_values: torch.Tensor, interpolate: bool, all_states: bool = False) -> EncoderOutput:
        x, states = self.embeddings(pixel_values, interpolate), ()
        for layer in self.layer:
            states = (*states, x)
            x = layer(x)
        return EncoderOutput(self.layernorm(x), states if all_states else None)


HIDDEN = tuple(f"layer.{i}.{name}" for i in range(2) for name in ("intermediate", "mlp_output"))
ATTENTION = tuple(f"layer.{i}.attention.{name}" for i in range(2) for name in ("query", "key", "value"))


@specimen(PICTURE, cut=(*HIDDEN, *ATTENTION, "embeddings.projection"), whole=("classifier",))
class PictureTransformer(_PictureTransformer):
    """A ViT in the manner of a model hub: all_head_size, transpose_for_scores, a dataclass comes out."""

    def forward(self, pixel_values, labels=None):
        logits = self.classifier(self.encoded(pixel_values, False).last_hidden_state[:, 0, :])
        return ClassifierOutput(logits, None if labels is None else F.cross_entropy(logits, labels))


@specimen(
    {"pixel_values": torch.zeros(2, 3, 32, 48), "interpolate_pos_encoding": True},
    cut=(*HIDDEN, *ATTENTION, "embeddings.projection"),
    whole=("classifier",),
)
class ResampledPositions(_PictureTransformer):
    """The same on a picture of another size: positions are resampled as a map and put back in a row."""

    def forward(self, pixel_values, interpolate_pos_encoding=False):
        return ClassifierOutput(
            self.classifier(self.encoded(pixel_values, interpolate_pos_encoding).last_hidden_state[:, 0])
        )


@specimen(PICTURE, cut=(*HIDDEN, *ATTENTION), whole=("classifier", "distillation"))
class DistilledTransformer(_PictureTransformer):
    """DeiT: two special tokens, a head for each, their mean is the answer; a tuple when asked so by the config."""

    special = 2

    def __init__(self):
        super().__init__()
        self.distillation = nn.Linear(self.config.hidden_size, self.config.num_labels)

    def forward(self, pixel_values, return_dict=None):
        x = self.encoded(pixel_values, False).last_hidden_state
        one, other = self.classifier(x[:, 0, :]), self.distillation(x[:, 1, :])
        answer = ((one + other) / 2, one, other)
        return {"logits": answer[0], "heads": answer[1:]} if return_dict else answer


@specimen(
    PICTURE,
    cut=("layer.0.intermediate", "layer.1.intermediate", *ATTENTION),
    whole=("embeddings.projection", "layer.0.mlp_output"),
)
class HiddenStates(_PictureTransformer):
    """Every hidden state comes out: the residual stream leaves the model, what is inside a layer does not."""

    def forward(self, pixel_values):
        return self.encoded(pixel_values, False, all_states=True)


# -- windows -----------------------------------------------------------------------------------------------------------


class WindowLayer(nn.Module):
    """Attention within windows, shifted ones in every second layer, with a table of relative positions."""

    def __init__(self, config: Config, dim: int, resolution: int, shift: int):
        super().__init__()
        self.window_size, self.shift_size, self.input_resolution = config.window_size, shift, (resolution, resolution)
        self.config = Config(hidden_size=dim, intermediate_size=2 * dim, num_attention_heads=2)
        self.norm, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.output = HeadwiseAttention(self.config), nn.Linear(dim, dim)
        self.intermediate, self.mlp_output = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        side = config.window_size
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, self.config.num_attention_heads))
        places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None, :] + side - 1).permute(1, 2, 0)
        self.register_buffer("index", apart[..., 0] * (2 * side - 1) + apart[..., 1])

    def _bias(self) -> torch.Tensor:
        area = self.window_size * self.window_size
        return self.table[self.index.view(-1)].view(area, area, -1).permute(2, 0, 1).contiguous().unsqueeze(0)

    def _mask(self, height: int, width: int, like: torch.Tensor) -> torch.Tensor | None:
        if self.shift_size == 0:
            return None
        region, count = torch.zeros((1, height, width, 1), dtype=like.dtype, device=like.device), 0
        cuts = (slice(0, -self.window_size), slice(-self.window_size, -self.shift_size), slice(-self.shift_size, None))
        for down in cuts:
            for across in cuts:
                region[:, down, across, :] = count
                count += 1
        windows = partitioned(region, self.window_size).view(-1, self.window_size * self.window_size)
        apart = windows.unsqueeze(1) - windows.unsqueeze(2)
        return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)

    def forward(self, x, size):
        height, width = size
        batch, _, channels = x.size()
        shortcut, x = x, self.norm(x).view(batch, height, width, channels)
        right, bottom = (-width) % self.window_size, (-height) % self.window_size
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        _, tall, wide, _ = x.shape
        if self.shift_size > 0:
            x = torch.roll(x, shifts=(-self.shift_size, -self.shift_size), dims=(1, 2))
        windows = partitioned(x, self.window_size).view(-1, self.window_size * self.window_size, channels)
        bias, mask = self._bias(), self._mask(tall, wide, x)
        if mask is not None:
            bias = bias + mask.repeat(batch, 1, 1).unsqueeze(1)
        windows = self.output(self.attention(windows, bias)).view(-1, self.window_size, self.window_size, channels)
        x = put_together(windows, self.window_size, tall, wide)
        if self.shift_size > 0:
            x = torch.roll(x, shifts=(self.shift_size, self.shift_size), dims=(1, 2))
        x = shortcut + x[:, :height, :width, :].contiguous().view(batch, height * width, channels)
        return x + self.mlp_output(F.gelu(self.intermediate(self.after(x))))


def partitioned(x: torch.Tensor, side: int) -> torch.Tensor:
    """Cut maps (N, H, W, C) into windows (N * windows, side, side, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // side, side, width // side, side, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, side, side, channels)


def put_together(windows: torch.Tensor, side: int, height: int, width: int) -> torch.Tensor:
    """Undo `partitioned`."""
    channels = windows.shape[-1]
    windows = windows.view(-1, height // side, width // side, side, side, channels)
    return windows.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, channels)


class PatchMerging(nn.Module):
    """Four neighbours side by side, normed, halved."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim, self.reduction, self.norm = dim, nn.Linear(4 * dim, 2 * dim, bias=False), nn.LayerNorm(4 * dim)

    def forward(self, x, size):
        height, width = size
        batch, _, channels = x.shape
        x = x.view(batch, height, width, channels)
        parts = [x[:, row::2, column::2, :] for column in range(2) for row in range(2)]
        return self.reduction(self.norm(torch.cat(parts, -1).view(batch, -1, 4 * channels)))


@specimen(
    PICTURE,
    cut=("first.intermediate", "second.intermediate", "shifted.attention.query", "second.attention.value", "embed"),
    whole=("classifier",),
)
class WindowTransformer(nn.Module):
    """Swin: windows by view and permute in literal and live sizes, rolled maps, patch merging, a dataclass output."""

    def __init__(self):
        super().__init__()
        config, self.dim = Config(), 16
        self.embed, self.norm = nn.Conv2d(3, self.dim, 4, 4), nn.LayerNorm(self.dim)
        self.first, self.shifted = WindowLayer(config, 16, 8, 0), WindowLayer(config, 16, 8, 2)
        self.merge, self.second = PatchMerging(16), WindowLayer(config, 32, 4, 0)
        self.num_features = 2 * self.dim
        self.layernorm, self.classifier = nn.LayerNorm(self.num_features), nn.Linear(self.num_features, 5)

    def forward(self, pixel_values):
        x = self.embed(pixel_values)
        size = x.shape[-2:]
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = self.merge(self.shifted(self.first(x, size), size), size)
        x = self.layernorm(self.second(x, (size[0] // 2, size[1] // 2)))
        return ClassifierOutput(self.classifier(F.adaptive_avg_pool1d(x.transpose(1, 2), 1).flatten(1)))
