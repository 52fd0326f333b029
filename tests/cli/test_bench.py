"""`bench` times models side by side, `runtimes` lists what there is."""

from __future__ import annotations

import pytest


def test_two_models_side_by_side_in_figures_and_a_picture(secateur):
    assert secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5").code == 0
    options = ["--batch", "1,2", "--threads", "1", "--seconds", "0", "--figure", "times.png"]
    found = secateur("bench", "lenet", "small.safetensors", *options, "--json")
    assert found.code == 0
    cells = found.json["cells"]
    assert [(cell["network"], cell["sizes"]["batch"]) for cell in cells] == [
        ("lenet", 1), ("small.safetensors", 1), ("lenet", 2), ("small.safetensors", 2),
    ]  # fmt: skip
    assert all(cell["median_ms"] > 0 for cell in cells)
    assert [cell["times_as_fast"] is None for cell in cells] == [True, False, True, False]
    assert found.json["machine"]["cores"] >= 1
    assert "times.png" in secateur.files()


def test_where_the_time_goes_is_told_by_layer_and_branch(secateur):
    options = ["--threads", "1", "--seconds", "0", "--by-layer"]
    found = secateur("bench", "lenet", "lenet", *options)
    assert found.code == 0
    for words in ("torch fp32 batch 1, by layer", "by branch", "Conv2d", "lenet (2): "):
        assert words in found.out
    (profiles,) = secateur("bench", "lenet", *options, "--json").json["profiles"]
    assert {layer["layer"] for layer in profiles["networks"][0]["layers"]} >= {"conv1", "fc3"}
    found = secateur("bench", "lenet", *options, "--on", "torch-compile")
    assert "torch-compile does not tell what its layers take." in found.out


def test_the_table_has_a_row_for_each_batch_and_says_what_failed(secateur):
    found = secateur("bench", "lenet", "lenet", "--size", "30x30", "--seconds", "0")
    assert found.code == 1
    assert "lenet (2), torch fp32, batch 1 at 30x30: failed" in found.out
    assert "Nothing could be measured" in found.err


def test_what_this_machine_has_not_is_passed_over_and_told(secateur, caplog):
    found = secateur("bench", "lenet", "--batch", "1", "--seconds", "0", "--device", "cpu,tpu")
    assert found.code == 0
    assert "Passed over, as this machine has it not: torch fp32 on tpu." in caplog.text
    assert "torch fp32 on cpu, opened alone" in found.out
    assert "ms, first call" in found.out


def test_a_size_that_a_network_cannot_take_is_answered_with_those_that_it_may(secateur):
    wanted = "Many networks take multiples of 32 alone: try 96x64 or 64x64."
    found = secateur("bench", "modnet", "--size", "72x64", "--seconds", "0")
    assert wanted in " ".join(found.out.split())
    for line in (["prune", "modnet", "-o", "x.safetensors", "--ratio", "0.5"], ["export", "modnet", "-o", "x.onnx"]):
        found = secateur(*line, "--input", "1x3x72x64")
        assert found.code == 1
        assert wanted in found.err
    assert secateur.files() == set()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--batch", "0"], "'0' is no list of batches"),
        (["--batch", "1,x"], "'1,x' is no list of batches"),
        (["--size", "12y"], "'12y' is no size of pictures"),
        (["--on", "torhc"], "no runtime 'torhc'. Did you mean torch"),
        (["--precision", "fp7"], "precision='fp7' is not known"),
        (["--figure", "times.gif"], "must end in .svg or .png"),
    ],
)
def test_what_makes_no_sense_is_refused(secateur, options, expected):
    found = secateur("bench", "lenet", *options)
    assert found.code in (1, 2)
    assert expected in found.err
    assert found.err.count("\n") == 1


def test_runtimes_are_listed(secateur):
    found = secateur("runtimes", "--json").json
    names = [one["name"] for one in found["runtimes"]]
    assert names == ["torch", "torch-channels-last", "torch-compile", "onnxruntime", "openvino"]
    torch = found["runtimes"][0]
    assert torch["version"]
    assert torch["devices"][0][0] == "cpu"
    assert "fp32" in secateur("runtimes").out


def test_the_staircase_is_tabulated_and_drawn(secateur, monkeypatch):
    monkeypatch.setenv("SECATEUR_CACHE", str(secateur.folder / "cache"))
    options = ["--on", "torch", "--threads", "1", "--figure", "stairs.svg"]
    found = secateur("probe", "my_nets:small", "--input", "1x3x64x64", *options)
    assert found.code == 0
    assert "conv 3x3 at 62x62" in found.out
    assert "Channels are best kept at multiples of" in found.out
    assert "stairs.svg" in secateur.files()
    assert secateur("probe", "lenet").err.startswith("secateur: Say on which runtime: --on openvino.")


def test_weights_that_no_model_takes_are_refused(secateur):
    (secateur.folder / "net.onnx").touch()
    found = secateur("bench", "net.onnx", "--weights", "net.safetensors")
    assert found.code == 2
    assert "saved and exported files have weights of their own. Leave it out" in found.err
