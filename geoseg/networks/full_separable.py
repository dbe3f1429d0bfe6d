"""A network of geoseg's own of separable convolutions at the input's own size.

Nothing in it has a stride, so that every pixel is treated alike: its map has no lattice, and a chip
may begin at any pixel without another answer. What lies further away is seen by depthwise
convolutions whose taps lie further apart. The blocks are those of the Dynamic World network (Brown
et al. 2022, https://doi.org/10.1038/s41597-022-01307-4), and as there the classes depend on the
direction of a pixel's features and not on their length; the activation is the hard swish of Howard
et al. 2019 (https://arxiv.org/abs/1905.02244).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import SegModel, unit_length

__all__ = ["FullSeparable"]


class _Depthwise(nn.Conv2d):
    """A depthwise 3 x 3 convolution with same padding, whose taps may lie apart.

    In training, pixels at each ``dilation``-th place are put together and convolved side by side:
    the same sums, and on a CPU, which has quick gradients for taps beside each other alone, a step
    takes two fifths of the time.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(
            channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        d = int(self.dilation[0])
        count, channels, height, width = x.shape
        if not self.training or d == 1 or height % d or width % d:
            return super().forward(x)
        y = x.permute(0, 2, 3, 1).reshape(count, height // d, d, width // d, d, channels)
        y = y.permute(0, 2, 4, 1, 3, 5).reshape(-1, height // d, width // d, channels)
        y = F.conv2d(y.permute(0, 3, 1, 2), self.weight, padding=1, groups=channels)
        y = y.permute(0, 2, 3, 1).reshape(count, d, d, height // d, width // d, channels)
        y = y.permute(0, 3, 1, 4, 2, 5).reshape(count, height, width, channels)
        return y.permute(0, 3, 1, 2)


def _after(convolution: nn.Conv2d) -> nn.Sequential:
    """Put batch norm and hard swish after a convolution."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.Hardswish())


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return _after(nn.Conv2d(in_channels, out_channels, 1, bias=False))


class _Block(nn.Module):
    """Pairs of a pointwise and a depthwise convolution, and a shortcut, added."""

    def __init__(self, in_channels: int, out_channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for number, dilation in enumerate(dilations):
            body += [
                _pointwise(in_channels if number == 0 else out_channels, out_channels),
                _after(_Depthwise(out_channels, dilation)),
            ]
        self.body = nn.Sequential(*body)
        self.shortcut = (
            _pointwise(in_channels, out_channels) if in_channels != out_channels else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class FullSeparable(SegModel):
    """Separable convolutions at full size, in blocks of growing dilation."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        stem: int = 48,
        widths: Sequence[int] = (64, 72, 72),
        dilations: Sequence[Sequence[int]] = ((1, 1, 1), (2, 2, 2), (4, 4, 4)),
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            stem: channels of the first convolution.
            widths: channels of each block.
            dilations: of each block, px between the taps of its depthwise convolutions; the sum of
                all and 1 is the receptive field's radius.

        Raises:
            ValueError: a number is below 1, or there are not as many dilations as blocks.
        """
        flat = [d for block in dilations for d in block]
        if not widths or len(widths) != len(dilations) or not all(dilations):
            raise ValueError(
                f"there are {len(widths)} widths and {len(dilations)} blocks of dilations; each "
                f"block takes a width and one dilation at least"
            )
        if min(stem, *widths, *flat) < 1:
            raise ValueError(
                f"stem {stem}, widths {tuple(widths)} and dilations {tuple(flat)} must be 1 at "
                f"least"
            )
        super().__init__()
        self.stem = _after(nn.Conv2d(in_channels, stem, 3, padding=1, bias=False))
        inputs = (stem, *widths[:-1])
        self.blocks = nn.Sequential(
            *(_Block(*block) for block in zip(inputs, widths, dilations, strict=True))
        )
        self.head = nn.Conv2d(widths[-1], classes, 1)
        #: Length of the features' direction; directions alone would bound the logits too narrowly.
        self.length = nn.Parameter(torch.tensor(10.0))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        y = self.blocks(self.stem(x)).float()
        return (self.head(unit_length(y) * self.length).float(),)
