"""The coverage benchmark: its judge sees what is wrong, and nothing that a model does ends a run or is lost."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from benchmarks import coverage, random_networks, unseen
from benchmarks.coverage_table import streak, write_table
from benchmarks.isolation import Limits
from benchmarks.judging import judge_plan, judge_pruner
from benchmarks.records import Records, pending, run_one
from tests.zoo import ZOO


class Attention(nn.Module):
    """A block of a transformer: layer norms, a residual stream, attention with a softmax."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.embed = nn.Linear(6, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).flatten(2))
        return self.head(x.mean(1))


NETS = {
    "residual": (ZOO["IdentityResidual"].build, ZOO["IdentityResidual"].example, "stem.0.weight", 0),
    "grouped": (ZOO["InvertedResidual"].build, ZOO["InvertedResidual"].example, "depthwise.0.weight", 0),
    "layer norm": (ZOO["ConvNeXtBlock"].build, ZOO["ConvNeXtBlock"].example, "norm.weight", 0),
    "attention": (Attention, torch.zeros(2, 5, 6), "norm.weight", 0),
}


@pytest.mark.parametrize("net", NETS)
def test_a_sound_cut_is_right_and_a_tampered_one_is_wrong(net):
    build, example, tensor, axis = NETS[net]
    torch.manual_seed(3)
    model = build().eval()
    small, plan = secateur.prune(model, example, ratio=0.5, min_channels=1)
    sound = judge_plan(model, small, plan, example, secateur.cut)
    assert (sound.verdict, sound.reference in ("zeros", "marks")) == ("right", True), sound
    kept = list(plan.keep[tensor][axis])
    kept[0] = plan.removed(tensor, axis)[0]
    tampered = dataclasses.replace(plan, keep={**plan.keep, tensor: {**plan.keep[tensor], axis: tuple(kept)}})
    found = judge_plan(model, secateur.cut(model, tampered), tampered, example, secateur.cut, secateur.mask)
    assert found.verdict == "wrong", found
    assert found.error is not None
    assert found.error > 1e-4


@pytest.mark.parametrize("name", [name for name, specimen in ZOO.items() if specimen.reference == "mask"])
def test_statistics_across_channels_need_no_simulation_of_the_engine(name):
    torch.manual_seed(5)
    model, example = ZOO[name].build().eval(), ZOO[name].example
    small, plan = secateur.prune(model, example, ratio=0.5, min_channels=1)
    assert plan.is_empty or judge_plan(model, small, plan, example, secateur.cut).verdict == "right"


def narrowed(full: Any, hidden: list[int], inputs: list[int]) -> nn.Sequential:
    """Keep hidden units of a network of two layers: of the first layer these, of the second those."""
    first, second = nn.Linear(4, len(hidden)), nn.Linear(len(inputs), 2)
    first.weight.data, first.bias.data = full[0].weight[hidden].detach(), full[0].bias[hidden].detach()
    second.weight.data, second.bias.data = full[2].weight[:, inputs].detach(), full[2].bias.detach()
    return nn.Sequential(first, nn.Tanh(), second)


@pytest.mark.parametrize(("inputs", "verdict"), [([0, 2, 3], "right"), ([2, 0, 3], "wrong"), ([0, 1, 3], "wrong")])
def test_what_a_pruner_removed_is_read_off_the_numbers(inputs, verdict):
    model, example = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), torch.zeros(3, 4)
    assert judge_pruner(model, lambda full: narrowed(full, [0, 2, 3], inputs), example).verdict == verdict


class Poisoned(nn.Sequential):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as torch names it
        out = super().forward(input)
        return torch.where(out == out.max(), torch.nan, out)


def test_an_output_with_nan_in_it_is_never_right():
    model, example = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), torch.zeros(3, 4)
    found = judge_pruner(model, lambda full: Poisoned(*narrowed(full, [0, 2, 3], [0, 2, 3])), example)
    assert found.verdict == "wrong"


def test_a_run_tells_of_every_model_and_goes_on_where_it_ended(tmp_path):
    out, document = tmp_path / "found.jsonl", tmp_path / "coverage.md"
    arguments = ["--only", "zoo/IdentityResidual,zoo/NoSuchNet", "--no-peers", "--jobs", "2", "--out", str(out)]
    assert coverage.main([*arguments, "--document", str(document)]) == 0
    found = {record["model"]: record for record in map(json.loads, out.read_text().splitlines())}
    assert found["zoo/IdentityResidual"]["verdict"] == "right"
    assert found["zoo/NoSuchNet"]["verdict"] == "not built"
    assert "NoSuchNet" in found["zoo/NoSuchNet"]["note"]
    before = out.read_text()
    assert coverage.main([*arguments, "--document", str(document)]) == 0
    assert out.read_text() == before


def test_a_line_cut_short_is_run_again(tmp_path):
    out = tmp_path / "found.jsonl"
    out.write_text('{"contender": "secateur", "model": "zoo/A", "code": "", "verdict": "right"}\n{"contender": "sec')
    records, jobs = Records(out), [("secateur", "zoo/A"), ("secateur", "zoo/B")]
    assert pending(jobs, records) == [("secateur", "zoo/B")]
    records.add({"contender": "secateur", "model": "zoo/B", "code": "", "verdict": "wrong"})
    assert pending(jobs, Records(out)) == []
    assert pending(jobs, Records(out), stale=True) == jobs


def test_limits_end_a_model_that_takes_too_much():
    assert run_one(("secateur", "zoo/IdentityResidual"), Limits(0.3, 4), 0.5)["verdict"] == "timeout"
    assert run_one(("secateur", "zoo/IdentityResidual"), Limits(60, 0.01), 0.5)["verdict"] == "out of memory"


def test_the_table_counts_and_compares(tmp_path):
    records = Records(tmp_path / "found.jsonl")
    common = {"code": "", "left": 0.3, "trace_s": 0.2, "total_s": 2.0, "protected": [["conv2d: why (net.py:7)", 0.2]]}
    records.add({"contender": "secateur", "model": "timm/a", "verdict": "right", "error": 1e-14, **common})
    records.add({"contender": "secateur", "model": "timm/b", "verdict": "wrong", "error": 0.5, **common})
    records.add({"contender": "secateur", "model": "timm/c", "verdict": "too large", "code": ""})
    records.add({"contender": "torch_pruning", "model": "timm/a", "verdict": "crashed", "note": "why", "trace_s": 0.1})
    drawn = Records(tmp_path / "unseen.jsonl")
    for model, verdict in (("timm/d", "wrong"), ("timm/e", "right"), ("timm/f", "too large")):
        drawn.add({"contender": "secateur", "model": model, "verdict": verdict, "code": ""})
    results = [random_networks.Result(7, "right", 0.5), random_networks.Result(8, "mute")]
    random_networks.keep(results, tmp_path / "random_networks.json")
    write_table(records, tmp_path / "coverage.md")
    text = (tmp_path / "coverage.md").read_text()
    assert "3 networks of timm drawn at random: 1 wrong, 1 right, 1 too large; the last 1 that could be" in text
    assert "the seeds 7 to 8: 1 right, 1 mute; 50 % of the parameters cut on average, nothing of 0 networks" in text
    assert "| **secateur, all** | 2 | 1 | 1 | 0 | 0 | 0 | 50 % |" in text
    assert "median ratio 2.00 over the 1 models that both trace; slower on 1: timm/a 2.00x" in text
    assert "| a | right |  | 1e-14 | 30 % | 0.20 / 2.00 | 20 %: conv2d: why (net.py:7) | fails: why |" in text
    assert "- **timm/b**, wrong" in text


def test_the_adversary_draws_nothing_twice_and_counts_what_is_right_in_a_row(monkeypatch):
    monkeypatch.setattr(unseen, "all_of_timm", lambda: [f"timm/{number}" for number in range(30)])
    first = unseen.drawn(seed=1, count=5, seen=set())
    assert first == unseen.drawn(seed=1, count=5, seen=set())
    assert not set(first) & set(unseen.drawn(seed=1, count=40, seen=set(first)))
    verdicts = ["right", "wrong", "right", "refused", "left whole", "right"]
    assert streak([{"verdict": verdict} for verdict in verdicts]) == 2
