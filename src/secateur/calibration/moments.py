"""First and second moments of what weights read: all that criteria and compensation need of the data."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod

import torch

from secateur.calibration.observing import Reading
from secateur.graph.groups import Axis

WIDEST = 4096  # channels whose products are kept
MOST_ROWS = 1536  # of what a weight reads in one part, or its width if that is more


class Moments:
    """Sums over rows, and over their products, in float64, for each of several blocks of equally many channels."""

    def __init__(self, blocks: int, width: int, device: torch.device | None = None) -> None:
        self.count = 0
        self.sums = torch.zeros(blocks, width, dtype=torch.float64, device=device)
        self.products = torch.zeros(blocks, width, width, dtype=torch.float64, device=device)

    def add(self, rows: torch.Tensor) -> None:
        """Add rows (blocks, n, width)."""
        rows = rows.to(torch.float64)
        self.count += rows.shape[1]
        self.sums += rows.sum(dim=1)
        self.products += rows.transpose(1, 2) @ rows

    def joint(self, blocks: Sequence[int], kept: torch.Tensor) -> Moments:
        """Return the moments of rows (blocks, n, width + kept): all channels of some blocks, then those kept, again."""
        found = Moments(0, 0)
        found.count = self.count
        width = self.sums.shape[1]
        whole = torch.arange(width, device=self.sums.device).expand(len(kept), -1)
        index = torch.cat([whole, kept.to(whole.device)], dim=1)
        found.sums = self.sums[list(blocks)].gather(1, index)
        across = self.products[list(blocks)].gather(2, index[:, None, :].expand(-1, width, -1))
        found.products = across.gather(1, index[:, :, None].expand(-1, -1, index.shape[1]))
        return found

    @property
    def mean(self) -> torch.Tensor:
        """The means, (blocks, width)."""
        return self.sums / max(self.count, 1)

    def second(self, centred: bool) -> torch.Tensor:
        """Return the covariances, or the mean products where they are not centred: (blocks, width, width)."""
        products = self.products / max(self.count, 1)
        if not centred:
            return products
        return products - self.mean[:, :, None] * self.mean[:, None, :]


def rows_of(reading: Reading, most: int, number: int) -> torch.Tensor:
    """Return what a weight reads, position by position: (positions, channels), in the order of the weight's axis.

    Of more than `most` positions so many are drawn; the same for the same site, call `number` and shape.
    """
    x, dim = reading.inputs, reading.dim
    channels, trailing = x.shape[dim], prod(x.shape[dim + 1 :])
    lined = x.reshape(-1, channels, trailing)
    total = len(lined) * trailing
    if total > most:
        generator = torch.Generator().manual_seed(zlib.crc32(repr((reading.site, number)).encode()))
        chosen = torch.randint(total, (most,), generator=generator).to(x.device)
        rows = lined[chosen // trailing, :, chosen % trailing]
    else:
        rows = lined.movedim(1, 2).reshape(-1, channels)
    if reading.order is None:
        return rows
    return rows[:, torch.from_numpy(reading.order).to(x.device).argsort()]


def weight_rows(weight: torch.Tensor, axis: Axis, blocks: int) -> torch.Tensor:
    """Return a weight as (blocks, rows, width), where `width` are the channels that a block of it reads."""
    if axis == "grouped":
        split = weight.reshape(blocks, -1, *weight.shape[1:]).movedim(2, -1)  # (blocks, outputs, *kernel, width)
        return split.reshape(blocks, -1, weight.shape[1])
    return weight.movedim(axis, -1).reshape(1, -1, weight.shape[axis])


def blocked(rows: torch.Tensor, blocks: int) -> torch.Tensor:
    """Return rows (n, blocks * width) as (blocks, n, width)."""
    return rows.reshape(len(rows), blocks, -1).movedim(1, 0)


def block_size(kept: Sequence[int], width: int) -> int:
    """Return the length of the longest aligned runs, all of equal length, that a choice of indices is made of.

    Where channels were flattened with their positions, each channel is such a run.
    """
    for size in sorted((size for size in range(2, width) if width % size == 0), reverse=True):
        runs = torch.zeros(width, dtype=torch.bool)
        runs[list(kept)] = True
        runs = runs.reshape(-1, size)
        if bool((runs == runs[:, :1]).all()):
            return size
    return 1
