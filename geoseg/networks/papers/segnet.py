"""SegNet: Badrinarayanan, Kendall and Cipolla 2017 (https://arxiv.org/abs/1511.00561).

The decoder puts values back where the encoder's poolings found their maxima. The sizes before the
poolings are kept, so that odd sides come back as they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import SegModel, init_convolutions
from geoseg.networks.vgg import load_vgg, scaled, vgg_groups

__all__ = ["SegNet", "SegNetBasic"]


def _pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2 x 2 px: maxima and their places in the flattened input, (N, C, H / 2, W / 2).

    Odd sides are rounded up, as in Caffe: 45 rows become 23 in the released configurations.
    """
    y, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
    return y, indices


def _unpool(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    """Put values back in their places; the rest is 0.

    torch's own max_unpool2d refuses to run deterministically; without overlap this is the same.
    """
    n, c = x.shape[:2]
    zeros = x.new_zeros((n, c, size[0] * size[1]))
    return zeros.scatter(2, indices.flatten(2), x.flatten(2)).view(n, c, size[0], size[1])


def _down_and_up(x: Tensor, encoder: nn.ModuleList, decoder: nn.ModuleList) -> Tensor:
    """Pool behind each group of the encoder, and put values back before each of the decoder."""
    places = []
    for group in encoder:
        x = group(x)
        size = x.shape[-2:]
        x, indices = _pool(x)
        places.append((indices, size))
    for group in decoder:
        x = group(_unpool(x, *places.pop()))
    return x


def _conv_bn(
    in_channels: int, out_channels: int, kernel: int, relu: bool = True
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
        nn.BatchNorm2d(out_channels),
    ]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


class SegNet(SegModel):
    """SegNet on VGG-16 with batch norm: 26 convolutions."""

    multiple = 32

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        width: float = 1.0,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            width: times the published channels.
            encoder_weights: of VGG-16 with batch norm, or None.
            bands: the input's bands by name, for fitting these.
        """
        super().__init__()
        self.encoder = vgg_groups(in_channels, width=width, batch_norm=True)
        decoder = ((512, 512, 512, 512), (512, 512, 512, 256), (256, 256, 256, 128), (128, 128, 64))
        self.decoder = nn.ModuleList()
        for published in decoder:
            channels = [scaled(c, width) for c in published]
            layers: list[nn.Module] = []
            for i, o in itertools.pairwise(channels):
                layers += _conv_bn(i, o, 3)
            self.decoder.append(nn.Sequential(*layers))
        last = scaled(64, width)
        self.decoder.append(
            nn.Sequential(*_conv_bn(last, last, 3), nn.Conv2d(last, classes, 3, padding=1))
        )
        init_convolutions(self)
        if encoder_weights is not None:
            load_vgg(self.encoder, encoder_weights, bands, batch_norm=True)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        return (_down_and_up(x, self.encoder, self.decoder),)


class SegNetBasic(SegModel):
    """SegNet-Basic: four convolutions of 7 x 7 down and four up."""

    multiple = 16

    def __init__(self, in_channels: int, classes: int, *, width: float = 1.0) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            width: times the published 64 channels.
        """
        super().__init__()
        channels = scaled(64, width)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.encoder = nn.ModuleList(
            nn.Sequential(*_conv_bn(channels if i else in_channels, channels, 7)) for i in range(4)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(*_conv_bn(channels, channels, 7, relu=False)) for _ in range(4)
        )
        self.classifier = nn.Conv2d(channels, classes, 1)
        init_convolutions(self)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        x = _down_and_up(self.norm(x), self.encoder, self.decoder)
        return (self.classifier(x),)
