"""RefineNet, four-cascaded: Lin et al. 2017 (https://arxiv.org/abs/1611.06612).

Four stages from the coarsest features to the finest; each adapts its features, adds the stage
before, pools in a chain and convolves. The number of units is the released code's, which has more
of them than the paper's figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import init_convolutions, resize
from geoseg.networks.encoders import EncoderModel

__all__ = ["RefineNet"]


def _conv(in_channels: int, out_channels: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


class _ResidualUnit(nn.Module):
    """RCU: twice ReLU and convolution beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, bias=True)
        self.conv2 = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.relu(self.conv1(torch.relu(x))))
        return x + y


class _ChainedPooling(nn.Module):
    """CRP: poolings of 5 x 5 px, each followed by a convolution, all added to the input."""

    def __init__(self, channels: int, pools: int, conv_first: bool) -> None:
        super().__init__()
        self.conv_first = conv_first
        self.convs = nn.ModuleList(_conv(channels, channels) for _ in range(pools))

    def forward(self, x: Tensor) -> Tensor:
        total = step = torch.relu(x)
        for conv in self.convs:
            if self.conv_first:
                step = F.max_pool2d(conv(step), 5, stride=1, padding=2)
            else:
                step = conv(F.max_pool2d(step, 5, stride=1, padding=2))
            total = total + step
        return total


class _Stage(nn.Module):
    """One RefineNet block."""

    def __init__(
        self, in_channels: int, channels: int, coarse: int | None, pools: int, conv_first: bool
    ) -> None:
        super().__init__()
        self.reduce = _conv(in_channels, channels)
        self.adapt = nn.Sequential(_ResidualUnit(channels), _ResidualUnit(channels))
        self.fuse_fine = None if coarse is None else _conv(channels, channels)
        self.fuse_coarse = None if coarse is None else _conv(coarse, channels)
        self.pool = _ChainedPooling(channels, pools, conv_first)
        self.output = nn.Sequential(*(_ResidualUnit(channels) for _ in range(3)))

    def forward(self, x: Tensor, coarse: Tensor | None, align_corners: bool) -> Tensor:
        x = self.adapt(self.reduce(x))
        if coarse is not None:
            assert self.fuse_fine is not None and self.fuse_coarse is not None
            size = (x.shape[-2], x.shape[-1])
            coarse = resize(self.fuse_coarse(coarse), size, align_corners=align_corners)
            x = self.fuse_fine(x) + coarse
        y: Tensor = self.output(self.pool(x))
        return y


class RefineNet(EncoderModel):
    """Four stages on an encoder's features at strides 4, 8, 16 and 32."""

    output_stride = 4
    multiple = 32
    size_multiple = 32

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str = "resnet101",
        channels: int = 256,
        pools: int = 4,
        conv_first: bool = False,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            encoder: of timm.
            channels: of the stages; the coarsest has twice as many.
            pools: of each chain.
            conv_first: in the chain, convolve before pooling, as the authors' later code does.
            encoder_weights: None for random ones, or see :func:`geoseg.create_model`.
            bands: the input's bands by name, for fitting the weights.
        """
        super().__init__(encoder, in_channels, (4, 8, 16, 32), weights=encoder_weights, bands=bands)
        self.drop = nn.Dropout(0.5)
        self.stages = nn.ModuleList()
        coarse: int | None = None
        for deep in reversed(self.encoder.channels):
            own = 2 * channels if coarse is None else channels
            self.stages.append(_Stage(deep, own, coarse, pools, conv_first))
            coarse = own
        self.score = _conv(channels, classes, bias=True)
        init_convolutions(self.stages)
        init_convolutions(self.score, std=0.01)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at a quarter of the input."""
        fine1, fine2, deep3, deep4 = self.encoder(x)
        y: Tensor | None = None
        features = (self.drop(deep4), self.drop(deep3), fine2, fine1)
        for stage, feature in zip(self.stages, features, strict=True):
            y = stage(feature, y, self.align_corners)
        assert y is not None
        return (self.score(self.drop(y)),)
