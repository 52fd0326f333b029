"""`explain` on the command line: short, at most 100 columns, and the same as data."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("model", ["mobilenetv2", "modnet", "lenet"])
def test_a_whole_model_fits_a_screen(secateur, model):
    result = secateur("explain", model, "-q")
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 100
    assert "What stays, and why" in lines
    assert result.err == ""


def test_groups_stand_largest_first_with_what_ties_them(secateur):
    found = secateur("explain", "mobilenetv2", "--json").json
    shares = [story["share"]["params"] for story in found["groups"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(story["share"]["groups"] for story in found["groups"]) == 25
    stream = next(story for story in found["groups"] if story["share"]["name"] == "features.14.conv.6")
    assert [joint["module"] for joint in stream["parts"][0]["joints"]] == ["features.15", "features.16"]
    reasons = [story["obstacle"]["reason"]["text"] for story in found["stays"]]
    assert any("leave the model" in reason for reason in reasons)


def test_one_layer_is_told_with_its_ways(secateur):
    out = secateur("explain", "mobilenetv2", "--at", "features.5.conv.6", "-q").out
    assert out.startswith("features.5.conv.6 (Conv2d)")
    assert "add in features.5 (mobilenetv2.py:" in out


def test_one_layer_as_data_has_whole_paths_and_every_channel(secateur):
    found = secateur("explain", "mobilenetv2", "--at", "features.0.0", "--json").json
    outputs, inputs = found["sides"]
    assert outputs["roles"] == ["written"]
    assert outputs["parts"][0]["channels"] == list(range(32))
    source = inputs["parts"][0]["obstacles"][0]["reason"]["source"]
    assert source.rpartition(":")[0].endswith("secateur/models/mobilenetv2.py")


def test_a_misspelt_layer_is_one_line_with_the_nearest(secateur):
    result = secateur("explain", "lenet", "--at", "conv3", "-q")
    assert (result.code, result.out) == (1, "")
    assert result.err == "secateur: No layer with parameters is called 'conv3'. Did you mean conv2 or conv1?\n"
