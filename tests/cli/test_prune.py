"""`prune` cuts to a budget, proves it, shows it layer by layer, and saves what `load` and `verify` take back."""

from __future__ import annotations

import importlib

import pytest
import torch

import secateur as library
from secateur.artifact.reading import read
from secateur.models import LeNet, MobileNetV2


def test_a_zoo_model_is_pruned_shown_and_saved(secateur):
    result = secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", "0.5")
    assert result.code == 0
    assert "120 → 60" in result.out
    assert "Proof: values identical" in result.out
    assert secateur.files() == {"small.safetensors"}
    small = library.load("small.safetensors")
    assert small.fc1.out_features == 60
    assert small(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_json_says_what_the_table_says(secateur):
    result = secateur("prune", "lenet", "-o", "small.safetensors", "--macs", "0.4x", "--min-channels", "2", "--json")
    found = result.json
    assert found["macs"]["after"] <= 0.4 * found["macs"]["before"]
    assert [layer["name"] for layer in found["layers"]] == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert sum(layer["params"]["after"] for layer in found["layers"]) == found["params"]["after"]
    assert (
        sum(parameter.numel() for parameter in library.load("small.safetensors").parameters())
        == (found["params"]["after"])
    )
    assert found["proof"]["values"]
    assert found["proof"]["mask_error"] < 1e-9


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(secateur):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["--ratio", ".5", "--seed", str(seed), "--figure", f"{name}.svg"]
        assert secateur("prune", "lenet", "-o", f"{name}.safetensors", *options).code == 0
    a, b, c = ((secateur.folder / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    assert (secateur.folder / "a.svg").read_bytes() == (secateur.folder / "b.svg").read_bytes()


def test_weights_are_read_and_verified_against(secateur):
    torch.manual_seed(7)
    torch.save({"state_dict": LeNet().state_dict()}, "trained.pth")
    assert secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5", "--weights", "trained.pth").code == 0
    right = secateur("verify", "small.safetensors", "--against", "trained.pth")
    assert right.code == 0
    assert "values identical" in right.out
    torch.save(LeNet().state_dict(), "other.pth")
    wrong = secateur("verify", "small.safetensors", "--against", "other.pth")
    assert wrong.code == 1
    assert "differs from the original" in wrong.err


def test_a_users_own_model_is_pruned_and_verified_with_its_class(secateur):
    shapes = ["--input", "2x3x16x16", "--input", "2x5"]
    assert secateur("prune", "my_nets:TwoInputs", "-o", "small.safetensors", "--ratio", ".5", *shapes).code == 0
    assert secateur("verify", "small.safetensors", "--model", "my_nets:TwoInputs").code == 0
    alone = secateur("verify", "small.safetensors")
    assert alone.code == 1
    assert "--model package.module:callable" in alone.err


def test_a_pruned_model_is_pruned_again(secateur):
    assert secateur("prune", "lenet", "-o", "half.safetensors", "--ratio", ".5").code == 0
    assert secateur("prune", "half.safetensors", "-o", "quarter.safetensors", "--ratio", ".5").code == 0
    assert library.load("quarter.safetensors").fc1.out_features == 30
    assert secateur("verify", "quarter.safetensors").code == 0
    assert secateur("analyze", "quarter.safetensors", "--json").json["total"]["all_params"] < 8_000


def test_the_articles_configuration_works_from_a_file(secateur):
    (secateur.folder / "article.yaml").write_text("- sparsity: 0.8\n  op_types: [Conv2d]\n")
    options = ["--config", "article.yaml", "--min-channels", "1", "--json"]
    result = secateur("prune", "mobilenetv2", "-o", "small.safetensors", *options)
    assert 360_000 < result.json["params"]["after"] < 364_000
    assert len(result.json["layers"]) == 53
    assert type(library.load("small.safetensors")) is MobileNetV2


def test_options_reach_the_plan(secateur):
    options = ["--ratio", "0.5", "--round-to", "8", "--ignore", "conv2", "--max-ratio", "0.4", "--criterion", "lp:3"]
    result = secateur("prune", "lenet", "-o", "small.safetensors", *options, "--json")
    channels = {layer["name"]: layer["channels"]["after"] for layer in result.json["layers"]}
    assert channels["conv2"] == 16
    assert channels["fc1"] == 72
    assert result.json["recipe"]["criterion"] == "lp:3"


def test_shares_by_layer_and_a_ranking_reach_the_plan(secateur):
    shares = ["--ratio", "0.5", "--ratio", "fc1=0", "--ratio", "conv*=0.75", "--max-ratio", "conv2=0.25"]
    options = [*shares, "--min-channels", "1", "--ranking", "isomorphic", "--figure", "widths.svg"]
    result = secateur("prune", "lenet", "-o", "small.safetensors", *options, "--json")
    assert result.json["recipe"]["budget"] == {"ratio": {"*": 0.5, "fc1": 0.0, "conv*": 0.75}}
    assert result.json["recipe"]["ranking"] == "isomorphic"
    channels = {layer["name"]: layer["channels"] for layer in result.json["layers"]}
    assert channels["fc1"]["after"] == 120
    assert channels["fc2"]["after"] == 42
    assert channels["conv1"]["after"] < channels["conv1"]["before"]
    assert channels["conv2"]["after"] == 12
    assert "fc1=0" in (secateur.folder / "widths.svg").read_text()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (["fc1=1"], "Give a number of at least 0 and below 1"),
        (["=0.5"], "names no layer"),
        (["fc1=0.5", "fc1=0.2"], "the second share for fc1"),
        (["0.5", "0.2"], "the second share for *"),
        (["fc11=0.5"], "Did you mean fc1"),
    ],
)
def test_shares_that_make_no_sense_are_refused(secateur, shares, expected):
    result = secateur(
        "prune", "lenet", "-o", "small.safetensors", *(word for one in shares for word in ("--ratio", one))
    )
    assert result.code in (1, 2)
    assert expected in result.err


def test_quiet_means_quiet_and_stdout_is_for_results(secateur):
    quiet = secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5", "-q")
    assert quiet.err == ""
    loud = secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5")
    assert "proving" in loud.err
    assert loud.out == quiet.out


def test_random_weights_are_named_as_such(secateur, caplog):
    secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5")
    assert "weights of lenet are random" in caplog.text


def test_lenets_table_is_as_it_was(secateur, golden):
    out = secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5", "-q").out
    golden("prune_lenet.out", out.partition("Proof")[0])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_drawn(secateur, suffix):
    pytest.importorskip("matplotlib")
    assert (
        secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5", "--figure", f"widths.{suffix}").code == 0
    )
    assert secateur.files() == {"small.safetensors", f"widths.{suffix}"}


def test_whole_heads_are_cut_on_request_and_proved_again_from_the_file(secateur):
    options = ["--input", "2x6x16", "--ratio", ".5", "--min-channels", "1", "--attention", "heads"]
    assert secateur("prune", "my_nets:Attending", "-o", "small.safetensors", *options).code == 0
    small = library.load("small.safetensors", into=importlib.import_module("my_nets").Attending())
    assert (small.heads, small.dims) == (2, 4)
    assert secateur("verify", "small.safetensors", "--model", "my_nets:Attending").code == 0
    dims = secateur("analyze", "my_nets:Attending", "--input", "2x6x16", "--attention", "dims", "--json").json
    heads = secateur("analyze", "my_nets:Attending", "--input", "2x6x16", "--attention", "heads", "--json").json
    assert [group["size"] for group in dims["groups"]] != [group["size"] for group in heads["groups"]]


def test_outputs_are_narrowed_on_request_and_proved_again_from_the_file(secateur):
    assert secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5", "--min-channels", "4").code == 0
    assert library.load("small.safetensors")(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    options = ["--ratio", ".5", "--min-channels", "4", "--free-outputs"]
    assert secateur("prune", "lenet", "-o", "narrow.safetensors", *options).code == 0
    assert library.load("narrow.safetensors")(torch.zeros(1, 1, 28, 28)).shape == (1, 5)
    assert secateur("verify", "narrow.safetensors").code == 0


def test_batch_and_size_are_what_the_plan_is_made_for(secateur):
    options = ["--batch", "2", "--size", "64x96", "--macs", "0.5x", "--json"]
    assert secateur("prune", "mobilenetv2", "-o", "small.safetensors", *options).code == 0
    assert read("small.safetensors").plan.calls[0].shapes == ((2, 3, 64, 96),)
    result = secateur("prune", "modnet", "-o", "m.safetensors", "--ratio", "0.5", "--size", "500")
    assert result.code == 1
    assert "multiples of 32 alone: try 512x512" in result.err


def test_a_time_is_a_budget_on_a_runtime(secateur, monkeypatch):
    monkeypatch.setenv("SECATEUR_CACHE", str(secateur.folder / "cache"))
    options = ["--latency", "0.6x", "--on", "torch", "--threads", "1", "--round-to", "8", "--input", "1x3x64x64"]
    found = secateur("prune", "mobilenetv2", "-o", "small.safetensors", *options, "--figure", "search.png")
    assert found.code == 0
    assert (secateur.folder / "search.png").read_bytes().startswith(b"\x89PNG")
    assert "Measured on torch fp32, 1 threads: the model takes" in found.out
    assert "measured on torch: with " in found.err
    latency = library.inspect("small.safetensors").plan.recipe["latency"]
    assert latency["chosen"] in latency["candidates"]
    assert latency["chosen"]["time"] <= 1.05 * 0.6  # as the search measured it


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--latency", "0.5x"], "Say on which: --on openvino"),
        (["--latency", "0.5x", "--on", "torch", "--macs", "0.5x"], "--latency stands alone, and --macs"),
        (["--latency", "soon", "--on", "torch"], "'soon' is no time"),
        (["--latency", "0.5x", "--on", "tourch"], "no runtime 'tourch'. Did you mean torch"),
        (["--macs", "0.5x", "--on", "torch", "--device", "tpu", "--round-to", "1"], "no device 'tpu'"),
    ],
)
def test_times_that_make_no_sense_are_refused(secateur, options, expected):
    found = secateur("prune", "lenet", "-o", "small.safetensors", *options)
    assert found.code in (1, 2)
    assert expected in found.err
    assert secateur.files() == set()


def test_a_part_is_pruned_alone_and_fits_back_where_it_came_from(secateur):
    small = ["--ratio", "0.5", "--input", "1x3x64x64"]
    assert secateur("prune", "modnet", "--part", "backbone.model", "-o", "part.safetensors", *small).code == 0
    found = library.load("part.safetensors")
    assert type(found).__name__ == "MobileNetV2"
    assert read("part.safetensors").preprocessing == {"mean": [0.5] * 3, "std": [0.5] * 3}  # MODNet's
    words = ["graft", "modnet", "part.safetensors", "--at", "backbone.model", "-o", "host.safetensors"]
    assert secateur(*words, "--input", "1x3x64x64").code == 0
    missing = secateur("prune", "modnet", "--part", "backbne.model", "-o", "none.safetensors", *small)
    assert missing.code == 2
    assert "Did you mean backbone.model" in missing.err
