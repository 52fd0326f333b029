"""Attention over pictures: windows, grids, halos, reduced and pooled keys, and the views that lead there."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import conv, pooled_head
from tests.zoo.registry import specimen

MAP = torch.zeros(2, 3, 8, 8)


class _Picture(nn.Module):
    """A picture of 16 channels, channels last; something is added to it; a head reads the average."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 16), nn.LayerNorm(16), nn.Linear(16, 4)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the picture, (B, H, W, C)."""
        raise NotImplementedError

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.mix(self.norm(x))
        return self.head(x.mean((1, 2)))


class _Windows(_Picture):
    """Attention within windows of four by four."""

    def __init__(self):
        super().__init__()
        self.window, self.heads, self.dims = 4, 2, 8
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attend among the second dimension of (B, N, C)."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))


def partitioned(x, window):
    """(B, H, W, C) to (windows, window, window, C)."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window, window, c)


def merged(windows, window, h, w):
    """(windows, window, window, C) to (B, H, W, C)."""
    c = windows.shape[-1]
    x = windows.view(-1, h // window, w // window, window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, h, w, c)


@specimen(MAP, cut=("stem", "qkv"))
class WindowAttention(_Windows):
    """Windows are cut out and put together by views with live widths (timm's Swin)."""

    def mix(self, x):
        _, h, w, c = x.shape
        windows = partitioned(x, self.window).view(-1, self.window * self.window, c)
        return merged(self.attend(windows).view(-1, self.window, self.window, c), self.window, h, w)


@specimen(MAP, cut=("stem", "qkv"))
class ShiftedWindows(_Windows):
    """Windows shifted by `roll`, with a table of relative biases and a mask made from slices."""

    def __init__(self):
        super().__init__()
        self.shift, self.table = 2, nn.Parameter(torch.zeros(49, 2))
        places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        relative = (places[:, :, None] - places[:, None, :]).permute(1, 2, 0) + 3
        self.register_buffer("index", relative[..., 0] * 7 + relative[..., 1])
        self.register_buffer("mask", self.made_mask())

    def made_mask(self) -> torch.Tensor:
        regions = torch.zeros(1, 8, 8, 1)
        for number, rows in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
            regions[:, rows] = number
        flat = partitioned(regions, 4).view(-1, 16)
        return (flat[:, None] - flat[:, :, None]).ne(0).float() * -100

    def attend(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4)
        scores = q * self.dims**-0.5 @ k.transpose(-2, -1)
        scores = scores + self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1).unsqueeze(0)
        count = self.mask.shape[0]
        scores = scores.view(b // count, count, self.heads, n, n) + self.mask[None, :, None]
        scores = scores.view(-1, self.heads, n, n).softmax(dim=-1)
        return self.proj((scores @ v).transpose(1, 2).flatten(2))

    def mix(self, x):
        _, h, w, c = x.shape
        shifted = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = partitioned(shifted, self.window).view(-1, 16, c)
        x = merged(self.attend(windows).view(-1, self.window, self.window, c), self.window, h, w)
        return torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))


@specimen(MAP)
class WindowsByStreamWidth(_Windows):
    """torchvision's Swin: padded, windows in one view, heads measured by the stream (`C // heads`)."""

    def mix(self, x):
        b, h, w, c = x.shape
        x = F.pad(x, (0, 0, 0, 0, 0, 0))
        count = (h // 4) * (w // 4)
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b * count, 16, c)
        qkv = F.linear(x, self.qkv.weight, self.qkv.bias)
        qkv = qkv.reshape(x.size(0), x.size(1), 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        q = q * (c // self.heads) ** -0.5
        x = q.matmul(k.transpose(-2, -1)).softmax(-1).matmul(v).transpose(1, 2).reshape(x.size(0), x.size(1), c)
        x = F.linear(x, self.proj.weight, self.proj.bias)
        return x.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)


@specimen(MAP, cut=("stem", "qkv"))
class CosineWindows(_Windows):
    """Swin v2: queries and keys of length one, a clamped factor a head, biases from a little network."""

    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.ones(2, 1, 1))
        self.biases = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 2, bias=False))
        places = torch.arange(16)
        offsets = torch.stack([(places % 4)[:, None] - (places % 4), (places // 4)[:, None] - places // 4], -1)
        self.register_buffer("offsets", offsets.float())

    def attend(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = scores * torch.clamp(self.logit_scale, max=4.6).exp()
        scores = scores + 16 * torch.sigmoid(self.biases(self.offsets).permute(2, 0, 1)).unsqueeze(0)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1))

    def mix(self, x):
        _, h, w, c = x.shape
        return merged(self.attend(partitioned(x, 4).flatten(1, 2)).view(-1, 4, 4, c), 4, h, w)


@specimen(MAP, cut=("stem", "qkv"))
class GridAttention(_Windows):
    """MaxViT: attention among places with the same offset, windows and grid one after the other."""

    def mix(self, x):
        b, h, w, c = x.shape
        grid = x.view(b, 4, h // 4, 4, w // 4, c).permute(0, 2, 4, 1, 3, 5).reshape(-1, 16, c)
        grid = self.attend(grid).view(b, h // 4, w // 4, 4, 4, c)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(b, h, w, c)


@specimen(MAP, cut=("stem", "wide", "last"))
class MergedCorners(_Picture):
    """Four neighbours side by side, a norm over all of them, a linear layer (Swin)."""

    def __init__(self):
        super().__init__()
        self.wide, self.merge_norm = nn.Linear(16, 16), nn.LayerNorm(64)
        self.reduce, self.last, self.head = nn.Linear(64, 24, bias=False), nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + F.gelu(self.wide(x))
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        x = self.reduce(self.merge_norm(torch.cat(corners, -1)))
        return self.head(F.gelu(self.last(x)).mean((1, 2)))


@specimen(MAP, cut=("stem",))
class MergedByView(_Picture):
    """The same by one view of six dimensions (timm)."""

    def __init__(self):
        super().__init__()
        self.merge_norm, self.reduce, self.head = nn.LayerNorm(64), nn.Linear(64, 24, bias=False), nn.Linear(24, 4)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.head(F.relu(self.reduce(self.merge_norm(x))).mean((1, 2)))


@specimen(MAP, cut=("stem", "reduce", "q", "kv"))
class SpatialReduction(_Picture):
    """PVT: keys and values from a picture that a strided convolution made smaller."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims = 2, 8
        self.q, self.kv, self.proj = nn.Linear(16, 16), nn.Linear(12, 32), nn.Linear(16, 16)
        self.reduce, self.reduce_norm = nn.Conv2d(16, 12, 2, stride=2), nn.LayerNorm(12)

    def mix(self, x):
        b, h, w, c = x.shape
        q = self.q(x.reshape(b, h * w, c)).view(b, h * w, self.heads, self.dims).permute(0, 2, 1, 3)
        small = self.reduce(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        kv = self.kv(self.reduce_norm(small)).reshape(b, -1, 2, self.heads, self.dims).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        scores = (q @ k.transpose(-2, -1) * self.dims**-0.5).softmax(dim=-1)
        return self.proj((scores @ v).transpose(1, 2).flatten(2)).view(b, h, w, c)


@specimen(MAP, cut=("stem", "q", "v"))
class OutlookAttention(_Picture):
    """VOLO: weights of a neighbourhood computed from its centre, values unfolded, mixed, and folded back."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims, self.kernel = 2, 8, 3
        self.q, self.v = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.weights, self.proj = nn.Linear(16, 3**4 * 2), nn.Linear(16, 16)

    def mix(self, x):
        b, h, w, _ = x.shape
        v = F.unfold(self.v(x).permute(0, 3, 1, 2), 3, padding=1, stride=2)
        n = v.shape[-1]
        v = v.reshape(b, self.heads, self.dims, 9, n).permute(0, 1, 4, 3, 2)
        pooled = F.avg_pool2d(F.relu(self.q(x)).permute(0, 3, 1, 2), 2, 2, ceil_mode=True).permute(0, 2, 3, 1)
        weights = self.weights(pooled).reshape(b, n, self.heads, 9, 9).permute(0, 2, 1, 3, 4)
        mixed = (weights * self.dims**-0.5).softmax(-1) @ v
        mixed = mixed.permute(0, 1, 4, 3, 2).reshape(b, -1, n)
        return self.proj(F.fold(mixed, (h, w), 3, padding=1, stride=2).permute(0, 2, 3, 1))


@specimen(MAP, cut=("stem", "q", "kv"))
class HaloAttention(_Picture):
    """HaloNet: queries of a block see a larger window, taken by `unfold` along both sides."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims = 2, 8
        self.q, self.kv, self.proj = conv(16, 16, 1), conv(16, 32, 1), nn.Linear(16, 16)

    def mix(self, x):
        x = x.permute(0, 3, 1, 2)
        b, _, h, w = x.shape
        q = self.q(x).reshape(-1, self.dims, 2, 4, 2, 4).permute(0, 1, 3, 5, 2, 4)
        q = q.reshape(b * self.heads, self.dims, -1, 4).transpose(1, 3)
        kv = F.pad(self.kv(x), [1, 1, 1, 1]).unfold(2, 6, 4).unfold(3, 6, 4)
        kv = kv.reshape(b * self.heads, 2 * self.dims, 4, -1).permute(0, 2, 3, 1)
        k, v = torch.split(kv, [self.dims, self.dims], dim=-1)
        mixed = ((q @ k.transpose(-1, -2)) * self.dims**-0.5).softmax(-1) @ v
        mixed = mixed.transpose(1, 3).reshape(-1, 4, 4, 2, 2).permute(0, 3, 1, 4, 2)
        return self.proj(mixed.contiguous().view(b, -1, h, w).permute(0, 2, 3, 1))


@specimen(MAP, cut=("stem",))
class PooledQueries(_Picture):
    """Hiera: queries are pooled by a maximum over mask units, and the width grows with it."""

    def __init__(self):
        super().__init__()
        self.heads, self.dims, self.qkv, self.skip = 2, 12, nn.Linear(16, 72), nn.Linear(16, 24)
        self.proj, self.head = nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, x):
        x = self.norm(self.stem(x).permute(0, 2, 3, 1)).flatten(1, 2)
        b, n, _ = x.shape
        units = 4
        qkv = self.qkv(x).reshape(b, -1, units, 3, self.heads, self.dims).permute(3, 0, 4, 2, 1, 5)
        q, k, v = qkv[0], qkv[1], qkv[2]
        q = q.view(b, self.heads, units, 4, -1, self.dims).amax(dim=3)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 3).reshape(b, -1, self.heads * self.dims)
        skip = self.skip(x).view(b, 4, -1, 24).amax(dim=1) if n % 4 == 0 else x
        return self.head((skip + self.proj(out)).mean(1))


@specimen(MAP, cut=("stem", "f", "h"))
class FocalModulation(_Picture):
    """Contexts of growing size, weighed by gates, multiply the query."""

    def __init__(self):
        super().__init__()
        self.width, self.f, self.h = 16, nn.Linear(16, 2 * 16 + 3), conv(16, 16, 1)
        self.levels = nn.ModuleList(conv(16, 16, kernel, groups=16, bias=False) for kernel in (3, 5))
        self.proj = nn.Linear(16, 16)

    def mix(self, x):
        q, context, gates = torch.split(self.f(x).permute(0, 3, 1, 2), [self.width, self.width, 3], 1)
        total = 0
        for level, layer in enumerate(self.levels):
            context = F.gelu(layer(context))
            total = total + context * gates[:, level : level + 1]
        total = total + F.gelu(context.mean((2, 3), keepdim=True)) * gates[:, 2:]
        return self.proj((q * self.h(total)).permute(0, 2, 3, 1))


@specimen(MAP, cut=("stem", "proj.0"))
class ConvolutionsThenTokens(nn.Module):
    """MobileViT: a convolution, patches unfolded into sequences, a transformer layer, and folded back."""

    def __init__(self):
        super().__init__()
        self.stem, self.into = conv(3, 16), conv(16, 24, 1, bias=False)
        self.qkv, self.back = nn.Linear(24, 72), nn.Linear(24, 24)
        self.proj = nn.Sequential(conv(24, 12, 1), nn.SiLU())
        self.fuse, self.head = conv(28, 12), pooled_head(12)
        self.heads, self.dims = 2, 12

    def attend(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dims).permute(2, 0, 3, 1, 4).unbind(0)
        return x + self.back(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x):
        skip = self.stem(x)
        x = self.into(skip)
        b, c, h, w = x.shape
        x = x.reshape(b * c * h // 2, 2, w // 2, 2).transpose(1, 2)
        x = x.reshape(b, c, h * w // 4, 4).transpose(1, 3).reshape(b * 4, h * w // 4, c)
        x = self.attend(x)
        x = x.contiguous().view(b, 4, h * w // 4, -1).transpose(1, 3)
        x = x.reshape(b * c * h // 2, w // 2, 2, 2).transpose(1, 2).reshape(b, c, h, w)
        return self.head(torch.relu(self.fuse(torch.cat((skip, self.proj(x)), dim=1))))
