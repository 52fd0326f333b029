from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from secateur.models import MODNet
from secateur.models.modnet import IBNorm
from tests.models.published import modnet_keys


def test_keys_and_shapes_are_those_of_the_published_checkpoint():
    own = {name: tuple(value.shape) for name, value in MODNet().state_dict().items()}
    assert list(own.items()) == list(modnet_keys().items())
    assert len(own) == 751


def test_every_number_of_the_published_checkpoint_is_there_once():
    model = MODNet()
    distinct = {id(value): value for value in model.state_dict(keep_vars=True).values()}
    assert len(distinct) == 439
    assert sum(value.numel() for value in model.parameters()) == 6_487_075
    assert sum(value.numel() for value in distinct.values()) == 6_487_075 + 34_901


def test_backbone_is_one_module_under_two_names():
    model = MODNet()
    assert model.backbone is model.lr_branch.backbone


@pytest.mark.parametrize(
    ("inference", "expected"),
    [
        (False, {"lr_branch": 5.026, "hr_branch": 10.138, "f_branch": 2.953}),
        (True, {"lr_branch": 5.026, "hr_branch": 7.487, "f_branch": 2.953}),
    ],
)
def test_multiply_accumulates_of_each_branch_are_the_published_ones(inference, expected):
    model = MODNet().to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 512, 512, device="meta"), inference)
    counts = counter.get_flop_counts()
    macs = {name: sum(counts[f"MODNet.{name}"].values()) / 2e9 for name in expected}
    assert macs == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("branch", "expected"), [("lr_branch", 6_158_177), ("hr_branch", 244_897), ("f_branch", 49_169)]
)
def test_weights_of_each_branch_are_as_many_as_published(branch, expected):
    layers = [layer for layer in getattr(MODNet(), branch).modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert sum(value.numel() for layer in layers for value in layer.parameters()) == expected


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_outputs_are_maps_of_the_inputs_size(size):
    semantic, detail, matte = MODNet()(torch.rand(2, 3, *size))
    assert semantic.shape == (2, 1, size[0] // 16, size[1] // 16)
    assert detail.shape == matte.shape == (2, 1, *size)
    for values in (semantic, detail, matte):
        assert 0 <= values.min() < values.max() <= 1


def test_inference_gives_the_same_matte_and_nothing_else():
    model, image = MODNet().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        _, _, matte = model(image)
        semantic, detail, alone = model(image, inference=True)
    assert semantic is None
    assert detail is None
    assert torch.equal(alone, matte)


@pytest.mark.parametrize(("in_channels", "hr_channels"), [(4, 32), (3, 16), (1, 24)])
def test_other_widths_run_too(in_channels, hr_channels):
    model = MODNet(in_channels, hr_channels).eval()
    assert model(torch.rand(1, in_channels, 64, 64))[2].shape == (1, 1, 64, 64)
    assert model.arguments == {"in_channels": in_channels, "hr_channels": hr_channels}


@pytest.mark.parametrize("channels", [8, 7])
def test_ibnorm_normalises_the_first_half_by_batch_and_the_rest_by_instance(channels):
    norm, x = IBNorm(channels).eval(), torch.randn(2, channels, 5, 6)
    norm.bnorm.running_mean.uniform_(-1, 1)
    half = channels // 2
    expected = torch.cat(
        [F.batch_norm(x[:, :half], norm.bnorm.running_mean, norm.bnorm.running_var), F.instance_norm(x[:, half:])], 1
    )
    torch.testing.assert_close(norm(x), expected)


def test_ibnorm_splits_where_its_attribute_says():
    norm, x = IBNorm(8).eval(), torch.randn(2, 8, 5, 6)
    norm.bnorm, norm.inorm = nn.BatchNorm2d(3).eval(), nn.InstanceNorm2d(5)
    norm.bnorm_channels, norm.inorm_channels = 3, 5
    torch.testing.assert_close(norm(x)[:, 3:], F.instance_norm(x[:, 3:]))
