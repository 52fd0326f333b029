"""Positions taken by tensors of integers or flags: what stands beside them passes, what they point at stays."""

from __future__ import annotations

import torch
from torch import nn

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen

TOKENS = torch.zeros(2, 9, 5)


@specimen(TOKENS, cut=("embed", "last"))
class TableOfOffsets(nn.Module):
    """A table of vectors looked up by a buffer of numbers, as for relative positions: its columns are channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.table = nn.Linear(5, 8), nn.Parameter(torch.randn(17, 8))
        self.last, self.out = nn.Linear(8, 6), nn.Linear(6, 3)
        places = torch.arange(9)
        self.register_buffer("offsets", places[:, None] - places[None, :] + 8)

    def forward(self, x):
        table = self.table[self.offsets.view(-1)].view(9, 9, -1).sum(0)
        return self.out(torch.relu(self.last(torch.relu(self.embed(x)) * table)))


@specimen(PICTURE, cut=("stem.0", "last"))
class CornersByIndex(nn.Module):
    """Indices side by side put their dimension in place, apart they put it in front; channels stand beside either."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.out = conv_norm(3, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.register_buffer("rows", torch.tensor([0, 0, -1, -1]))
        self.register_buffer("columns", torch.tensor([0, -1, 0, -1]))

    def forward(self, x):
        x = self.stem(x)
        corners = x[:, :, self.rows, self.columns].mean(2)  # (N, C, 4)
        middles = x.flatten(2)[torch.arange(len(x)), :, self.rows[: len(x)] + 5]  # (N, C)
        return self.out(torch.relu(self.last(corners + middles)))


@specimen(PICTURE, cut=("last.0",), whole=("stem.0",))
class ChannelsByIndex(nn.Module):
    """A buffer says which channels go on, and in which order: all of them stay."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(6, 8), pooled_head(8)
        self.register_buffer("chosen", torch.tensor([7, 5, 3, 1, 0, 2]))

    def forward(self, x):
        return self.head(self.last(self.stem(x)[:, self.chosen]))


class _BestTokens(nn.Module):
    """The three best tokens go on."""

    def __init__(self):
        super().__init__()
        self.embed, self.score = nn.Linear(5, 8), nn.Linear(8, 1)
        self.last, self.out = nn.Linear(8, 6), nn.Linear(6, 3)

    def spread(self, best: torch.Tensor, width: int) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x):
        x = torch.relu(self.embed(x))
        best = self.score(x).squeeze(-1).topk(3, dim=1).indices
        x = x.gather(1, self.spread(best.unsqueeze(-1), x.shape[-1]))
        return self.out(torch.relu(self.last(x)))


@specimen(TOKENS, cut=("embed", "last"))
class BestByRepeat(_BestTokens):
    """Gathered by an index that is repeated as often as there are channels."""

    def spread(self, best, width):
        return best.repeat(1, 1, width)


@specimen(TOKENS, cut=("embed", "last"))
class BestByExpand(_BestTokens):
    """Gathered by an index that is expanded to the channels' number."""

    def spread(self, best, width):
        return best.expand(-1, -1, width)


@specimen(TOKENS, cut=("last",), whole=("embed",))
class BestByNumber(_BestTokens):
    """Gathered by an index whose width is a number in the code."""

    def spread(self, best, width):
        return best.expand(-1, -1, 8)


@specimen((TOKENS, torch.arange(18).view(2, 9) % 3 == 0), cut=("last",), whole=("embed",))
class FlaggedTokens(nn.Module):
    """Tokens chosen by flags: how many there are only the values say, and the rule does not follow them."""

    def __init__(self):
        super().__init__()
        self.embed, self.last, self.out = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x, flags):
        return self.out(torch.relu(self.last(torch.relu(self.embed(x))[flags])))


@specimen(PICTURE, cut=("qkv", "last"))
class UnevenParts(nn.Module):
    """Heads whose channels are split into a narrow and a wide part: each part is as wide in every head."""

    def __init__(self):
        super().__init__()
        self.heads, self.narrow, self.wide = 2, 4, 8
        self.qkv, self.last, self.head = conv(3, 24), conv(16, 6), pooled_head(6)
        self.gate = conv(8, 16)

    def forward(self, x):
        x = torch.relu(self.qkv(x))
        n, _, h, w = x.shape
        narrow, wide = x.view(n, self.heads, self.narrow + self.wide, h * w).split([self.narrow, self.wide], dim=2)
        gate = self.gate(narrow.reshape(n, -1, h, w)).sigmoid()
        return self.head(self.last(gate * wide.reshape(n, -1, h, w)))
