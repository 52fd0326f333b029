"""One file a family of ATen operations; importing this package registers them all."""

from secateur.graph.rules import (
    attention,
    contraction,
    indexing,
    movement,
    multihead,
    normalization,
    pointwise,
    pooling,
    reduction,
    shortcuts,
)

__all__ = [
    "attention",
    "contraction",
    "indexing",
    "movement",
    "multihead",
    "normalization",
    "pointwise",
    "pooling",
    "reduction",
    "shortcuts",
]
