"""Steps without weights that move elements: views, flips, rolls, stacks, copies, windows, and sums over them."""

from __future__ import annotations

import torch

from tests.generator.registry import SIDE, Layer, kind

HALF = SIDE // 2


def _even(width: int) -> bool:
    return width % 2 == 0


class Ways(Layer):
    """One of several things to do, each of which makes `factor` times as many channels."""

    WAYS = ()
    factor: float = 1

    @classmethod
    def numbers(cls, choose, width):
        return (choose(range(len(cls.WAYS))),)

    def __init__(self, inputs: list[int], way: int):
        super().__init__()
        self.widths, self.way = (int(inputs[0] * self.factor),), way

    def forward(self, x):
        return [type(self).WAYS[self.way](x)]


@kind
class Moved(Ways):
    """Places are flipped, rolled, turned, cut into windows and put together; channels stay as they are."""

    WAYS = (
        lambda x: x.flip(3),
        lambda x: x.roll((1, -1), (2, 3)),
        lambda x: x.transpose(2, 3),
        lambda x: torch.rot90(x, 1, (2, 3)),
        lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
        lambda x: x.permute(2, 3, 0, 1).reshape(-1, *x.shape[:2]).permute(1, 2, 0).unflatten(2, (SIDE, SIDE)),
        lambda x: x.view(*x.shape[:2], 2, HALF, 2, HALF).transpose(3, 4).reshape(x.shape),
        lambda x: x.tile(1, 1, 2, 1)[:, :, 1 : SIDE + 1],
        lambda x: torch.stack([x[:, :, ::2], x[:, :, 1::2]], dim=3).flatten(2, 3),
        lambda x: torch.cat([part.unsqueeze(2) for part in x.unbind(2)][::-1], dim=2),
    )


@kind
class Rearranged(Ways):
    """Channels change places or meet: by views with a -1, stacks, flips, rolls, sums over parts, an even count."""

    WAYS = (
        lambda x: x.flip(1),
        lambda x: x.roll(1, 1),
        lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
        lambda x: x.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2),
        lambda x: torch.stack(x.chunk(2, dim=1), dim=2).flatten(1, 2),
        lambda x: torch.cat(x.chunk(2, dim=1)[::-1], dim=1),
        lambda x: x.view(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).flip(1).reshape(x.shape),
        lambda x: x + x.flip(1),
        lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1] // 2, 2).transpose(-1, -2).flatten(2)
        .transpose(1, 2).unflatten(2, (SIDE, SIDE)),
    )  # fmt: skip

    @classmethod
    def fits(cls, *widths):
        return _even(widths[0])


@kind
class Halved(Ways):
    """Half as many channels: sums, maxima and products over pairs and over halves."""

    factor = 0.5

    WAYS = (
        lambda x: x.unflatten(1, (2, -1)).sum(1),
        lambda x: x.unflatten(1, (-1, 2)).amax(2),
        lambda x: torch.prod(torch.stack(x.chunk(2, dim=1)), dim=0),
        lambda x: x.view(x.shape[0], 2, -1, SIDE, SIDE).mean(dim=1),
        lambda x: torch.einsum("bchw,bchw->bchw", *x.chunk(2, dim=1)),
        lambda x: torch.maximum(*x.unflatten(1, (2, -1)).unbind(1)),
    )

    @classmethod
    def fits(cls, *widths):
        return _even(widths[0])


@kind
class Doubled(Ways):
    """Twice as many channels: copies beside each other or in place, both signs, a shuffle of pixels there and back."""

    factor = 2

    WAYS = (
        lambda x: x.repeat(1, 2, 1, 1),
        lambda x: x.repeat_interleave(2, dim=1),
        lambda x: torch.cat([torch.relu(x), torch.relu(-x)], dim=1),
        lambda x: torch.stack([x, x.flip(2)], dim=1).flatten(1, 2),
        lambda x: torch.stack([x, x.tanh()], dim=2).flatten(1, 2),
        lambda x: x.unsqueeze(1).expand(-1, 2, -1, -1, -1).reshape(x.shape[0], -1, *x.shape[2:]),
        lambda x: torch.cat([x, x.new_zeros(x.shape)], dim=1),
    )

    @classmethod
    def fits(cls, *widths):
        return widths[0] <= 16
