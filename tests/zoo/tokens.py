"""Parts of the little models that work on tokens."""

from __future__ import annotations

import torch
from torch import nn

TOKENS = torch.zeros(2, 6, 12)
CHANNELS = 16
HEADS = 2
DIMS = 8


class Stream(nn.Module):
    """Tokens of 12 numbers become a stream of 16 channels; something is added to it; a head reads the average."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(12, CHANNELS), nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 4)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the stream, (B, N, 16) from (B, N, 16)."""
        raise NotImplementedError

    def forward(self, x):
        x = self.embed(x)
        x = x + self.mix(self.norm(x))
        return self.head(x.mean(1))


class Projected(Stream):
    """Queries, keys and values from one linear layer, and one linear layer behind."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims = HEADS, DIMS
        self.qkv, self.proj = nn.Linear(CHANNELS, 3 * HEADS * DIMS), nn.Linear(HEADS * DIMS, CHANNELS)

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return queries, keys and values, (B, heads, N, dims) each."""
        b, n, _ = x.shape
        return self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4).unbind(0)

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, heads, N, dims) as channels, projected."""
        return self.proj(x.transpose(1, 2).flatten(2))


class Separate(Stream):
    """Queries, keys and values from a linear layer each; values are narrower or wider on request."""

    def __init__(self, heads: int = HEADS, kv_heads: int = HEADS, dims: int = DIMS, value_dims: int = DIMS):
        super().__init__()
        self.heads, self.kv_heads, self.dims, self.value_dims = heads, kv_heads, dims, value_dims
        self.q, self.k = nn.Linear(CHANNELS, heads * dims), nn.Linear(CHANNELS, kv_heads * dims)
        self.v, self.proj = nn.Linear(CHANNELS, kv_heads * value_dims), nn.Linear(heads * value_dims, CHANNELS)

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries (B, heads, N, dims), keys and values (B, kv_heads, N, ...)."""
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.dims).transpose(1, 2)
        k = self.k(x).view(b, n, self.kv_heads, self.dims).transpose(1, 2)
        v = self.v(x).view(b, n, self.kv_heads, self.value_dims).transpose(1, 2)
        return q, k, v

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, heads, N, value_dims) as channels, projected."""
        return self.proj(x.transpose(1, 2).flatten(2))
