"""Networks of our own definition, their registry, and the reading of other people's checkpoints."""

from secateur.models.checkpoints import LoadReport, load_checkpoint
from secateur.models.lenet import LeNet
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.models.modnet import MODNet

__all__ = ["LeNet", "LoadReport", "MODNet", "MobileNetV2", "load_checkpoint"]
