"""Which type of module is replaced by what for inference: the tables, and the decorator that fills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Rewrite = Callable[[Any], "nn.Module | None"]
AnyRewrite = TypeVar("AnyRewrite", bound=Rewrite)

REWRITES: dict[type[nn.Module], Rewrite] = {}
HALF_SAFE_REWRITES: dict[type[nn.Module], Rewrite] = {}


def register(
    kind: type[nn.Module], table: dict[type[nn.Module], Rewrite] = REWRITES
) -> Callable[[AnyRewrite], AnyRewrite]:
    """Return a decorator that makes a function the rewrite of all modules of exactly this type.

    The function gets a module in evaluation mode, without hooks on it or in it, and returns another one that computes
    the same, or None to leave it as it is. It may reuse the module's children, and must not change them.

    Args:
        kind: the type.
        table: `REWRITES`; or `HALF_SAFE_REWRITES`, which comes first where float16 must not overflow.

    Example:
        >>> import torch
        >>> from secateur.models.rewriting.rewriting import rewritten
        >>> @register(nn.Dropout)
        ... def without_dropout(dropout: nn.Dropout) -> nn.Module:
        ...     return nn.Identity()
        >>> rewritten(nn.Sequential(nn.Dropout(), nn.ReLU()), torch.zeros(1))
        Sequential(
          (0): Identity()
          (1): ReLU()
        )
        >>> del REWRITES[nn.Dropout]
    """

    def registered(rewrite: AnyRewrite) -> AnyRewrite:
        table[kind] = rewrite
        return rewrite

    return registered
