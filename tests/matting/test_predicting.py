"""The network sees pictures in the published size and values, and its mattes come back at theirs, in any runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import RuntimeUnfitError
from secateur.matting.predicting import Predictor, open_predictor
from secateur.matting.preprocessing import LONGEST, area_resized, network_size, prepared, video_size
from secateur.matting.refining import resampled
from secateur.models import MODNet
from secateur.runtimes.network import Network
from secateur.runtimes.session import Session
from tests.matting.making import Redness, disc, redness

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (512, 512)),
        ((1080, 1920), (512, 896)),  # 910 floored
        ((1920, 1080), (896, 512)),
        ((400, 300), (672, 512)),  # both smaller: enlarged
        ((600, 500), (576, 480)),  # one smaller, one larger: kept
        ((512, 700), (512, 672)),
        ((513, 513), (512, 512)),
        ((511, 511), (512, 512)),
        ((1, 1), (512, 512)),
        ((10, 5000), (32, 4096)),
        ((1, 400), (32, LONGEST)),  # would be 512 x 204800
        ((600, 60000), (32, LONGEST)),
        ((6000, 8000), (512, 672)),
    ],
)
def test_the_network_sees_the_published_size(size, expected):
    assert network_size(*size) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (512, 672)), ((640, 480), (672, 512)), ((1080, 1920), (512, 896)), ((360, 20000), (64, LONGEST))],
)
def test_frames_are_seen_with_a_short_side_of_512_whatever_their_size(size, expected):
    assert video_size(*size) == expected


def test_no_size_explodes():
    rng = np.random.default_rng(0)
    for height, width in np.exp(rng.uniform(0, 11, (2000, 2))).astype(int):
        seen = network_size(int(height), int(width))
        assert all(side % 32 == 0 and 32 <= side <= LONGEST for side in seen)
        assert seen[0] * seen[1] <= 512 * LONGEST


@pytest.mark.parametrize("size", [(96, 64), (448, 608), (32, 1024)])
def test_values_are_resampled_by_area_and_centred(size):
    picture = np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)
    expected = cv2.resize((picture / 255).astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    found = prepared(picture, size, (0.5,) * 3, (0.5,) * 3)
    np.testing.assert_allclose(found.transpose(1, 2, 0), (expected - 0.5) / 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "seen", "way"),
    [((700, 800), (512, 576), cv2.INTER_CUBIC), ((300, 200), (768, 512), cv2.INTER_AREA)],
)
def test_a_matte_is_that_of_the_network_at_the_pictures_size(size, seen, way):
    picture = disc(*size)
    given = prepared(picture, seen, (0.5,) * 3, (0.5,) * 3)
    expected = cv2.resize((given[0] + 1) / 2, size[::-1], interpolation=way).clip(0, 1)
    found = redness()(picture)
    assert found.shape == size
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_enlarged_matte_is_nearer_to_the_true_one_than_by_area():
    down, across = np.mgrid[:900, :900].astype(np.float32)
    true = np.clip(0.5 + (300 - np.hypot(down - 450, across - 450)) / 6, 0, 1)  # a soft edge, as hair has
    small = area_resized(true, (512, 512))
    found, by_area = resampled(np.empty((900, 900, 3), np.uint8), small), area_resized(small, (900, 900))
    assert np.abs(found - true).mean() < 0.8 * np.abs(by_area - true).mean()
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 31), (1200, 40)])
def test_any_size_goes_through(size):
    matte = open_predictor(Network.of_model("modnet", MODNet(), torch.zeros(1, 3, 64, 64)))(
        np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    )
    assert matte.shape == size
    assert matte.dtype == np.float32
    assert 0 <= matte.min() <= matte.max() <= 1


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("fixed", [None, (4, 64, 96)])
def test_every_runtime_gives_the_same_mattes_in_any_batch(runtime, fixed):
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = Network.of_model("modnet", MODNet().eval(), torch.zeros(1, 3, 64, 96))
    pictures = [np.random.default_rng(seed).normal(size=(3, 64, 96)).astype(np.float32) for seed in range(6)]
    expected = [open_predictor(network).run([one])[0] for one in pictures]
    predictor = open_predictor(network, runtime, fixed=fixed)
    for found, wanted in zip(predictor.run(pictures), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_file_of_one_size_gets_that_size(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from secateur.runtimes.deployment import export

    export(Redness(), tmp_path / "red.onnx", torch.zeros(2, 3, 64, 96), free=())
    predictor = open_predictor(Network.of_file("red", tmp_path / "red.onnx"), "onnxruntime")
    assert predictor.size_for(1000, 1000) == (64, 96)
    found = predictor(disc(200, 100))
    assert found.shape == (200, 100)
    assert found[100, 50] > 0.9
    assert found[0, 0] < 0.1


class _Answering(Session):
    """A session that does what it is told."""

    def __init__(self, answer) -> None:
        super().__init__(["input"], ["output"])
        self.answer = answer

    def bound(self, arrays):
        return lambda: self.answer(arrays[0])

    def read(self, result):
        return (result,)


def _raising(error):
    def answer(_):
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (_raising(RuntimeError("DefaultCPUAllocator: can't allocate memory")), "4 pictures of 64x64.*Say --batch 2"),
        (_raising(MemoryError()), "Say --batch 2"),
        (_raising(RuntimeError("no such kernel")), "no such kernel"),
        (lambda given: np.full((4, 1, 64, 64), np.nan, np.float32), "NaN"),
        (lambda given: np.zeros((4, 1000), np.float32), "gives 4x1000 for pictures of 4x3x64x64"),
    ],
)
def test_a_network_that_fails_says_how(answer, expected):
    with pytest.raises(RuntimeUnfitError, match=expected):
        Predictor(_Answering(answer)).run([np.zeros((3, 64, 64), np.float32)] * 4)


def test_a_single_picture_that_fits_no_memory_has_no_smaller_batch():
    with pytest.raises(RuntimeUnfitError, match="A picture of 64x64 does not fit into memory"):
        Predictor(_Answering(_raising(MemoryError()))).run([np.zeros((3, 64, 64), np.float32)])


def test_values_outside_0_to_1_are_clipped():
    (matte,) = Predictor(_Answering(lambda given: 3 * given[:, :1])).run([np.ones((3, 64, 64), np.float32)])
    assert matte.max() == 1


def test_a_network_for_something_else_is_refused():
    class Pair(nn.Module):
        def forward(self, a, b):
            return a + b

    two = Network.of_model("pair", Pair(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)))
    with pytest.raises(RuntimeUnfitError, match="one batch of RGB pictures"):
        open_predictor(two)
