"""One-stage detectors: layers routed by number, pyramids, heads whose outputs are classes and boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.zoo.registry import specimen

SCENE = torch.zeros(2, 3, 64, 64)
CLASSES = 5


class ConvUnit(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.SiLU() if act else nn.Identity()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Two convolutions, with a shortcut where the width stays the same."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool = True, kernels: tuple[int, int] = (1, 3)):
        super().__init__()
        self.cv1, self.cv2 = ConvUnit(inputs, outputs, kernels[0]), ConvUnit(outputs, outputs, kernels[1])
        self.add = shortcut and inputs == outputs

    def forward(self, x):
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class CrossStage(nn.Module):
    """Two 1x1 paths side by side, one of them through residual blocks (C3)."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1, shortcut: bool = True):
        super().__init__()
        hidden = outputs // 2
        self.cv1, self.cv2, self.cv3 = (
            ConvUnit(inputs, hidden),
            ConvUnit(inputs, hidden),
            ConvUnit(2 * hidden, outputs),
        )
        self.m = nn.Sequential(*(Residual(hidden, hidden, shortcut) for _ in range(depth)))

    def forward(self, x):
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class GrowingStage(nn.Module):
    """One convolution cut in two; each block adds its output to the pile that is concatenated (C2f)."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1, shortcut: bool = True):
        super().__init__()
        self.c = outputs // 2
        self.cv1 = ConvUnit(inputs, 2 * self.c)
        self.cv2 = ConvUnit((2 + depth) * self.c, outputs)
        self.m = nn.ModuleList(self.block(shortcut) for _ in range(depth))

    def block(self, shortcut: bool) -> nn.Module:
        return Residual(self.c, self.c, shortcut, kernels=(3, 3))

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class NestedStage(GrowingStage):
    """A growing stage whose blocks are cross-stage blocks (C3k2), divided by `split`."""

    def block(self, shortcut: bool) -> nn.Module:
        return CrossStage(self.c, self.c, 2, shortcut)

    def forward(self, x):
        y = list(self.cv1(x).split((self.c, self.c), 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class PyramidPooling(nn.Module):
    """One maximum pool applied again and again, all results side by side (SPPF)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.cv1, self.cv2 = ConvUnit(inputs, inputs // 2), ConvUnit(inputs // 2 * 4, outputs)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


class PlaneAttention(nn.Module):
    """Attention over the places of a map; queries and keys are narrower than values, positions are a depthwise conv."""

    def __init__(self, dim: int, num_heads: int = 2):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.key_dim = self.head_dim // 2
        self.scale = self.key_dim**-0.5
        self.qkv = ConvUnit(dim, dim + 2 * num_heads * self.key_dim, act=False)
        self.proj, self.pe = ConvUnit(dim, dim, act=False), ConvUnit(dim, dim, 3, groups=dim, act=False)

    def forward(self, x):
        b, c, h, w = x.shape
        parts = self.qkv(x).view(b, self.num_heads, self.key_dim * 2 + self.head_dim, h * w)
        q, k, v = parts.split([self.key_dim, self.key_dim, self.head_dim], dim=2)
        weights = ((q.transpose(-2, -1) @ k) * self.scale).softmax(-1)
        x = (v @ weights.transpose(-2, -1)).view(b, c, h, w) + self.pe(v.reshape(b, c, h, w))
        return self.proj(x)


class AttentiveStage(nn.Module):
    """One half passes by, the other goes through attention and a feed-forward part (C2PSA)."""

    def __init__(self, dim: int):
        super().__init__()
        self.c = dim // 2
        self.cv1, self.cv2 = ConvUnit(dim, 2 * self.c), ConvUnit(2 * self.c, dim)
        self.attn = PlaneAttention(self.c)
        self.ffn = nn.Sequential(ConvUnit(self.c, 2 * self.c), ConvUnit(2 * self.c, self.c, act=False))

    def forward(self, x):
        a, b = self.cv1(x).split((self.c, self.c), dim=1)
        b = b + self.attn(b)
        b = b + self.ffn(b)
        return self.cv2(torch.cat((a, b), 1))


class Join(nn.Module):
    """A concatenation that is a layer of its own, as a list of layers needs it."""

    def __init__(self, dimension: int = 1):
        super().__init__()
        self.d = dimension

    def forward(self, maps):
        return torch.cat(maps, self.d)


class AnchorHead(nn.Module):
    """Per place and anchor a row of box, objectness and classes; the grid is made when the shape is new."""

    def __init__(self, widths: tuple[int, ...], classes: int = CLASSES, anchors: int = 3):
        super().__init__()
        self.nc, self.no, self.na, self.nl = classes, classes + 5, anchors, len(widths)
        self.grid = [torch.empty(0) for _ in widths]
        self.register_buffer("anchors", torch.rand(self.nl, anchors, 2) + 0.5)
        self.m = nn.ModuleList(nn.Conv2d(width, self.no * self.na, 1) for width in widths)

    def forward(self, maps):
        maps, rows = list(maps), []
        for i in range(self.nl):
            maps[i] = self.m[i](maps[i])
            b, _, ny, nx = maps[i].shape
            maps[i] = maps[i].view(b, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            if self.grid[i].shape[2:4] != maps[i].shape[2:4]:
                self.grid[i] = self._places(ny, nx, maps[i])
            xy, wh, rest = maps[i].sigmoid().split((2, 2, self.nc + 1), 4)
            size = (wh * 2) ** 2 * self.anchors[i].view(1, self.na, 1, 1, 2)
            rows.append(torch.cat((xy * 2 + self.grid[i], size, rest), 4).view(b, self.na * nx * ny, self.no))
        return maps if self.training else (torch.cat(rows, 1), maps)

    def _places(self, ny: int, nx: int, like: torch.Tensor) -> torch.Tensor:
        y, x = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (ny, nx))
        y, x = torch.meshgrid(y, x, indexing="ij")
        return torch.stack((x, y), 2).expand((1, self.na, ny, nx, 2)) - 0.5


class ExpectedDistance(nn.Module):
    """The expectation of a distribution over `bins` distances, as a fixed 1x1 convolution (DFL)."""

    def __init__(self, bins: int):
        super().__init__()
        self.c1 = bins
        self.conv = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(bins, dtype=torch.float).view(1, bins, 1, 1)

    def forward(self, x):
        b, _, places = x.shape
        return self.conv(x.view(b, 4, self.c1, places).transpose(2, 1).softmax(1)).view(b, 4, places)


class DecoupledHead(nn.Module):
    """Boxes and classes from towers of their own; a box is four distributions of `reg_max` distances."""

    def __init__(self, widths: tuple[int, ...], classes: int = CLASSES, thin: bool = False):
        super().__init__()
        self.nc, self.nl, self.reg_max = classes, len(widths), 8
        self.no = classes + self.reg_max * 4
        self.stride, self.shape = torch.tensor([8.0, 16.0, 32.0]), None
        self.anchors, self.strides = torch.empty(0), torch.empty(0)
        boxes, scores = max(16, widths[0] // 4, self.reg_max * 4), max(widths[0], classes)
        self.cv2 = nn.ModuleList(self._tower(width, boxes, 4 * self.reg_max) for width in widths)
        self.cv3 = nn.ModuleList(self._tower(width, scores, classes, thin) for width in widths)
        self.dfl = ExpectedDistance(self.reg_max)

    @staticmethod
    def _tower(inputs: int, hidden: int, outputs: int, thin: bool = False) -> nn.Sequential:
        if thin:
            first = nn.Sequential(ConvUnit(inputs, inputs, 3, groups=inputs), ConvUnit(inputs, hidden))
            second = nn.Sequential(ConvUnit(hidden, hidden, 3, groups=hidden), ConvUnit(hidden, hidden))
        else:
            first, second = ConvUnit(inputs, hidden, 3), ConvUnit(hidden, hidden, 3)
        return nn.Sequential(first, second, nn.Conv2d(hidden, outputs, 1))

    def forward(self, maps):
        maps = [torch.cat((self.cv2[i](x), self.cv3[i](x)), 1) for i, x in enumerate(maps)]
        if self.training:
            return maps
        shape = maps[0].shape
        if self.shape != shape:
            self.anchors, self.strides = (part.transpose(0, 1) for part in self._anchors(maps))
            self.shape = shape
        flat = torch.cat([x.view(shape[0], self.no, -1) for x in maps], 2)
        box, scores = flat.split((self.reg_max * 4, self.nc), 1)
        return torch.cat((self._decoded(self.dfl(box)) * self.strides, scores.sigmoid()), 1), maps

    def _anchors(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        points, strides = [], []
        for i, x in enumerate(maps):
            h, w = x.shape[2:]
            across, down = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5 for n in (w, h))
            y, x_ = torch.meshgrid(down, across, indexing="ij")
            points.append(torch.stack((x_, y), -1).view(-1, 2))
            strides.append(torch.full((h * w, 1), float(2 ** (3 + i)), dtype=x.dtype, device=x.device))
        return torch.cat(points), torch.cat(strides)

    def _decoded(self, distances: torch.Tensor) -> torch.Tensor:
        before, after = distances.chunk(2, 1)
        start, end = self.anchors.unsqueeze(0) - before, self.anchors.unsqueeze(0) + after
        return torch.cat(((start + end) / 2, end - start), 1)


class RoutedDetector(nn.Module):
    """Layers in one list; each says by `f` whose outputs it takes, and what later ones need is kept."""

    def __init__(self, rows: list[tuple[Any, nn.Module]]):
        super().__init__()
        for i, (sources, layer) in enumerate(rows):
            layer.i, layer.f = i, sources
        self.model = nn.Sequential(*(layer for _, layer in rows))
        flat = [source for sources, _ in rows for source in ([sources] if isinstance(sources, int) else sources)]
        self.save = sorted({source for source in flat if source != -1})

    def forward(self, x):
        y = []
        for m in self.model:
            if m.f != -1:
                x = y[m.f] if isinstance(m.f, int) else [x if j == -1 else y[j] for j in m.f]
            x = m(x)
            y.append(x if m.i in self.save else None)
        return x


def _rows(stage: type[nn.Module], head: type[nn.Module], extra: nn.Module | None = None, **options: Any) -> list[Any]:
    """Backbone, top-down and bottom-up pyramid, head."""
    double = nn.Upsample(scale_factor=2, mode="nearest")
    return [
        (-1, ConvUnit(3, 8, 3, 2)),
        (-1, ConvUnit(8, 16, 3, 2)),
        (-1, stage(16, 16)),
        (-1, ConvUnit(16, 16, 3, 2)),
        (-1, stage(16, 16, 2)),
        (-1, ConvUnit(16, 24, 3, 2)),
        (-1, stage(24, 24)),
        (-1, ConvUnit(24, 32, 3, 2)),
        (-1, PyramidPooling(32, 32)),
        (-1, extra or stage(32, 32)),
        (-1, double),
        ([-1, 6], Join()),
        (-1, stage(56, 24, 1, False)),
        (-1, nn.Upsample(scale_factor=2, mode="nearest")),
        ([-1, 4], Join()),
        (-1, stage(40, 16, 1, False)),
        (-1, ConvUnit(16, 16, 3, 2)),
        ([-1, 12], Join()),
        (-1, stage(40, 24, 1, False)),
        (-1, ConvUnit(24, 24, 3, 2)),
        ([-1, 9], Join()),
        (-1, stage(56, 32, 1, False)),
        ([15, 18, 21], head((16, 24, 32), **options)),
    ]


TRUNK = tuple(f"model.{i}.conv" for i in (0, 1, 3, 5, 7, 16, 19))


def _towers(*names: str) -> tuple[str, ...]:
    return tuple(f"model.22.{name.format(i)}" for i in range(3) for name in names)


@specimen(
    SCENE,
    cut=(*TRUNK, "model.2.cv1.conv", "model.4.m.0.cv1.conv", "model.8.cv1.conv", "model.21.cv3.conv"),
    whole=_towers("m.{}"),
)
def AnchorDetector() -> nn.Module:  # noqa: N802 - a specimen is named like a class
    """YOLOv5's shape: cross-stage blocks, layers routed by number, an anchor head that views and permutes."""
    return RoutedDetector(_rows(CrossStage, AnchorHead))


@specimen(
    SCENE,
    cut=(
        *TRUNK,
        "model.2.cv1.conv",
        "model.4.m.1.cv2.conv",
        "model.21.cv2.conv",
        *_towers("cv2.{}.0.conv", "cv3.{}.1.conv"),
    ),
    whole=(*_towers("cv2.{}.2", "cv3.{}.2"), "model.22.dfl.conv"),
)
def AnchorFreeDetector() -> nn.Module:  # noqa: N802
    """YOLOv8's shape: growing concatenations, a decoupled head, boxes as expectations of distributions."""
    return RoutedDetector(_rows(GrowingStage, DecoupledHead))


@specimen(
    SCENE,
    cut=(
        *TRUNK,
        "model.2.cv1.conv",
        "model.4.m.1.cv3.conv",
        "model.9.cv1.conv",
        *_towers("cv2.{}.0.conv", "cv3.{}.1.1.conv"),
    ),
    whole=(*_towers("cv2.{}.2", "cv3.{}.2"), "model.22.dfl.conv"),
)
def AttentiveDetector() -> nn.Module:  # noqa: N802
    """YOLO11's shape: stages within stages, attention over the last map, depthwise towers."""
    return RoutedDetector(_rows(NestedStage, DecoupledHead, AttentiveStage(32), thin=True))
