"""One file a family of ATen operations; importing this package registers them all."""

from secateur.graph.rules import (
    contraction,
    indexing,
    movement,
    normalization,
    pointwise,
    pooling,
    reduction,
    shortcuts,
)

__all__ = ["contraction", "indexing", "movement", "normalization", "pointwise", "pooling", "reduction", "shortcuts"]
