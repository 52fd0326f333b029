"""How a fresh network's weights are drawn."""

from __future__ import annotations

from torch import nn


def initialize(model: nn.Module) -> None:
    """Draw the weights of every convolution and linear layer, from torch's global generator; biases become zero.

    Convolutions after He et al. (arXiv 1502.01852), by their fan-in. By fan-out depthwise kernels come out so small
    that in a MobileNetV2 without batch statistics the activations shrink a billionfold. On the meta device there is
    nothing to draw.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
