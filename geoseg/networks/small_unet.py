"""A small U-Net of geoseg's own, quick on a CPU.

After Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), with same padding, batch norm
(an output pixel depends on its neighbourhood only, never on the whole chip as with group norm),
and, on the way up, a pointwise convolution before the bilinear upsampling, which halves the cost
of joining the skip.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import SegModel

__all__ = ["SmallUNet"]


class _DoubleConv(nn.Sequential):
    """Twice: convolution 3 x 3, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: list[nn.Module] = []
        for i in (in_channels, out_channels):
            layers += [
                nn.Conv2d(i, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class SmallUNet(SegModel):
    """Encoder and decoder with skips; the channels double at each of ``depth`` halvings."""

    def __init__(self, in_channels: int, classes: int, width: int = 16, depth: int = 3) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            width: channels at full size.
            depth: how many times the size is halved, 1 and more.

        Raises:
            ValueError: width or depth is below 1.
        """
        if width < 1 or depth < 1:
            raise ValueError(f"width {width} and depth {depth} must be 1 at least")
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _DoubleConv(i, o) for i, o in zip([in_channels, *channels], channels, strict=False)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(2 * c, c, 1) for c in reversed(channels[:-1]))
        self.up = nn.ModuleList(_DoubleConv(2 * c, c) for c in reversed(channels[:-1]))
        self.head = nn.Conv2d(width, classes, 1)
        self.multiple = self.size_multiple = 2**depth

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        skips: list[Tensor] = []
        for level, layer in enumerate(self.down):
            x = layer(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for narrow, up in zip(self.narrow, self.up, strict=True):
            x = F.interpolate(narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = up(torch.cat((skips.pop(), x), dim=1))
        return (self.head(x),)
