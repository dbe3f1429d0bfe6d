"""DeepLab on VGG-16: Chen et al. 2015 (https://arxiv.org/abs/1412.7062) and its LargeFOV.

All poolings take 3 x 3 px; the last two have stride 1, and the convolutions behind them holes, so
that the scores lie at an eighth of the input. As in the authors' LargeFOV configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geoseg.networks.base import SegModel, init_convolutions
from geoseg.networks.vgg import load_vgg, scaled, vgg_groups

__all__ = ["DeepLabV1", "DeepLabV2VGG", "vgg_pooled"]


class _Head(NamedTuple):
    kernel: int
    rate: int
    padding: int
    channels: int
    average: bool


#: fc6 of each variant: the paper's table 2.
HEADS = {
    "largefov": _Head(3, 12, 12, 1024, True),
    "4x4": _Head(4, 4, 6, 4096, False),
    "7x7": _Head(7, 4, 12, 4096, False),
}


def vgg_pooled(groups: nn.ModuleList, x: Tensor) -> Tensor:
    """Run the trunk with DeepLab's poolings, to an eighth of the input: (N, 512, h, w)."""
    for group, stride in zip(groups, (2, 2, 2, 1, 1), strict=True):
        x = nn.functional.max_pool2d(group(x), 3, stride, padding=1)
    return x


def _trunk(in_channels: int, width: float) -> nn.ModuleList:
    return vgg_groups(in_channels, width=width, padding=(1, 1, 1, 1, 2), dilation=(1, 1, 1, 1, 2))


class DeepLabV1(SegModel):
    """DeepLab-LargeFOV, and the variants with fc6 of 4 x 4 and 7 x 7."""

    output_stride = 8
    multiple = 8
    size_multiple = 8
    size_offset = 1
    align_corners = True

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        head: str = "largefov",
        width: float = 1.0,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            head: ``largefov``, ``4x4`` or ``7x7``.
            width: times the published channels.
            encoder_weights: of VGG-16, or None.
            bands: the input's bands by name, for fitting these.

        Raises:
            ValueError: the head is unknown.
        """
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head {head!r} must be one of {sorted(HEADS)}")
        kernel, rate, padding, published, average = HEADS[head]
        hidden = scaled(published, width)
        self.groups = _trunk(in_channels, width)
        self.average = nn.AvgPool2d(3, 1, padding=1) if average else nn.Identity()
        self.fc6 = nn.Conv2d(scaled(512, width), hidden, kernel, padding=padding, dilation=rate)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.drop = nn.Dropout(0.5)
        self.score = nn.Conv2d(hidden, classes, 1)
        init_convolutions(self)
        init_convolutions(self.score, std=0.01)
        if encoder_weights is not None:
            load_vgg(self.groups, encoder_weights, bands)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at an eighth of the input."""
        x = self.average(vgg_pooled(self.groups, x))
        x = self.drop(torch.relu(self.fc6(x)))
        x = self.drop(torch.relu(self.fc7(x)))
        return (self.score(x),)


class DeepLabV2VGG(SegModel):
    """DeepLabV2 on VGG-16: four branches of fc6, fc7, fc8 at growing rates, summed.

    Figure 7 of Chen et al. 2017 (https://arxiv.org/abs/1606.00915).
    """

    output_stride = 8
    multiple = 8
    size_multiple = 8
    size_offset = 1
    align_corners = True

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        rates: Sequence[int] = (6, 12, 18, 24),
        width: float = 1.0,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            rates: of fc6, one a branch: ASPP-L by default; (2, 4, 8, 12) is ASPP-S.
            width: times the published channels.
            encoder_weights: of VGG-16, or None.
            bands: the input's bands by name, for fitting these.
        """
        super().__init__()
        deep, hidden = scaled(512, width), scaled(1024, width)
        self.groups = _trunk(in_channels, width)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(deep, hidden, 3, padding=rate, dilation=rate),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Conv2d(hidden, hidden, 1),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Conv2d(hidden, classes, 1),
            )
            for rate in rates
        )
        init_convolutions(self)
        for branch in self.branches:
            init_convolutions(list(branch.children())[-1], std=0.01)
        if encoder_weights is not None:
            load_vgg(self.groups, encoder_weights, bands)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at an eighth of the input."""
        x = vgg_pooled(self.groups, x)
        return (torch.stack([branch(x) for branch in self.branches]).sum(dim=0),)
