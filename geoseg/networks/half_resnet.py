"""A small residual network of geoseg's own that works at half the input's size.

Residual blocks after He et al. 2016 (https://arxiv.org/abs/1512.03385), at one size, without
pooling further: land cover at 10 m shows in a pixel's spectrum and some hundred metres around
it, and all channels are spent there. As in the Dynamic World network (Brown et al. 2022,
https://doi.org/10.1038/s41597-022-01307-4) the classes depend on the direction of a pixel's
features and not on their length, so that a spectrum unlike all that was learned from does not give
a great certainty. The logits at half size are brought to full size by bilinear interpolation and
are added to a pixel's own, from a convolution at full size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import SegModel, unit_length

__all__ = ["HalfResNet"]


def _conv_norm(
    in_channels: int, out_channels: int, kernel: int = 3, dilation: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            padding=kernel // 2 * dilation,
            dilation=dilation,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
    ]


class _Block(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(channels, channels, dilation=dilation),
            nn.ReLU(inplace=True),
            *_conv_norm(channels, channels, dilation=dilation),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class HalfResNet(SegModel):
    """Residual blocks at half size; the logits of each pixel's own spectrum are added."""

    multiple = 2
    size_multiple = 2

    def __init__(
        self,
        in_channels: int,
        classes: int,
        width: int = 64,
        stem: int = 16,
        dilations: Sequence[int] = (1, 1, 1, 2),
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            width: channels at half size.
            stem: channels at full size.
            dilations: of the convolutions of each residual block, 1 and more.

        Raises:
            ValueError: a number is below 1, or there is no block.
        """
        if min(width, stem, *dilations, len(dilations) or 0) < 1:
            raise ValueError(
                f"width {width}, stem {stem} and dilations {tuple(dilations)} must be 1 at least"
            )
        super().__init__()
        self.stem = nn.Sequential(*_conv_norm(in_channels, stem), nn.ReLU(inplace=True))
        self.enter = nn.Sequential(
            *_conv_norm(stem + 4 * in_channels, width, kernel=1), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(*(_Block(width, d) for d in dilations))
        self.head = nn.Conv2d(width, classes, 1)
        self.own = nn.Conv2d(stem, classes, 1)
        #: Length of the features' direction; directions alone would bound the logits too narrowly.
        self.length = nn.Parameter(torch.tensor(10.0))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        own = self.stem(x)
        four = F.pixel_unshuffle(x, 2).to(own.dtype)
        y = self.blocks(self.enter(torch.cat((F.avg_pool2d(own, 2), four), dim=1))).float()
        y = unit_length(y) * self.length
        around = F.interpolate(
            self.head(y).float(), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return (around + self.own(own).float(),)
