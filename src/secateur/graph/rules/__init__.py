"""One file a family of ATen operations; importing this package registers them all."""

from secateur.graph.rules import (
    attention,
    contraction,
    convolution,
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
    "convolution",
    "indexing",
    "movement",
    "multihead",
    "normalization",
    "pointwise",
    "pooling",
    "reduction",
    "shortcuts",
]
