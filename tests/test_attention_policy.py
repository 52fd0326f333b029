"""`attention="dims" | "heads" | "auto"`: what goes of attention, for every way in which heads are laid out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from tests.oracle import relative_error
from tests.zoo.tokens import CHANNELS, TOKENS, Projected, Separate, Stream


class Fused(Projected):
    """One layer for queries, keys and values; torch's own attention."""

    def mix(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.parts(x)))


class Apart(Separate):
    """Three layers, products by `@`."""

    def mix(self, x):
        q, k, v = self.parts(x)
        return self.joined((q @ k.mT * self.dims**-0.5).softmax(-1) @ v)


class Cosine(Separate):
    """The scale multiplies what was normalised: no weight can make up for another."""

    def mix(self, x):
        q, k, v = self.parts(x)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return self.joined((q @ k.mT / self.dims**0.5).softmax(-1) @ v)


class Torchs(Stream):
    """`nn.MultiheadAttention`."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def mix(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def pruned(kind, attention):
    """Prune half, judge by the oracle, verify again without the graph, and return the small model and the plan."""
    torch.manual_seed(0)
    model = kind().eval()
    small, plan = secateur.prune(model, TOKENS, ratio=0.5, min_channels=1, attention=attention)
    assert relative_error(model, plan, small, TOKENS) < 1e-9
    again = secateur.Plan.from_json(plan.to_json())
    assert again.attention == attention
    assert secateur.verify(model, small, again, TOKENS).values
    return small, plan


@pytest.mark.parametrize(
    ("kind", "attention", "heads", "dims"),
    [
        (Fused, "dims", 2, 4),
        (Fused, "auto", 2, 4),
        (Fused, "heads", 1, 8),
        (Apart, "dims", 2, 4),
        (Apart, "auto", 2, 4),
        (Apart, "heads", 1, 8),
        (Cosine, "dims", 2, 8),
        (Cosine, "auto", 1, 8),
        (Cosine, "heads", 1, 8),
    ],
)
def test_channels_of_every_head_go_or_whole_heads(kind, attention, heads, dims):
    small, _ = pruned(kind, attention)
    assert (small.heads, small.dims) == (heads, dims)


@pytest.mark.parametrize("attention", ["dims", "auto", "heads"])
def test_torchs_own_attention_keeps_its_embedding_a_multiple_of_its_heads(attention):
    small, _ = pruned(Torchs, attention)
    own = small.attention
    assert own.embed_dim == 8
    assert own.num_heads * own.head_dim == own.embed_dim
    assert own.num_heads == (1 if attention == "heads" else 2)


def test_the_scale_of_fewer_channels_is_made_up_for_in_the_weights():
    _, plan = pruned(Fused, "dims")
    (scale,) = plan.scales["qkv.weight"]
    assert scale.factor == pytest.approx(2**-0.5)
    assert len(scale.rows) == 2 * 4  # of the queries or of the keys
    assert not pruned(Fused, "heads")[1].scales


def test_a_policy_that_does_not_exist_is_refused():
    with pytest.raises(secateur.TraceError, match=r"attention='head' is not known\. Say one of auto, dims, heads"):
        secateur.trace(Fused(), TOKENS, attention="head")
