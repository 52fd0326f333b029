"""`nn.MultiheadAttention`, written with sizes that can be followed.

torch's own function reads its sizes where no trace can look, so runs on labels take this one: the same function, and
the same conditions on the widths (as many query rows as the embedding is wide, divided evenly among the heads).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from secateur.graph.registry import FUNCTIONS


def multi_head_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    width: int,
    heads: int,
    in_weight: torch.Tensor | None,
    in_bias: torch.Tensor | None,
    bias_k: torch.Tensor | None,
    bias_v: torch.Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor | None,
    training: bool = True,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: torch.Tensor | None = None,
    k_proj_weight: torch.Tensor | None = None,
    v_proj_weight: torch.Tensor | None = None,
    static_k: torch.Tensor | None = None,
    static_v: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(L, B, E), (S, B, Ek), (S, B, Ev) to (L, B, E) and weights (B, L, S) or (B, H, L, S); B may be missing."""
    if static_k is not None or static_v is not None or (is_causal and attn_mask is None):
        raise NotImplementedError("attention with static keys, or causal without a mask")
    batched = query.ndim == 3
    if not batched:
        query, key, value = (tensor.unsqueeze(1) for tensor in (query, key, value))
    if query.shape[-1] != width or width // heads * heads != width:
        raise ValueError(f"the embedding has {int(query.shape[-1])} channels instead of {int(width)}")
    weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_weight.chunk(3)  # type: ignore[union-attr]
    biases: Any = (None,) * 3 if in_bias is None else in_bias.chunk(3)
    q, k, v = map(F.linear, (query, key, value), weights, biases)
    k, v = _lengthened(k, bias_k, add_zero_attn), _lengthened(v, bias_v, add_zero_attn)
    q, k, v = (x.reshape(x.shape[0], x.shape[1], heads, width // heads).permute(1, 2, 0, 3) for x in (q, k, v))
    scores = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
    scores = _masked(scores, attn_mask, key_padding_mask, add_zero_attn + (bias_k is not None))
    shares = F.dropout(scores.softmax(-1), dropout_p, training)
    mixed = (shares @ v).permute(2, 0, 1, 3).reshape(query.shape[0], query.shape[1], width)
    out, shares = F.linear(mixed, out_weight, out_bias), shares.mean(1) if average_attn_weights else shares
    if not batched:
        out, shares = out.squeeze(1), shares.squeeze(0)
    return out, shares if need_weights else None


def _lengthened(x: torch.Tensor, bias: torch.Tensor | None, zero: bool) -> torch.Tensor:
    """Add a learned row and a row of zeros to keys or values (S, B, E)."""
    if bias is not None:
        x = torch.cat([x, bias.repeat(1, x.shape[1], 1)])
    return torch.cat([x, torch.zeros_like(x[:1])]) if zero else x


def _masked(
    scores: torch.Tensor, mask: torch.Tensor | None, padding: torch.Tensor | None, further: int
) -> torch.Tensor:
    """Add masks (L, S), (B * H, L, S) and (B, S) to scores (B, H, L, S); `further` keys are masked by none."""
    if mask is not None:
        laid = mask.reshape(scores.shape[0], -1, *mask.shape[-2:]) if mask.ndim == 3 else mask
        scores = scores + F.pad(_additive(laid, scores), (0, further))
    if padding is not None:
        scores = scores + F.pad(_additive(padding, scores), (0, further))[:, None, None, :]
    return scores


def _additive(mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device).masked_fill(mask, float("-inf"))


FUNCTIONS[F.multi_head_attention_forward] = multi_head_attention
