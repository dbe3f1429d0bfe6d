"""A linear classifier of single pixels: the simplest network, and a baseline for the others."""

from __future__ import annotations

from torch import Tensor, nn

from geoseg.networks.base import SegModel

__all__ = ["Linear"]


class Linear(SegModel):
    """A 1x1 convolution: logistic regression on each pixel's bands."""

    def __init__(self, in_channels: int, classes: int) -> None:
        """Build it.

        Args:
            in_channels: bands C.
            classes: K.
        """
        super().__init__()
        self.head = nn.Conv2d(in_channels, classes, 1)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size."""
        return (self.head(x),)
