"""PSPNet: Zhao et al. 2017 (https://arxiv.org/abs/1612.01105).

After the authors' releases (https://github.com/hszhao/PSPNet and semseg).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import conv_bn_relu, resize
from geoseg.networks.encoders import EncoderModel

__all__ = ["PSPNet", "PyramidPooling"]


class PyramidPooling(nn.Module):
    """The features beside their averages over a grid of 1, 2, 3 and 6 cells a side."""

    def __init__(self, in_channels: int, channels: int, bins: Sequence[int]) -> None:
        """Build the branches.

        Args:
            in_channels: of the features.
            channels: of each branch.
            bins: cells a side, one a branch.
        """
        super().__init__()
        self.bins = tuple(bins)
        self.branches = nn.ModuleList(conv_bn_relu(in_channels, channels) for _ in bins)

    def forward(self, x: Tensor) -> Tensor:
        """Give features (N, in_channels + len(bins) * channels, H, W) of (N, in_channels, H, W)."""
        size = (x.shape[-2], x.shape[-1])
        pooled = [
            resize(branch(F.adaptive_avg_pool2d(x, bins)), size, align_corners=True)
            for bins, branch in zip(self.bins, self.branches, strict=True)
        ]
        return torch.cat((x, *pooled), dim=1)


class PSPNet(EncoderModel):
    """A dilated encoder, pyramid pooling, and an auxiliary head in training."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str = "resnet50s",
        output_stride: int = 8,
        channels: int = 512,
        bins: Sequence[int] = (1, 2, 3, 6),
        aux: bool = False,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            encoder: of timm; those that end in ``s`` have the paper's deep stem.
            output_stride: of the encoder: 8, 16 or 32.
            channels: of the head; the branches of the pyramid share out the encoder's.
            bins: cells a side of the pyramid's branches.
            aux: whether there is an auxiliary head on the stage before the last; the paper weighs
                its loss with 0.4.
            encoder_weights: None for random ones, or see :func:`geoseg.create_model`.
            bands: the input's bands by name, for fitting the weights.
        """
        super().__init__(
            encoder,
            in_channels,
            (16, 32),
            output_stride=output_stride,
            weights=encoder_weights,
            bands=bands,
        )
        middle, deep = self.encoder.channels
        branch = max(1, deep // len(bins))
        self.pyramid = PyramidPooling(deep, branch, bins)
        self.head = _classifier(deep + len(bins) * branch, channels, classes)
        self.aux = _classifier(middle, middle // 4, classes) if aux else None

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the encoder's output stride; in training also those of the second head."""
        middle, deep = self.encoder(x)
        logits = self.head(self.pyramid(deep))
        if self.aux is None or not self.training:
            return (logits,)
        return logits, self.aux(middle)


def _classifier(in_channels: int, channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn_relu(in_channels, channels, 3), nn.Dropout2d(0.1), nn.Conv2d(channels, classes, 1)
    )
