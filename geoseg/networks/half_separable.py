"""A network of geoseg's own of separable convolutions at half the input's size.

Its layout is that of the Dynamic World network (Brown et al. 2022,
https://doi.org/10.1038/s41597-022-01307-4): three blocks of pointwise and depthwise convolutions
with a pointwise shortcut, a side path that joins before the last one, and classes that depend on
the direction of a pixel's features and not on their length. Here it is made cheaper to run: the
stem's output is halved by averaging, the activation is the hard swish of Howard et al. 2019
(https://arxiv.org/abs/1905.02244), and logits are brought to full size instead of features. Where
finer detail is wanted, a few features are brought to full size instead and joined there with the
stem's, so that what is one pixel wide is seen as such.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import SegModel, SeparableBlock, unit_length

__all__ = ["HalfSeparable"]


class _ConvNormSwish(nn.Sequential):
    """Convolution with same padding, batch norm, hard swish."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel,
                padding=kernel // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.Hardswish(),
        )


class _Fine(nn.Module):
    """What lies around each pixel, of half size, and its own near neighbours, of full size."""

    def __init__(self, coarse: int, stem: int, channels: int) -> None:
        super().__init__()
        both = 2 * channels
        self.coarse = _ConvNormSwish(coarse, channels, 1)
        self.stem = _ConvNormSwish(stem, channels, 1)
        self.joint = nn.Sequential(
            _ConvNormSwish(both, both, 3, groups=both),
            _ConvNormSwish(both, both, 1),
            _ConvNormSwish(both, both, 3, groups=both),
            _ConvNormSwish(both, both, 1),
        )

    def forward(self, coarse: Tensor, full: Tensor) -> Tensor:
        y: Tensor = self.joint(torch.cat((_doubled(self.coarse(coarse)), self.stem(full)), dim=1))
        return y


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class HalfSeparable(SegModel):
    """Separable convolutions at half size, in three blocks."""

    multiple = 2
    size_multiple = 2

    def __init__(
        self,
        in_channels: int,
        classes: int,
        stem: int = 64,
        side: int = 48,
        widths: Sequence[int] = (96, 144, 144),
        fine: int = 0,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            stem: channels at full size.
            side: channels of the side path.
            widths: channels of the three blocks.
            fine: channels that the blocks and the stem each give to the joint at full size; 0 for
                none.

        Raises:
            ValueError: a number is too small, or there are not three blocks.
        """
        if len(widths) != 3 or min(stem, side, *widths) < 1 or fine < 0:
            raise ValueError(
                f"stem {stem}, side {side} and the three widths {tuple(widths)} must be 1 at "
                f"least, fine {fine} 0 at least"
            )
        super().__init__()
        first, second, third = widths
        self.stem = _ConvNormSwish(in_channels, stem, 3)
        self.side = nn.Sequential(
            _ConvNormSwish(stem, side, 1), _ConvNormSwish(side, side, 3, groups=side)
        )
        self.block1 = SeparableBlock(stem, first, _ConvNormSwish)
        self.block2 = SeparableBlock(first, second, _ConvNormSwish)
        self.block3 = SeparableBlock(second + side, third, _ConvNormSwish)
        self.fine = _Fine(third, stem, fine) if fine else None
        self.head = nn.Conv2d(2 * fine or third, classes, 1)
        #: Length of the features' direction; directions alone would bound the logits too narrowly.
        self.length = nn.Parameter(torch.tensor(10.0))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        full = self.stem(x)
        half = F.avg_pool2d(full, 2)
        y = self.block3(torch.cat((self.block2(self.block1(half)), self.side(half)), dim=1))
        if self.fine is not None:
            return (self._logits(self.fine(y, full)),)
        return (_doubled(self._logits(y)),)

    def _logits(self, y: Tensor) -> Tensor:
        logits: Tensor = self.head(unit_length(y.float()) * self.length)
        return logits.float()
