"""`export` writes the file that a runtime opens, from a name, a saved file, or the user's own model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import secateur as library

pytest.importorskip("onnxruntime")


def test_a_pruned_file_becomes_onnx_with_its_pedigree(secateur):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    assert secateur("prune", "lenet", "-o", "small.safetensors", "--ratio", ".5").code == 0
    found = secateur("export", "small.safetensors", "-o", "small.onnx")
    assert found.code == 0
    assert "input → output, fp32, free: batch" in found.out
    told = {one.key: one.value for one in onnx.load("small.onnx").metadata_props}
    assert told["secateur.model"] == "LeNet"
    assert told["secateur.preprocessing"] == '{"mean": [0.1307], "std": [0.3081]}'
    assert len(told["secateur.plans"]) > 60
    given = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
    (output,) = runtime.InferenceSession("small.onnx").run(None, {"input": given})
    with torch.inference_mode():
        expected = library.load("small.safetensors")(torch.from_numpy(given)).numpy()
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)


def test_pictures_calibrate_int8(secateur):
    from PIL import Image

    (secateur.folder / "digits").mkdir()
    for number in range(10):
        noise = np.random.default_rng(number).integers(0, 255, (40, 30), np.uint8)
        Image.fromarray(noise).save(secateur.folder / "digits" / f"{number}.png")
    found = secateur("export", "lenet", "-o", "net.onnx", "--int8", "--calibrate", "digits", "--json")
    assert found.code == 0
    assert found.json["precision"] == "int8"
    assert found.json["bytes"] < 120_000
    gap = found.json["gaps"][-1]
    assert gap["pictures"] == 10
    assert 0.5 <= gap["alike"] <= 1.0
    assert 0 < gap["mean"] < gap["error"]
    layers = [word for name in ("conv1", "conv2", "fc1", "fc2", "fc3") for word in ("--keep-float", name)]
    for command, output in (("export", "kept.onnx"), ("bundle", "kept")):
        options = ["-o", output, "--int8", "--calibrate", "digits", *layers, "--json"]
        kept = secateur(command, "lenet", *options).json["gaps"][-1]
        assert kept["snr"] > 60
        assert kept["alike"] == 1.0
    assert "same class" in (secateur.folder / "kept" / "README.md").read_text()
    (secateur.folder / "digits" / "3.png").write_bytes(b"no picture")
    found = secateur("export", "lenet", "-o", "other.onnx", "--int8", "--calibrate", "digits")
    assert found.code == 1
    assert "3.png cannot be read as a picture" in found.err
    assert "other.onnx" not in secateur.files()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--int8"], "--int8 and --calibrate go together"),
        (["--dynamic", "depth"], "'depth' is no size that can be free"),
        (["--static", "--dynamic", "batch"], "--static leaves no size free"),
        (["--dynamic", "height"], "does not take 1x1x60x28"),
        (["--int8", "--calibrate", "nowhere"], "nowhere is no folder"),
        (["--int8", "--calibrate", "."], "holds no picture"),
    ],
)
def test_what_makes_no_sense_is_refused(secateur, options, expected):
    found = secateur("export", "lenet", "-o", "net.onnx", *options)
    assert found.code in (1, 2)
    assert expected in found.err
    assert found.err.strip().splitlines()[-1].startswith("secateur: ")
    assert "net.onnx" not in secateur.files()
