"""`analyze` counts as the literature does, and says what is coupled and what stays."""

from __future__ import annotations

import pytest


@pytest.fixture
def modnet(secateur):
    result = secateur("analyze", "modnet", "--input", "1x3x512x512", "--json")
    assert result.code == 0
    return result.json


@pytest.mark.parametrize(
    ("name", "params", "macs", "inference_macs"),
    [
        ("lr", 6.158e6, 5.026e9, 5.026e9),
        ("hr", 0.2449e6, 10.138e9, 7.487e9),
        ("fusion", 0.0492e6, 2.953e9, 2.953e9),
    ],
)
def test_modnets_branches_cost_what_the_article_says(modnet, name, params, macs, inference_macs):
    branch = next(branch for branch in modnet["branches"] if branch["name"] == name)
    inference = next(branch for branch in modnet["inference_branches"] if branch["name"] == name)
    assert branch["params"] == pytest.approx(params, rel=0.002)
    assert branch["macs"] == pytest.approx(macs, rel=0.002)
    assert inference["macs"] == pytest.approx(inference_macs, rel=0.002)


def test_the_backbone_stands_in_one_branch_and_everything_adds_up(modnet):
    assert [branch["name"] for branch in modnet["branches"]] == ["lr", "hr", "fusion"]
    assert modnet["total"]["all_params"] == sum(branch["all_params"] for branch in modnet["branches"]) == 6_487_075
    assert modnet["total"]["macs"] == pytest.approx(18.117e9, rel=0.002)


def test_what_may_be_cut_and_what_not_is_told_with_its_place(modnet):
    assert modnet["prunable"]["params"] > 0.95
    assert sum(group["groups"] for group in modnet["groups"]) > 40
    stem = next(entry for entry in modnet["protected"] if entry["layer"] == "backbone.model.features.0.0")
    assert stem["channels"] == 3
    assert "mobilenetv2.py:" in stem["source"]


def test_the_largest_reasons_for_what_stays_come_first(modnet):
    held = modnet["held"]
    shares = [max(reason["params"], reason["macs"]) for reason in held]
    assert shares == sorted(shares, reverse=True)
    left = 1 - modnet["prunable"]["macs"]
    assert 0 < held[0]["macs"] <= left


def test_three_reasons_are_told_with_what_would_free_them(secateur):
    out = secateur("analyze", "mobilenetv2", "-q").out
    stays = out.partition("What stays, and why")[2]
    assert "features.0.0 input (3)" in stays
    assert "classifier output (1000)" in stays
    assert "free_outputs=True" in stays
    assert "secateur explain mobilenetv2" in stays


def test_other_models_branches_are_their_children(secateur):
    result = secateur("analyze", "my_nets:TwoInputs", "--input", "1x3x8x8", "--input", "1x5", "--json")
    assert [branch["name"] for branch in result.json["branches"]] == ["picture", "number", "out"]
    assert result.json["input"] == [[[1, 3, 8, 8], [1, 5]]]


def test_the_table_is_for_people_and_progress_stays_off_stdout(secateur):
    result = secateur("analyze", "lenet")
    assert result.code == 0
    assert "share of MACs" in result.out
    assert "tracing" not in result.out
    assert "tracing" in result.err
    assert secateur("analyze", "lenet", "-q").err == ""


def test_lenets_tables_are_as_they_were(secateur, golden):
    golden("analyze_lenet.out", secateur("analyze", "lenet", "-q").out.partition("What stays")[0])
