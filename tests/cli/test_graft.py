"""`graft` puts a saved part into its host and saves the whole; `inspect` says what a file holds."""

from __future__ import annotations

import importlib

import torch

import secateur as library
from secateur.artifact.reading import read


def test_a_pruned_backbone_goes_into_modnet(secateur):
    small = ["--input", "1x3x64x64"]
    assert secateur("prune", "mobilenetv2", "-o", "backbone.safetensors", "--ratio", ".5", *small).code == 0
    result = secateur(
        "graft", "modnet", "backbone.safetensors", "--at", "backbone.model", "-o", "host.safetensors", *small
    )
    assert result.code == 0
    assert "Proof: values identical; structure sound" in result.out
    assert secateur.files() == {"backbone.safetensors", "host.safetensors"}
    backbone, host = library.load("backbone.safetensors"), library.load("host.safetensors")
    for name, tensor in host.backbone.model.state_dict().items():
        assert torch.equal(tensor, backbone.state_dict()[name])
    assert secateur("verify", "host.safetensors").code == 0


def test_the_figures_are_there_for_machines(secateur):
    small = ["--input", "1x3x64x64"]
    assert secateur("prune", "mobilenetv2", "-o", "backbone.safetensors", "--ratio", ".5", *small).code == 0
    words = ["graft", "modnet", "backbone.safetensors", "--at", "backbone.model", "-o", "host.safetensors", *small]
    found = secateur(*words, "--json").json
    assert found["proof"]["structure"]
    assert found["params"]["after"] < 0.5 * found["params"]["before"]
    file = secateur("inspect", "host.safetensors", "--json").json
    assert file["plans"][0]["recipe"]["graft"] == {"at": "backbone.model", "conflict": "error"}
    assert file["provenance"]["donor"] == "backbone.safetensors"
    assert file["proof"]["mask_error"] == found["proof"]["mask_error"]


def test_a_part_that_is_not_there_is_answered_with_the_nearest(secateur):
    assert secateur("prune", "lenet", "-o", "lenet.safetensors", "--ratio", ".5").code == 0
    result = secateur("graft", "modnet", "lenet.safetensors", "--at", "backbne", "-o", "host.safetensors")
    assert result.code == 1
    assert "Did you mean backbone" in result.err
    assert secateur.files() == {"lenet.safetensors"}


def test_a_file_says_what_it_holds(secateur):
    assert secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5", "--seed", "3").code == 0
    result = secateur("inspect", "small.safetensors")
    assert result.code == 0
    for word in ("lenet()", "1x1x28x28", "criterion", "ratio 0.5", "seed", "mask_error", "torch 2"):
        assert word in result.out
    assert secateur("inspect", "nowhere.safetensors").code == 1


def test_the_two_ways_of_keeping_a_pruned_model_are_converted(secateur):
    assert secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5").code == 0
    assert secateur("convert", "small.safetensors", "plan.json").out == "plan.json: the plan alone, as JSON.\n"
    assert secateur("convert", "small.safetensors", "small.pth").code == 0
    words = ["convert", "small.pth", "again.safetensors", "--model", "lenet", "--plan", "plan.json"]
    assert secateur(*words, "--json").json["written"] == "weights and plan, as secateur's own file"
    small, again = library.load("small.safetensors"), library.load("again.safetensors")
    assert all(torch.equal(one, other) for one, other in zip(small.parameters(), again.parameters(), strict=True))
    refused = secateur("convert", "small.pth", "out.safetensors")
    assert refused.code == 1
    assert "Pass the full-size model" in refused.err


HOST = """
from torch import nn
from my_nets import small


def host():
    return nn.Sequential(small(), nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1)))
"""


def test_a_saved_host_of_the_users_own_takes_a_part(secateur):
    (secateur.folder / "hosts.py").write_text(HOST)
    size = ["--input", "1x3x24x24"]
    assert secateur("prune", "hosts:host", "-o", "first.safetensors", "--ratio", "1.0=0.5", *size).code == 0
    full, plan = importlib.import_module("hosts").host().eval(), read("first.safetensors").plan
    known = {"mean": [0.5] * 3, "std": [0.5] * 3}
    library.save("host.safetensors", library.load("first.safetensors", into=full), plan, preprocessing=known)
    assert secateur("prune", "my_nets:small", "-o", "part.safetensors", "--ratio", ".5", *size).code == 0
    words = ["graft", "host.safetensors", "part.safetensors", "--at", "0", "-o", "whole.safetensors"]
    result = secateur(*words, "--model", "hosts:host", "--donor-model", "my_nets:small")
    assert result.code == 0, result.err
    assert read("whole.safetensors").preprocessing == known
    assert secateur("verify", "whole.safetensors", "--model", "hosts:host").code == 0
    part, whole = (library.load(f"{name}.safetensors", into=one) for name, one in (("part", full[0]), ("whole", full)))
    assert torch.equal(whole[0][0].weight, part[0].weight)
