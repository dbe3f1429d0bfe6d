"""Fully convolutional networks: Long, Shelhamer and Darrell 2015 (https://arxiv.org/abs/1411.4038).

As in the authors' release (https://github.com/shelhamer/fcn.berkeleyvision.org): the first
convolution pads by 100 px, so that every input is large enough, and each sum and the result are
cropped at fixed offsets. Upsampling is a dense transposed convolution that stays bilinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.networks.base import SegModel, init_convolutions
from geoseg.networks.vgg import load_vgg, scaled, vgg_groups

__all__ = ["FCN", "FCNAlexNet", "bilinear_deconv"]

#: How the skips at stride 16 and 8 are cropped, and the result by its stride, px (the prototxts).
CROPS = {16: 5, 8: 9}
FINAL_CROPS = {32: 19, 16: 27, 8: 31}
#: Factors of pool4 and pool3 where all streams are trained at once.
AT_ONCE = {16: 0.01, 8: 0.0001}


def bilinear_deconv(
    channels: int,
    kernel: int,
    stride: int,
    *,
    bias: bool = False,
    depthwise: bool = False,
    **options: Any,
) -> nn.ConvTranspose2d:
    """Build a transposed convolution that upsamples bilinearly and is not trained.

    Args:
        channels: in and out.
        kernel: px.
        stride: factor.
        bias: whether it has one, which is trained.
        depthwise: one filter a channel instead of a dense tensor that is 0 off the diagonal.
        **options: of torch's layer.
    """
    groups = channels if depthwise else 1
    layer = nn.ConvTranspose2d(
        channels, channels, kernel, stride, bias=bias, groups=groups, **options
    )
    factor = (kernel + 1) // 2
    centre = factor - 1.0 if kernel % 2 else factor - 0.5
    line = 1 - (torch.arange(kernel) - centre).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for c in range(channels):
            layer.weight[c, 0 if depthwise else c] = line[:, None] * line[None, :]
        if layer.bias is not None:
            layer.bias.zero_()
    layer.weight.requires_grad_(False)
    return layer


class FCN(SegModel):
    """FCN-32s, 16s and 8s on VGG-16."""

    multiple = 32

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        stride: int = 8,
        at_once: bool = False,
        padding: str = "caffe",
        width: float = 1.0,
        score_bias: bool = False,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            stride: of the finest stream: 32, 16 or 8.
            at_once: scale the skips by constants, for training all streams together.
            padding: ``caffe``, 100 px at the first convolution, or ``same``, 1 px and fc6 padded,
                which costs less and sees nothing but the input at its edges.
            width: times the published channels.
            score_bias: whether the first upsampling has a bias, as in CRF-RNN's release.
            encoder_weights: of VGG-16 with fc6 and fc7, or None.
            bands: the input's bands by name, for fitting these.

        Raises:
            ValueError: stride or padding is none of these.
        """
        super().__init__()
        if stride not in FINAL_CROPS:
            raise ValueError(f"stride {stride} must be one of {sorted(FINAL_CROPS)}")
        if padding not in ("caffe", "same"):
            raise ValueError(f"padding {padding!r} must be caffe or same")
        self.caffe = padding == "caffe"
        self.stride = stride
        self.scales = AT_ONCE if at_once else {16: 1.0, 8: 1.0}
        self.output_stride = stride
        if not self.caffe:
            self.size_multiple = 32
        hidden, deep = scaled(4096, width), scaled(512, width)
        self.groups = vgg_groups(in_channels, width=width)
        first = next(m for m in self.groups.modules() if isinstance(m, nn.Conv2d))
        first.padding = (100, 100) if self.caffe else (1, 1)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.fc6 = nn.Conv2d(deep, hidden, 7, padding=0 if self.caffe else 3)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.drop = nn.Dropout2d(0.5)
        self.score = nn.Conv2d(hidden, classes, 1)
        self.skips = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        for level, published in ((16, 512), (8, 256)):
            if level >= stride:
                self.skips[str(level)] = nn.Conv2d(scaled(published, width), classes, 1)
                has_bias = score_bias and level == 16
                self.ups[str(level)] = bilinear_deconv(
                    classes, 4, 2, bias=has_bias, padding=0 if self.caffe else 1
                )
        self.up = bilinear_deconv(
            classes, 2 * stride, stride, padding=0 if self.caffe else stride // 2
        )
        init_convolutions(self)
        init_convolutions(self.score, std=0.0)
        init_convolutions(self.skips, std=0.0)
        if encoder_weights is not None:
            load_vgg(self.groups, encoder_weights, bands, classifier=(self.fc6, self.fc7))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        height, width = x.shape[-2:]
        pools: dict[int, Tensor] = {}
        for level, group in zip((2, 4, 8, 16, 32), self.groups, strict=True):
            pools[level] = x = self.pool(group(x))
        x = self.drop(torch.relu(self.fc6(x)))
        x = self.score(self.drop(torch.relu(self.fc7(x))))
        for name, skip in self.skips.items():
            stride = int(name)
            x = self.ups[name](x)
            fine = skip(pools[stride] * self.scales[stride])
            start = CROPS[stride] if self.caffe else 0
            x = x + fine[..., start : start + x.shape[-2], start : start + x.shape[-1]]
        x = self.up(x)
        start = FINAL_CROPS[self.stride] if self.caffe else 0
        return (x[..., start : start + height, start : start + width],)


class FCNAlexNet(SegModel):
    """FCN on CaffeNet, the authors' smallest."""

    output_stride = 32
    multiple = 32

    def __init__(self, in_channels: int, classes: int, *, width: float = 1.0) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            width: times the published channels.
        """
        super().__init__()
        a, b, c, hidden = (2 * scaled(n // 2, width) for n in (96, 256, 384, 4096))
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, a, 11, stride=4, padding=100),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75),
            nn.Conv2d(a, b, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75),
            nn.Conv2d(b, c, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, c, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, b, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(b, hidden, 6),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
        )
        self.score = nn.Conv2d(hidden, classes, 1)
        self.up = bilinear_deconv(classes, 63, 32)
        init_convolutions(self)
        nn.init.zeros_(self.score.weight)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        height, width = x.shape[-2:]
        y = self.up(self.score(self.features(x)))
        return (y[..., 18 : 18 + height, 18 : 18 + width],)
