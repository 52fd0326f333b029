"""What a trace takes for the result of an operation without data is what torch makes of it: shape, layout, type."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import secateur.graph.rules  # noqa: F401  (fills the table)
from secateur.graph.registry import SHORTCUTS

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
LENGTHS = st.integers(1, 5)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def same(found: Tensor, expected: Tensor) -> bool:
    return (found.shape, found.stride(), found.dtype) == (expected.shape, expected.stride(), expected.dtype)


@st.composite
def attentions(draw: st.DrawFn) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    heads = draw(st.lists(LENGTHS, min_size=1, max_size=3))
    queries, keys, width, values = (draw(LENGTHS) for _ in range(4))
    tensors = meta(*heads, queries, width), meta(*heads, keys, width), meta(*heads, keys, values)
    if draw(st.booleans()):
        tensors = tuple(tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in tensors)
    shape = [draw(st.sampled_from([1, size])) for size in (*heads, queries, keys)]
    mask = meta(*shape[draw(st.integers(0, len(heads))) :]) if draw(st.booleans()) else None
    return tensors, {"attn_mask": mask} if mask is not None else {}


@given(attentions())
def test_attention(case: tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]) -> None:
    tensors, options = case
    mask = options.get("attn_mask")
    found = SHORTCUTS[ATTENTION](*tensors, *([] if mask is None else [mask]))
    assert found is None or same(found, ATTENTION(*tensors, **options))


@pytest.mark.parametrize("masked", [False, True])
def test_the_usual_attention_is_not_left_to_torch(masked: bool) -> None:
    mask = [meta(1, 1, 5, 7)] if masked else []
    assert SHORTCUTS[ATTENTION](meta(2, 3, 5, 8), meta(2, 3, 7, 8), meta(2, 3, 7, 4), *mask) is not None


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        ((meta(2, 4, 5, 8), meta(2, 2, 5, 8), meta(2, 2, 5, 8)), {"enable_gqa": True}),
        ((meta(2, 4, 5, 8), meta(2, 4, 5, 6), meta(2, 4, 5, 8)), {}),
        ((meta(2, 4, 5, 8), meta(2, 4, 6, 8), meta(2, 4, 5, 8)), {}),
        ((meta(2, 4, 5, 8), meta(2, 4, 5, 8, dtype=torch.float64), meta(2, 4, 5, 8)), {}),
        ((meta(2, 4, 5, 8), meta(2, 4, 5, 8), meta(2, 4, 5, 8), meta(3, 5)), {}),
        ((torch.zeros(2, 4, 5, 8),) * 3, {}),
    ],
)
def test_other_attention_is_left_to_torch(tensors: tuple[Tensor, ...], options: dict[str, Any]) -> None:
    assert SHORTCUTS[ATTENTION](*tensors, **options) is None
