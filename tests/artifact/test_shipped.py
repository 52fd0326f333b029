"""Trained networks come with the package: small enough, whole, and good at cutting out people they never saw."""

import pytest
import torch

import secateur
from secateur.artifact.reading import read
from secateur.artifact.shipped import FOLDER, shipped, shipped_int8, trained_networks
from secateur.errors import ArtifactError
from secateur.matting.predicting import open_predictor
from secateur.models import MODNet
from secateur.runtimes.deployment import RUNTIMES
from secateur.runtimes.network import Network

skimage_data = pytest.importorskip("skimage.data")
pytest.importorskip("cv2")
MOST = 45 * 2**20  # bytes of all files
FACE, WALL, SUIT = (
    (slice(100, 200), slice(180, 260)),
    (slice(0, 60), slice(120, 150)),
    (slice(300, 500), slice(60, 200)),
)


def predictor(name):
    return open_predictor(Network.of_model(name, secateur.pretrained(name), torch.zeros(1, 3, 64, 64)))


def test_the_files_are_ours_halved_and_not_too_large():
    assert trained_networks() == ("modnet", "modnet-small")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST
    for name in trained_networks():
        contents = read(shipped(name))
        assert contents.identity["name"] == "modnet"
        assert {one.dtype for one in contents.tensors.values() if one.is_floating_point()} == {torch.float16}
        assert contents.preprocessing == {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize("name", trained_networks())
def test_each_comes_with_a_card(name):
    card = (FOLDER / f"{name}.md").read_text()
    for what in ("## Data", "## How good", "## Limits", "CC0", "BSD-3"):
        assert what in card


@pytest.mark.parametrize("name", trained_networks())
def test_each_cuts_out_a_person_that_it_never_saw(name):
    matte = predictor(name)(skimage_data.astronaut())
    assert matte[FACE].mean() > 0.9
    assert matte[SUIT].mean() > 0.9
    assert matte[WALL].mean() < 0.05


@pytest.mark.parametrize("name", trained_networks())
def test_each_finds_nobody_in_a_cup_of_coffee(name):
    assert predictor(name)(skimage_data.coffee()).mean() < 0.05


def test_the_small_one_has_a_quarter_of_the_multiplications():
    full, small = (
        secateur.trace(secateur.pretrained(name), torch.zeros(1, 3, 512, 512)).costs.macs()
        for name in trained_networks()
    )
    assert small <= 0.24 * full


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_the_small_one_comes_in_int8(suffix, package):
    pytest.importorskip(package)
    picture = skimage_data.astronaut()
    path = shipped_int8("modnet-small", suffix)
    assert path is not None
    found = open_predictor(Network.of_file("small", path), RUNTIMES[suffix])(picture)
    assert abs(found - predictor("modnet-small")(picture)).mean() < 0.01


def test_a_pretrained_network_is_float_and_ready():
    model = secateur.pretrained("modnet")
    assert isinstance(model, MODNet)
    assert not model.training
    assert {one.dtype for one in model.parameters()} == {torch.float32}


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ArtifactError, match="modnet"):
        secateur.pretrained("modnt")
