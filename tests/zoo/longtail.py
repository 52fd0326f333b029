"""Operations that few models use: masked writes, windows as dimensions, odd einsums, arithmetic on sizes, tables."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.blocks import PICTURE, conv, conv_norm, pooled_head
from tests.zoo.registry import specimen


class _Middle(nn.Module):
    """Features of 8 channels, something rare, a convolution."""

    width = 8

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = conv_norm(3, 8), conv_norm(self.width, 6), pooled_head(6)

    def rare(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, width, H, W) from (N, 8, 12, 12)."""
        raise NotImplementedError

    def forward(self, x):
        return self.head(self.last(self.rare(self.stem(x))))


# -- values picked and written ---------------------------------------------------------------------------------------


@specimen(PICTURE, cut=("stem.0", "last.0"))
class WrittenByMask(_Middle):
    """`y[y > 0.5] = 0`: values overwritten where a condition holds."""

    def rare(self, x):
        y = x.clone()
        y[y > 0.5] = 0
        return y


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PlacesByIndex(_Middle):
    """Rows of the picture taken by an index tensor, and columns by a list."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.tensor([0, 2, 4, 6]))

    def rare(self, x):
        return x[:, :, self.rows][..., [1, 3, 5, 7]]


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PlacesGathered(_Middle):
    """The strongest places of every channel: `topk` over places, `gather` by its numbers."""

    def rare(self, x):
        flat = x.flatten(2)
        places = flat.topk(16, dim=2).indices
        return flat.gather(2, places).unflatten(2, (4, 4))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PlacesDropped(_Middle):
    """Half of the tokens is kept in a random order, and put back by `gather` with an expanded index (MAE)."""

    def rare(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        n, length, width = tokens.shape
        order = torch.arange(length - 1, -1, -1, device=x.device).expand(n, -1)
        kept = torch.gather(tokens, 1, order[:, : length // 2].unsqueeze(-1).expand(-1, -1, width))
        filled = torch.cat([kept, torch.zeros_like(kept)], dim=1)
        restored = torch.gather(filled, 1, order.argsort(dim=1).unsqueeze(-1).repeat(1, 1, width))
        return restored.transpose(1, 2).reshape(n, width, *x.shape[2:])


@specimen((PICTURE, torch.tensor([1, 0])), cut=("stem.0", "last.0"))
class TableByClass(_Middle):
    """Conditional scales: rows of a parameter and of a buffer, chosen by a class number."""

    def __init__(self):
        super().__init__()
        self.scales = nn.Parameter(torch.ones(3, 8))
        self.register_buffer("shifts", torch.zeros(3, 8))

    def forward(self, x, kind):
        x = self.stem(x) * self.scales[kind][:, :, None, None] + self.shifts.index_select(0, kind)[..., None, None]
        return self.head(self.last(torch.relu(x)))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class SlicesFilled(_Middle):
    """Zeros of the whole width, parts written into slices bounded by an attribute: the zeros have nothing to cut."""

    def __init__(self):
        super().__init__()
        self.first, self.total, self.a, self.b = 3, 8, conv(8, 3), conv(8, 5)

    def rare(self, x):
        out = x.new_zeros(x.shape[0], self.total, *x.shape[2:])
        out[:, : self.first] = torch.relu(self.a(x))
        out[:, self.first :] = torch.sigmoid(self.b(x))
        return out


@specimen(PICTURE, cut=("stem.0", "last.0"))
class PlacesWritten(_Middle):
    """A frame of zeros written around the picture by slices, and one place by number."""

    def rare(self, x):
        y = x * 1
        y[:, :, 0] = 0
        y[..., -2:] = x[..., :2]
        y[:, :, 3, 4] += 1.0
        return y


@specimen(PICTURE, cut=("stem.0", "last.0"))
class ScatteredPlaces(_Middle):
    """Tokens added up by the number of their cluster: `index_add` over places."""

    def __init__(self):
        super().__init__()
        self.register_buffer("cluster", torch.arange(144) % 4)

    def rare(self, x):
        tokens = x.flatten(2)
        pooled = tokens.new_zeros(*tokens.shape[:2], 4).index_add(2, self.cluster, tokens)
        return pooled.view(*tokens.shape[:2], 2, 2)


# -- windows ---------------------------------------------------------------------------------------------------------


@specimen(PICTURE, cut=("stem.0", "last.0"))
class WindowsAsDimensions(_Middle):
    """`Tensor.unfold` along both sides: windows become dimensions, and are averaged."""

    def rare(self, x):
        return x.unfold(2, 3, 3).unfold(3, 3, 3).mean((-2, -1))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class UnfoldedAndFolded(_Middle):
    """`F.unfold`, a weight for every place of the window, `F.fold` back."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(9, 1))

    def rare(self, x):
        n, _, h, w = x.shape
        columns = F.unfold(x, 3, padding=1).view(n, -1, 9, h * w) * self.weights
        return F.fold(columns.flatten(1, 2), (h, w), 3, padding=1)


@specimen(PICTURE, cut=("stem.0", "reduce", "last.0"))
class Involution(_Middle):
    """Involution: kernels of each place from its own features, one for all channels of a group."""

    def __init__(self):
        super().__init__()
        self.reduce, self.kernels = conv(8, 4, 1), conv(4, 9, 1)

    def rare(self, x):
        n, c, h, w = x.shape
        kernels = self.kernels(F.relu(self.reduce(x))).view(n, 1, 9, h, w)
        return (kernels * F.unfold(x, 3, padding=1).view(n, c, 9, h, w)).sum(2)


@specimen(PICTURE, cut=("stem.0", "offset.0", "last.0"))
class DeformedGrid(_Middle):
    """Offsets are predicted for every place, added to a grid made on the spot, and sampled by."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Sequential(conv(8, 5), nn.ReLU(), conv(5, 2))

    def rare(self, x):
        h, w = x.shape[-2:]
        axes = (torch.linspace(-1, 1, size, dtype=x.dtype, device=x.device) for size in (h, w))
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        grid = torch.stack([columns, rows], -1).unsqueeze(0) + self.offset(x).permute(0, 2, 3, 1).tanh()
        return F.grid_sample(x, grid, align_corners=True)


# -- products --------------------------------------------------------------------------------------------------------


@specimen(PICTURE, cut=("stem.0", "last.0"))
class EinsumEllipsis(_Middle):
    """An einsum with an ellipsis over a parameter."""

    width = 10

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 10))

    def rare(self, x):
        return torch.einsum("...c,cd->...d", x.movedim(1, -1), self.mix).movedim(-1, 1)


@specimen(PICTURE, cut=("stem.0",))
class EinsumTrace(_Middle):
    """A repeated letter: the trace of every channel's picture; and an einsum without an arrow."""

    def rare(self, x):
        diagonal = torch.einsum("ncii->nc", x)
        return x + torch.einsum("nc,nc->nc", diagonal, diagonal)[..., None, None]


@specimen(PICTURE, cut=("stem.0", "left"))
class EinsumOuter(nn.Module):
    """An einsum of three tensors with a parameter of three dimensions, as a bilinear form."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = conv_norm(3, 8), nn.Linear(8, 6), nn.Linear(8, 5)
        self.core, self.out = nn.Parameter(torch.randn(6, 5, 7)), nn.Linear(7, 3)

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        return self.out(torch.relu(torch.einsum("bi,bj,ijk->bk", self.left(x), self.right(x), self.core)))


@specimen(PICTURE, cut=("stem.0", "last.0"))
class TensordotLayer(_Middle):
    """`tensordot` and `@` with the channels in the middle."""

    width = 10

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 10))

    def rare(self, x):
        return torch.tensordot(x, self.mix, dims=([1], [0])).permute(0, 3, 1, 2)


@specimen(PICTURE, cut=("stem.0", "last.0"), reference="mask")
class Prototypes(_Middle):
    """Distances of every place to learned prototypes (`cdist`), as soft assignments."""

    width = 5

    def __init__(self):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(5, 8))

    def rare(self, x):
        distances = torch.cdist(x.flatten(2).transpose(1, 2), self.prototypes)
        return (-distances).softmax(-1).transpose(1, 2).unflatten(2, x.shape[2:])


@specimen(PICTURE, cut=("stem.0",))
class SoftAssignment(nn.Module):
    """NetVLAD: residuals to centres, weighed by soft assignments, normalised and flattened."""

    def __init__(self):
        super().__init__()
        self.stem, self.last = conv_norm(3, 8), conv_norm(8, 6)
        self.assign, self.centres, self.out = conv(6, 4, 1), nn.Parameter(torch.randn(4, 6)), nn.Linear(24, 3)

    def forward(self, x):
        x = self.last(self.stem(x))
        weights = self.assign(x).flatten(2).softmax(1)
        residuals = x.flatten(2).unsqueeze(1) - self.centres[None, :, :, None]
        return self.out((residuals * weights.unsqueeze(2)).sum(-1).flatten(1))


# -- numbers and constants -------------------------------------------------------------------------------------------


@specimen(PICTURE, cut=("stem.0", "last.0"))
class CoordinateConvolution(_Middle):
    """CoordConv: two maps of coordinates beside the channels."""

    width = 10

    def rare(self, x):
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h, dtype=x.dtype, device=x.device).view(1, 1, h, 1).expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w, dtype=x.dtype, device=x.device).view(1, 1, 1, w).expand(n, 1, h, w)
        return torch.cat([x, rows, columns], dim=1)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class OnesBesideChannels(_Middle):
    """A channel of ones put beside the others, as a bias."""

    width = 9

    def rare(self, x):
        return torch.cat([x.new_ones(x.shape[0], 1, *x.shape[2:]), x], dim=1)


@specimen(PICTURE)
class HalvesByDivmod(_Middle):
    """`divmod` of the live width: two halves, changed."""

    def rare(self, x):
        half, rest = divmod(x.shape[1], 2)
        return torch.cat([x[:, half + rest :], x[:, : half + rest]], dim=1)


@specimen(PICTURE)
class HalvesByShift(_Middle):
    """`>> 1` on the live width."""

    def rare(self, x):
        half = x.shape[1] >> 1
        return torch.cat([torch.tanh(x[:, :half]), x[:, half:]], dim=1)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class ShuffledThereAndBack(_Middle):
    """Pixel unshuffle, a 1x1 convolution, pixel shuffle: space to depth and back."""

    def __init__(self):
        super().__init__()
        self.deep = nn.Sequential(conv(32, 16, 1), nn.ReLU(), conv(16, 32, 1))

    def rare(self, x):
        return F.pixel_shuffle(self.deep(F.pixel_unshuffle(x, 2)), 2)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class SpaceToDepthByView(_Middle):
    """Space to depth by a view of six dimensions and literals for the block only."""

    width = 32

    def rare(self, x):
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).contiguous()
        return x.view(n, c * 4, h // 2, w // 2)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class TiledAndRolled(_Middle):
    """Pictures tiled, rolled, flipped, rotated by a quarter: places move, channels do not."""

    def rare(self, x):
        return torch.rot90(x.tile(1, 1, 1, 2).roll((1, -2), (2, 3)).flip(3)[..., :12], 1, (2, 3)).movedim(-1, -2)


@specimen(PICTURE, cut=("stem.0", "last.0"))
class MeanOfCopies(_Middle):
    """Every channel is repeated in place and averaged again over the copies."""

    def rare(self, x):
        return x.repeat_interleave(2, dim=1).unflatten(1, (-1, 2)).mean(2)


@specimen(torch.zeros(2, 6, 5), cut=("embed",), whole=("memory",))
class GatedMemory(nn.Module):
    """Two GRU layers in both directions and a plain recurrent one: what recurs stays, its surroundings do not."""

    def __init__(self):
        super().__init__()
        self.embed, self.memory = nn.Linear(5, 8), nn.GRU(8, 6, 2, batch_first=True, bidirectional=True)
        self.plain, self.hidden, self.out = nn.RNN(12, 5), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        x, _ = self.memory(torch.relu(self.embed(x)))
        _, state = self.plain(x.transpose(0, 1))
        return self.out(torch.relu(self.hidden(state[-1])))
