"""Odd little models, each with the reason why it is here."""

from tests.zoo import (
    adversary,
    concatenation,
    convolutions,
    gating,
    heads,
    interfaces,
    normalization,
    oddities,
    resampling,
    residual,
    sharing,
    shuffling,
    splitting,
    weights,
)
from tests.zoo.registry import ZOO, Specimen

__all__ = [
    "ZOO",
    "Specimen",
    "adversary",
    "concatenation",
    "convolutions",
    "gating",
    "heads",
    "interfaces",
    "normalization",
    "oddities",
    "resampling",
    "residual",
    "sharing",
    "shuffling",
    "splitting",
    "weights",
]
