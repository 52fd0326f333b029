"""The picture of a graft: what outside of the part reads less, and from which layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import secateur
from secateur.reporting.wiring import Wire, draw_graft, wires_of


class Host(nn.Module):
    """Two readers of one part, and one that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1))
        self.left, self.right, self.last = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.part(x)
        return self.last(self.left(x) + self.right(x))


def test_the_readers_of_the_part_are_listed_and_drawn(tmp_path: Path) -> None:
    host, picture = Host().eval(), torch.rand(1, 3, 8, 8)
    small, plan = secateur.prune(host.part, picture, ratio=0.5, min_channels=1, free_outputs=True)
    _, whole = secateur.graft(host, plan, "part", small)
    graph = secateur.trace(host, picture)
    assert wires_of(graph, whole, "part") == [
        Wire("3", (8, 4), "left", (8, 4)),
        Wire("3", (8, 4), "right", (8, 4)),
    ]
    for name in ("wires.svg", "wires.png"):
        draw_graft(graph, whole, "part", tmp_path / name)
    first = (tmp_path / "wires.png").read_bytes()
    draw_graft(graph, whole, "part", tmp_path / "wires.png")
    assert (tmp_path / "wires.png").read_bytes() == first
