from __future__ import annotations

import pytest
import torch

from secateur.models import MobileNetV2, load_checkpoint
from secateur.models.registry import zoo_entry
from tests.models.published import backbone_keys


def test_keys_and_shapes_are_those_of_the_published_backbone():
    own = {name: tuple(value.shape) for name, value in MobileNetV2().state_dict().items()}
    classifier = {"classifier.weight": (1000, 1280), "classifier.bias": (1000,)}
    assert list(own.items()) == list((backbone_keys() | classifier).items())


def test_has_as_many_parameters_as_published():
    assert sum(value.numel() for value in MobileNetV2().parameters()) == 3_504_872
    assert sum(value.numel() for value in MobileNetV2(num_classes=None).parameters()) == 2_223_872


def test_taps_are_the_features_at_each_scale():
    shapes = [tuple(tap.shape) for tap in MobileNetV2().taps(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(1, 16, 32, 48), (1, 24, 16, 24), (1, 32, 8, 12), (1, 96, 4, 6), (1, 1280, 2, 3)]


def test_without_classes_it_returns_the_last_tap():
    model, images = MobileNetV2(num_classes=None).eval(), torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images), model.taps(images)[-1])


@pytest.mark.parametrize(("width", "first", "last"), [(0.35, 16, 1280), (0.75, 24, 1280), (1.4, 48, 1792)])
def test_width_scales_to_multiples_of_eight(width, first, last):
    model = MobileNetV2(in_channels=1, width=width, num_classes=7)
    assert model.features[0][0].weight.shape == (first, 1, 3, 3)
    assert model.classifier.weight.shape == (7, last)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7)


def test_random_weights_keep_the_signal_alive():
    torch.manual_seed(0)
    taps = MobileNetV2().eval().taps(torch.randn(1, 3, 96, 96))
    assert all(0.1 < tap.std() < 100 for tap in taps)


def test_published_weights_recognise_real_pictures(data):
    weights, folder = data / "pretrained/mobilenet_v2-b0353104.pth", data / "imagenet_samples"
    model = MobileNetV2().eval()
    report = load_checkpoint(model, weights)
    assert report.complete
    assert len(report.loaded) == 314
    paths = sorted(folder.glob("*.jpg"))
    right = sum(_right(model, paths[start : start + 50]) for start in range(0, len(paths), 50))
    assert right / len(paths) == pytest.approx(0.814, abs=0.0021)  # one picture of 500, for another build's rounding


def _right(model, paths):
    image = pytest.importorskip("PIL.Image")
    numpy = pytest.importorskip("numpy")
    pictures = torch.stack([torch.from_numpy(numpy.array(image.open(path).convert("RGB"))) for path in paths])
    centres = pictures.permute(0, 3, 1, 2)[:, :, 16:240, 16:240] / 255
    with torch.no_grad():
        found = model(zoo_entry("mobilenetv2").prepared(centres)).argmax(1)
    return sum(int(path.name[:3]) == number for path, number in zip(paths, found.tolist(), strict=True))
