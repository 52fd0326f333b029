"""A weight that reads cut channels: how its moments are taken, and how what was found is put into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.calibration.moments import WIDEST, Moments, block_size, blocked, weight_rows
from secateur.calibration.observing import Intercept, Site, Use
from secateur.planning.plans import Plan
from secateur.surgery.compensation.ridge import STRENGTHS, Fit, best_fit
from secateur.surgery.cutting import kept_values, named_tensor, scale_factors


@dataclass(frozen=True, eq=False)
class Consumer:
    """A weight and the axis along which it sums, in the original and in the pruned model."""

    site: Site
    intercept: Intercept | None
    blocks: tuple[int, ...]  # the original's that are left
    kept: torch.Tensor  # which channels of each block are left, (blocks, kept)
    width: int  # channels of a block of the original
    run: int  # positions that were flattened into the channels, where these are too many to be told apart
    cut: bool  # whether some channel is gone
    calls: int  # of the weight, each time the model is called

    def joint(self, full: torch.Tensor, small: torch.Tensor | None) -> torch.Tensor:
        """Return rows (blocks, n, channels + kept) of what the original reads, (n, all), and of what is read now.

        Without the latter it is taken from the former.
        """
        device = full.device
        target = self._unrolled(blocked(full, full.shape[1] // (self.width * self.run)))
        target = target[list(self.blocks)]
        if small is None:
            index = self.kept.to(device)[:, None, :].expand(-1, target.shape[1], -1)
            return torch.cat([target, target.gather(2, index)], dim=2)
        return torch.cat([target, self._unrolled(blocked(small, len(self.blocks)))], dim=2)

    def moments(self, device: torch.device) -> Moments:
        """Return moments to add such rows to."""
        return Moments(len(self.blocks), self.width + self.kept.shape[1], device)

    def _unrolled(self, rows: torch.Tensor) -> torch.Tensor:
        """(blocks, n, width * run) to (blocks, n * run, width)."""
        if self.run == 1:
            return rows
        blocks, count, _ = rows.shape
        return rows.reshape(blocks, count, -1, self.run).transpose(2, 3).reshape(blocks, count * self.run, -1)

    def solve(
        self, fit: Moments, held: Moments, full: nn.Module, plan: Plan, strengths: Sequence[float] = STRENGTHS
    ) -> Fit:
        """Return what the missing channels are best made of."""
        weight = self._rows(self._kept_outputs(full, plan))
        kept = self.kept.to(weight.device)
        return best_fit(fit, held, kept, weight, self.intercept is not None, strengths)

    def apply(self, found: Fit, small: nn.Module, full: nn.Module, plan: Plan) -> None:
        """Put what was found into a pruned model: into this weight, and where its constants go."""
        wide = self._kept_outputs(full, plan)
        rows = self._rows(wide)
        narrow = (rows.double() @ found.map).to(wide.dtype)
        _write(small, self.site[0], self._folded(narrow, wide))
        if self.intercept is not None:
            missing = self._per_output((rows.double() @ found.constant[:, :, None])[:, :, 0], wide)
            name = self.intercept.tensor
            vector = named_tensor(full, name).detach()
            if self.intercept.sign > 0:
                vector = vector * scale_factors(vector, plan, name).to(vector.dtype)
            vector = kept_values(vector, plan.keep.get(name, {}))
            _write(small, name, vector + self.intercept.sign * missing.to(vector.dtype))

    # -- layouts -----------------------------------------------------------------------------------------------------

    def _kept_outputs(self, full: nn.Module, plan: Plan) -> torch.Tensor:
        """Return the original's weight, scaled and without the outputs that are gone, but with all that it reads."""
        name, axis = self.site
        weight = named_tensor(full, name).detach()
        weight = weight * scale_factors(weight, plan, name).to(weight.dtype)
        return kept_values(weight, {key: kept for key, kept in plan.keep.get(name, {}).items() if key != axis})

    def _rows(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight as (blocks, rows, width)."""
        rows = weight_rows(weight, self.site[1], len(self.blocks))
        if self.run == 1:
            return rows
        return rows.reshape(1, -1, self.width, self.run).transpose(2, 3).reshape(1, -1, self.width)

    def _folded(self, narrow: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
        """Bring rows (blocks, rows, kept) back into the layout of the weight that they were made of."""
        axis, kept = self.site[1], narrow.shape[2]
        if axis == "grouped":
            split = narrow.reshape(len(self.blocks), -1, *wide.shape[2:], kept).movedim(-1, 2)
            return split.reshape(wide.shape[0], kept, *wide.shape[2:])
        others = [size for dim, size in enumerate(wide.shape) if dim != axis]
        rolled = narrow.reshape(-1, self.run, kept).transpose(1, 2)
        return rolled.reshape(*others, kept * self.run).movedim(-1, axis)

    def _per_output(self, values: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
        """Sum one number a row, (blocks, rows), over the kernel and the unrolled positions: one an output."""
        axis = self.site[1]
        if axis == "grouped":
            return values.reshape(wide.shape[0], -1).sum(dim=1)
        others = [size for dim, size in enumerate(wide.shape) if dim != axis]
        return values.reshape(others[0], -1).sum(dim=1)


def consumer_of(site: Site, use: Use, plan: Plan) -> Consumer | str:
    """Return a weight that reads channels, or why nothing can be put into it."""
    name, axis = site
    shape, keep = plan.fingerprint[name], plan.keep.get(name, {})
    if axis == "grouped":
        blocks, kept = _kept_rows(keep, shape, use.blocks)
        width = shape[1]
    else:
        indices: Sequence[Any] = keep.get(axis, range(shape[axis]))
        blocks, kept, width = (0,), [list(indices)], shape[axis]
    run = block_size(kept[0], width) if width > WIDEST else 1
    if width // run > WIDEST:
        return f"{name} reads {width} channels, which is more than {WIDEST}"
    chosen = torch.tensor(kept, dtype=torch.int64)[:, ::run] // run
    return Consumer(
        site,
        use.intercept,
        blocks,
        chosen,
        width // run,
        run,
        cut=len(kept[0]) < width,
        calls=use.calls,
    )


def _kept_rows(keep: Any, shape: Sequence[int], groups: int) -> tuple[tuple[int, ...], list[list[int]]]:
    """Return the groups of a convolution that are left, and the inputs that each of them keeps."""
    outputs = keep.get(0, range(shape[0]))
    left = tuple(dict.fromkeys(int(output) // (shape[0] // groups) for output in outputs))
    rows = keep.get("grouped") or [range(shape[1])] * len(left)
    return left, [[int(row) for row in own] for own in rows]


def _write(model: nn.Module, name: str, values: torch.Tensor) -> None:
    with torch.no_grad():
        named_tensor(model, name).copy_(values)
