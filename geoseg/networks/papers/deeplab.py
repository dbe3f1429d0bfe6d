"""DeepLabV2, V3 and V3+ on a dilated encoder.

- V2: Chen et al. 2017 (https://arxiv.org/abs/1606.00915)
- V3: Chen et al. 2017 (https://arxiv.org/abs/1706.05587)
- V3+: Chen et al. 2018 (https://arxiv.org/abs/1802.02611)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.networks.base import conv_bn_relu, init_convolutions, resize
from geoseg.networks.encoders import EncoderModel, Tap

__all__ = ["ASPP", "DeepLabV2", "DeepLabV3", "DeepLabV3Plus"]

#: Rates of the pyramid by output stride; the papers double them where the features are denser.
RATES = {32: (3, 6, 9), 16: (6, 12, 18), 8: (12, 24, 36)}


class DeepLabV2(EncoderModel):
    """An encoder of output stride 8 and four dilated classifiers, summed (ASPP-L)."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str = "resnet101",
        rates: Sequence[int] = (6, 12, 18, 24),
        output_stride: int = 8,
        caffe: bool = False,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            encoder: of timm.
            rates: of the classifiers.
            output_stride: of the encoder: 8, 16 or 32.
            caffe: whether strides lie where the first ResNets had them, see
                :func:`geoseg.networks.encoders.create_encoder`.
            encoder_weights: None for random ones, or see :func:`geoseg.create_model`.
            bands: the input's bands by name, for fitting the weights.
        """
        super().__init__(
            encoder,
            in_channels,
            (32,),
            output_stride=output_stride,
            caffe=caffe,
            weights=encoder_weights,
            bands=bands,
        )
        self.branches = nn.ModuleList(
            nn.Conv2d(self.encoder.channels[-1], classes, 3, padding=rate, dilation=rate)
            for rate in rates
        )
        init_convolutions(self.branches, std=0.01)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the encoder's output stride."""
        x = self.encoder(x)[-1]
        return (torch.stack([branch(x) for branch in self.branches]).sum(dim=0),)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with a branch for the whole image."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: Sequence[int],
        *,
        separable: bool = False,
        image_first: bool = False,
    ) -> None:
        """Build the branches.

        Args:
            in_channels: of the features.
            channels: of each branch and of the result.
            rates: of the 3 x 3 branches.
            separable: whether its 3 x 3 convolutions are, see
                :func:`geoseg.networks.base.conv_bn_relu`.
            image_first: whether the image's branch stands first in the concatenation, as in the
                authors' code (https://github.com/tensorflow/models), or last.
        """
        super().__init__()
        self.image_first = image_first
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(in_channels, channels),
                *(
                    conv_bn_relu(in_channels, channels, 3, dilation=rate, separable=separable)
                    for rate in rates
                ),
            ]
        )
        self.image = conv_bn_relu(in_channels, channels)
        self.project = nn.Sequential(
            conv_bn_relu((len(rates) + 2) * channels, channels), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give features (N, channels, H, W) of (N, in_channels, H, W)."""
        image = self.image(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        parts = [branch(x) for branch in self.branches]
        parts = [image, *parts] if self.image_first else [*parts, image]
        y: Tensor = self.project(torch.cat(parts, dim=1))
        return y


def _rates(rates: Sequence[int] | None, output_stride: int) -> Sequence[int]:
    if rates is not None:
        return rates
    if output_stride not in RATES:
        raise ValueError(f"output_stride {output_stride} must be one of {sorted(RATES)}")
    return RATES[output_stride]


class DeepLabV3(EncoderModel):
    """An encoder with a multi-grid, a pyramid with image pooling, a pointwise classifier."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str = "resnet50",
        output_stride: int = 16,
        rates: Sequence[int] | None = None,
        multi_grid: Sequence[int] = (),
        channels: int = 256,
        caffe: bool = False,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            encoder: of timm.
            output_stride: of the encoder: 8, 16 or 32.
            rates: of the pyramid, or None for the paper's at this output stride.
            multi_grid: factors of the last stage's rates, see
                :func:`geoseg.networks.encoders.create_encoder`.
            channels: of the pyramid.
            caffe: whether strides lie where the first ResNets had them, see
                :func:`geoseg.networks.encoders.create_encoder`.
            encoder_weights: None for random ones, or see :func:`geoseg.create_model`.
            bands: the input's bands by name, for fitting the weights.
        """
        super().__init__(
            encoder,
            in_channels,
            (32,),
            output_stride=output_stride,
            multi_grid=multi_grid,
            caffe=caffe,
            weights=encoder_weights,
            bands=bands,
        )
        self.aspp = ASPP(self.encoder.channels[-1], channels, _rates(rates, output_stride))
        self.score = nn.Conv2d(channels, classes, 1)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the encoder's output stride."""
        return (self.score(self.aspp(self.encoder(x)[-1])),)


class DeepLabV3Plus(EncoderModel):
    """DeepLabV3 with a decoder that joins features at a quarter of the input."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str = "resnet50",
        output_stride: int = 16,
        rates: Sequence[int] | None = None,
        multi_grid: Sequence[int] = (),
        channels: int = 256,
        low_channels: int = 48,
        separable: bool = False,
        image_first: bool = False,
        first_block: str = "own",
        taps: Sequence[Sequence[Any]] = (),
        caffe: bool = False,
        align_corners: bool | None = None,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            encoder: of timm.
            output_stride: of the encoder: 8, 16 or 32.
            rates: of the pyramid, or None for the paper's at this output stride.
            multi_grid: factors of the last stage's rates, see
                :func:`geoseg.networks.encoders.create_encoder`.
            channels: of the pyramid and the decoder.
            low_channels: of the fine features after their projection.
            separable: whether its 3 x 3 convolutions are, see
                :func:`geoseg.networks.base.conv_bn_relu`.
            image_first: where the image's branch stands, see :class:`ASPP`.
            first_block: the rate of a dilated stage's first block, see
                :func:`geoseg.networks.encoders.create_encoder`.
            taps: (module, channels, stride) of the fine and the coarse features, where timm would
                take others.
            caffe: whether strides lie where the first ResNets had them, see
                :func:`geoseg.networks.encoders.create_encoder`.
            align_corners: how features and logits are resized; None for what suits the encoder,
                which is True for ResNets, as in the authors' code.
            encoder_weights: None for random ones, or see :func:`geoseg.create_model`.
            bands: the input's bands by name, for fitting the weights.
        """
        super().__init__(
            encoder,
            in_channels,
            (4, 32),
            output_stride=output_stride,
            multi_grid=multi_grid,
            caffe=caffe,
            first_block=first_block,
            taps=[Tap(*tap) for tap in taps],
            weights=encoder_weights,
            bands=bands,
        )
        if align_corners is not None:
            self.align_corners = align_corners
        low, deep = self.encoder.channels
        self.aspp = ASPP(
            deep,
            channels,
            _rates(rates, output_stride),
            separable=separable,
            image_first=image_first,
        )
        self.low = conv_bn_relu(low, low_channels)
        self.decoder = nn.Sequential(
            conv_bn_relu(channels + low_channels, channels, 3, separable=separable),
            conv_bn_relu(channels, channels, 3, separable=separable),
        )
        self.score = nn.Conv2d(channels, classes, 1)
        init_convolutions(self.score, std=0.01)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at a quarter of the input."""
        low, deep = self.encoder(x)
        low = self.low(low)
        deep = resize(
            self.aspp(deep), (low.shape[-2], low.shape[-1]), align_corners=self.align_corners
        )
        return (self.score(self.decoder(torch.cat((deep, low), dim=1))),)
