"""A classifier's weights in another model's backbone: the same features, whatever the pictures are prepared by."""

import pytest
import torch

from secateur.errors import ArtifactError
from secateur.models import LeNet, MobileNetV2, MODNet
from secateur.models.backbones import load_backbone
from secateur.models.registry import zoo_entry


def test_the_backbone_computes_the_same_of_pictures_as_its_host_takes_them(tmp_path):
    torch.manual_seed(0)
    classifier, host = MobileNetV2().eval(), MODNet().eval()
    first = classifier.features[0]
    first[1].running_mean.normal_()
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    load_backbone(host, tmp_path / "weights.pth")
    pictures = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted = first(zoo_entry("mobilenetv2").prepared(pictures))
        found = host.backbone.model.features[0](zoo_entry("modnet").prepared(pictures))
    # The outermost pixels see padding, which is 0 in the one and the mean colour in the other.
    torch.testing.assert_close(found[..., 1:, 1:], wanted[..., 1:, 1:], rtol=1e-4, atol=1e-5)


def test_other_models_and_files_are_refused(tmp_path):
    torch.save(LeNet().state_dict(), tmp_path / "lenet.pth")
    with pytest.raises(ArtifactError, match="LeNet has no MobileNetV2 inside"):
        load_backbone(LeNet(), tmp_path / "lenet.pth")
    with pytest.raises(ArtifactError, match="does not fit MobileNetV2"):
        load_backbone(MODNet(), tmp_path / "lenet.pth")
