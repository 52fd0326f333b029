"""MODNet (Ke et al., arXiv 2011.11961): portrait matting without a trimap, keyed as the published checkpoints."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from secateur.models.initialization import initialize
from secateur.models.mobilenetv2 import MobileNetV2
from secateur.models.rewriting.folding import scale_and_shift
from secateur.models.rewriting.half_precision import half_safe_deviation, half_safe_mean
from secateur.models.rewriting.registry import HALF_SAFE_REWRITES, register

ENC2X, ENC4X, ENC8X, ENC16X, ENC32X = 16, 24, 32, 96, 1280  # channels of the backbone's features at 1/2 to 1/32


class MODNet(nn.Module):
    """Three branches: where the person is (low resolution), where the edge runs (high resolution), and their fusion.

    Takes RGB images in [-1, 1] whose sides are multiples of 32. The backbone is one module under two names, `backbone`
    and `lr_branch.backbone`, as in the published checkpoints.

    Example:
        >>> semantic, detail, matte = MODNet()(torch.zeros(1, 3, 64, 96))
        >>> semantic.shape, detail.shape, matte.shape
        (torch.Size([1, 1, 4, 6]), torch.Size([1, 1, 64, 96]), torch.Size([1, 1, 64, 96]))
    """

    def __init__(self, in_channels: int = 3, hr_channels: int = 32) -> None:
        super().__init__()
        self.arguments = {"in_channels": in_channels, "hr_channels": hr_channels}
        self.backbone = Backbone(in_channels)
        self.lr_branch = LRBranch(self.backbone)
        self.hr_branch = HRBranch(in_channels, hr_channels)
        self.f_branch = FusionBranch(in_channels, hr_channels)

    def forward(
        self, img: torch.Tensor, inference: bool = False
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
        """Return the semantic map at 1/16, the detail map and the matte, each (N, 1, H, W) in [0, 1].

        With `inference` the first two are None, and their last layers are not run.
        """
        semantic, lr8x, enc2x, enc4x = self.lr_branch(img, inference)
        detail, hr2x = self.hr_branch(img, enc2x, enc4x, lr8x, inference)
        return semantic, detail, self.f_branch(img, lr8x, hr2x)


class Backbone(nn.Module):
    """MobileNetV2 without its classifier, under the name `model`."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.model = MobileNetV2(in_channels, num_classes=None)

    def forward(self, img: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features at 1/2, 1/4, 1/8, 1/16 and 1/32."""
        return self.model.taps(img)


class IBNorm(nn.Module):
    """Batch norm for the first half of the channels, instance norm for the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The forward reads these as attributes, so that pruning finds and rewrites them.
        self.bnorm_channels = channels // 2
        self.inorm_channels = channels - self.bnorm_channels
        self.bnorm = nn.BatchNorm2d(self.bnorm_channels)
        self.inorm = nn.InstanceNorm2d(self.inorm_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, H, W)."""
        # Changing between layouts at every norm would take longer than the norms do.
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        by_batch = self.bnorm(x[:, : self.bnorm_channels].contiguous(memory_format=layout))
        by_instance = self.inorm(x[:, self.bnorm_channels :].contiguous()).contiguous(memory_format=layout)
        return torch.cat((by_batch, by_instance), dim=1)


class Conv2dIBNormRelu(nn.Module):
    """A convolution that keeps the size but for the stride, with IBNorm and ReLU unless `bare`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, bare: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)]
        if not bare:
            layers += [IBNorm(out_channels), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        return self.layers(x)


class SEBlock(nn.Module):
    """Squeeze and excitation (Hu et al., arXiv 1709.01507): weighs each channel by what all of them hold on average."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weigh the channels of (N, C, H, W)."""
        return x * self.fc(self.pool(x).flatten(1))[:, :, None, None]


class LRBranch(nn.Module):
    """Low resolution: where the person is."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.se_block = SEBlock(ENC32X)
        self.conv_lr16x = Conv2dIBNormRelu(ENC32X, ENC16X, 5)
        self.conv_lr8x = Conv2dIBNormRelu(ENC16X, ENC8X, 5)
        self.conv_lr = Conv2dIBNormRelu(ENC8X, 1, 3, stride=2, bare=True)

    def forward(
        self, img: torch.Tensor, inference: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the semantic map, the features at 1/8, and the backbone's features at 1/2 and 1/4."""
        enc2x, enc4x, _, _, enc32x = self.backbone(img)
        lr16x = self.conv_lr16x(resized(self.se_block(enc32x), 2))
        lr8x = self.conv_lr8x(resized(lr16x, 2))
        semantic = None if inference else torch.sigmoid(self.conv_lr(lr8x))
        return semantic, lr8x, enc2x, enc4x


class HRBranch(nn.Module):
    """High resolution: where the edge runs."""

    def __init__(self, in_channels: int, hr_channels: int) -> None:
        super().__init__()
        self.tohr_enc2x = Conv2dIBNormRelu(ENC2X, hr_channels, 1)
        self.conv_enc2x = Conv2dIBNormRelu(hr_channels + in_channels, hr_channels, 3, stride=2)
        self.tohr_enc4x = Conv2dIBNormRelu(ENC4X, hr_channels, 1)
        self.conv_enc4x = Conv2dIBNormRelu(2 * hr_channels, 2 * hr_channels, 3)
        self.conv_hr4x = nn.Sequential(
            Conv2dIBNormRelu(2 * hr_channels + ENC8X + in_channels, 2 * hr_channels, 3),
            Conv2dIBNormRelu(2 * hr_channels, 2 * hr_channels, 3),
            Conv2dIBNormRelu(2 * hr_channels, hr_channels, 3),
        )
        self.conv_hr2x = nn.Sequential(
            Conv2dIBNormRelu(2 * hr_channels, 2 * hr_channels, 3),
            Conv2dIBNormRelu(2 * hr_channels, hr_channels, 3),
            Conv2dIBNormRelu(hr_channels, hr_channels, 3),
            Conv2dIBNormRelu(hr_channels, hr_channels, 3),
        )
        self.conv_hr = nn.Sequential(
            Conv2dIBNormRelu(hr_channels + in_channels, hr_channels, 3),
            Conv2dIBNormRelu(hr_channels, 1, 1, bare=True),
        )

    def forward(
        self, img: torch.Tensor, enc2x: torch.Tensor, enc4x: torch.Tensor, lr8x: torch.Tensor, inference: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return the detail map and the features at 1/2."""
        enc2x = self.tohr_enc2x(enc2x)
        hr4x = self.conv_enc2x(torch.cat((resized(img, 1 / 2), enc2x), dim=1))
        hr4x = self.conv_enc4x(torch.cat((hr4x, self.tohr_enc4x(enc4x)), dim=1))
        hr4x = self.conv_hr4x(torch.cat((hr4x, resized(lr8x, 2), resized(img, 1 / 4)), dim=1))
        hr2x = self.conv_hr2x(torch.cat((resized(hr4x, 2), enc2x), dim=1))
        if inference:
            return None, hr2x
        hr = self.conv_hr(torch.cat((resized(hr2x, 2), img), dim=1))
        return torch.sigmoid(hr), hr2x


class FusionBranch(nn.Module):
    """The matte, from what both branches found."""

    def __init__(self, in_channels: int, hr_channels: int) -> None:
        super().__init__()
        self.conv_lr4x = Conv2dIBNormRelu(ENC8X, hr_channels, 5)
        self.conv_f2x = Conv2dIBNormRelu(2 * hr_channels, hr_channels, 3)
        self.conv_f = nn.Sequential(
            Conv2dIBNormRelu(hr_channels + in_channels, hr_channels // 2, 3),
            Conv2dIBNormRelu(hr_channels // 2, 1, 1, bare=True),
        )

    def forward(self, img: torch.Tensor, lr8x: torch.Tensor, hr2x: torch.Tensor) -> torch.Tensor:
        """Return the matte."""
        lr4x = self.conv_lr4x(resized(lr8x, 2))
        f2x = self.conv_f2x(torch.cat((resized(lr4x, 2), hr2x), dim=1))
        return torch.sigmoid(self.conv_f(torch.cat((resized(f2x, 2), img), dim=1)))


def resized(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Resize the last two dimensions bilinearly."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


class FusedIBNorm(nn.Module):
    """IBNorm for inference: one scale and one shift for all channels, so that they are neither split nor joined.

    Both halves are measured, and a mask forgets what was measured of the batch half: in OpenVINO that costs less time
    than to slice the instance half out.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    instance: torch.Tensor

    def __init__(self, norm: IBNorm, channels: int) -> None:
        super().__init__()
        self.eps = norm.inorm.eps
        rest = channels - norm.bnorm_channels
        scale, shift = (F.pad(values, (0, rest)) for values in scale_and_shift(norm.bnorm))
        instance = F.pad(torch.zeros(norm.bnorm_channels), (0, rest), value=1.0)
        for name, values in {"scale": scale, "shift": shift, "instance": instance}.items():
            self.register_buffer(name, values.view(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, H, W)."""
        mean, deviation = self.moments(x)
        # Two other ways to write this go wrong: instance / deviation is NaN in OpenVINO; and 1 / deviation * instance
        # is fused by ONNX Runtime into a graph that does not load, once the exporter has merged equal masks.
        scale = deviation.reciprocal() * self.instance
        return (x - mean * self.instance) * (scale + self.scale) + self.shift

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean over H and W and sqrt(variance + eps), (N, C, 1, 1) each."""
        mean = x.mean((2, 3), keepdim=True)
        centred = x - mean
        return mean, ((centred * centred).mean((2, 3), keepdim=True) + self.eps).sqrt()


class HalfSafeIBNorm(FusedIBNorm):
    """The same with sums that stay in float16's range."""

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean over H and W and sqrt(variance + eps), (N, C, 1, 1) each."""
        mean = half_safe_mean(x)
        return mean, half_safe_deviation(x - mean, self.eps)


@register(Conv2dIBNormRelu)
def _fused(block: Conv2dIBNormRelu) -> nn.Module | None:
    return _with_norm(block, FusedIBNorm)


@register(Conv2dIBNormRelu, HALF_SAFE_REWRITES)
def _half_safe(block: Conv2dIBNormRelu) -> nn.Module | None:
    return _with_norm(block, HalfSafeIBNorm)


def _with_norm(block: Conv2dIBNormRelu, kind: type[FusedIBNorm]) -> nn.Module | None:
    """Return the block with another norm; None where its norm is not as defined here, or there is none."""
    match list(block.layers):
        case [nn.Conv2d() as conv, IBNorm() as norm, nn.ReLU() as relu] if _is_as_defined(norm):
            return nn.Sequential(conv, kind(norm, conv.out_channels).to(conv.weight), relu)
    return None


def _is_as_defined(norm: IBNorm) -> bool:
    return norm.bnorm.track_running_stats and not norm.inorm.track_running_stats and not norm.inorm.affine
