"""GCN, "Large Kernel Matters": Peng et al. 2017 (https://arxiv.org/abs/1703.02719)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geoseg.networks.base import init_convolutions, resize
from geoseg.networks.encoders import EncoderModel

__all__ = ["GCN"]


class _GlobalConvolution(nn.Module):
    """A k x k convolution of two separable ones, k x 1 after 1 x k and the other way round."""

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__()
        tall, wide = (kernel, 1), (1, kernel)
        self.left = _separable(in_channels, channels, tall, wide)
        self.right = _separable(in_channels, channels, wide, tall)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.left(x) + self.right(x)
        return y


def _separable(
    in_channels: int, channels: int, first: tuple[int, int], second: tuple[int, int]
) -> nn.Sequential:
    """Build two convolutions with same padding and nothing between them."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, first, padding=(first[0] // 2, first[1] // 2)),
        nn.Conv2d(channels, channels, second, padding=(second[0] // 2, second[1] // 2)),
    )


class _BoundaryRefinement(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.relu(self.conv1(x)))
        return x + y


class GCN(EncoderModel):
    """Large kernels on features at strides 4 to 32, refined on the way up to full size."""

    output_stride = 1
    multiple = 32
    size_multiple = 32

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str = "resnet152",
        kernel: int = 15,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            encoder: of timm.
            kernel: side of the large kernels, odd, px of each feature; the paper's best is 15.
            encoder_weights: None for random ones, or see :func:`geoseg.create_model`.
            bands: the input's bands by name, for fitting the weights.

        Raises:
            ValueError: the kernel is even.
        """
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} must be odd")
        super().__init__(
            encoder, in_channels, (2, 4, 8, 16, 32), weights=encoder_weights, bands=bands
        )
        # From the coarsest to the finest; the stem's features only lend their size.
        deep = tuple(reversed(self.encoder.channels[1:]))
        self.kernels = nn.ModuleList(_GlobalConvolution(c, classes, kernel) for c in deep)
        self.refine = nn.ModuleList(_BoundaryRefinement(classes) for _ in deep)
        self.refine_up = nn.ModuleList(_BoundaryRefinement(classes) for _ in range(len(deep) + 1))
        for part in (self.kernels, self.refine, self.refine_up):
            init_convolutions(part)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        stem, *features = self.encoder(x)
        scores = [
            refine(kernel(feature))
            for feature, kernel, refine in zip(
                reversed(features), self.kernels, self.refine, strict=True
            )
        ]
        y = scores[0]
        for score, refine in zip(scores[1:], self.refine_up, strict=False):
            y = refine(self._up(y, score) + score)
        for like, refine in zip((stem, x), self.refine_up[len(scores) - 1 :], strict=True):
            y = refine(self._up(y, like))
        return (y,)

    def _up(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, (like.shape[-2], like.shape[-1]), align_corners=self.align_corners)
