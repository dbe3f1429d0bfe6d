"""What a filter of the CRF is, and the two that need no lattice."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.errors import ModelError

__all__ = ["EXACT_PIXELS", "ExactFilter", "Filter", "WindowFilter"]

#: The exact filter looks at all pairs of pixels: beyond this many pixels it takes minutes.
EXACT_PIXELS = 256 * 256
#: Numbers of one array that the exact filter and the window hold at a time. Larger arrays leave a
#: CPU's cache, and the system takes and clears their memory anew each time.
_BLOCK = 1 << 18


class Filter(Protocol):
    """A linear map over the pixels of one image: ``out_i = sum_j k(f_i, f_j) values_j``.

    ``k(a, b) = exp(-|a - b|^2 / 2)``, or an approximation of it up to one factor; ``f_i`` are pixel
    i's features, and j = i is among the sum. It is not normalised.
    """

    def __call__(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """Filter values of any number of channels.

        Args:
            values: (H * W, K), pixels row by row, of the features' dtype and device.
            transposed: apply the map's transpose, which carries gradients back.

        Returns:
            (H * W, K), like ``values``.
        """


class ExactFilter:
    """All pairs of pixels, a block of rows at a time: the reference, for small images."""

    def __init__(self, features: Tensor, radius: int) -> None:
        """Take the features.

        Args:
            features: float (D, H, W).
            radius: not used.

        Raises:
            ModelError: there are more than :data:`EXACT_PIXELS` pixels.
        """
        height, width = features.shape[1:]
        if height * width > EXACT_PIXELS:
            raise ModelError(
                f"the CRF's filter 'exact' got {height}x{width} px; it looks at all pairs of at "
                f"most 256x256 px: use filter 'permutohedral', or smaller chips"
            )
        self._features = features.flatten(1)

    def __call__(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """See :class:`Filter`; the map is its own transpose."""
        f = self._features
        pixels = f.shape[1]
        step = max(1, _BLOCK // pixels)
        blocks = []
        for start in range(0, pixels, step):
            # Differences rather than |a|^2 + |b|^2 - 2ab, which float32 can't subtract well.
            distance = f.new_zeros(min(step, pixels - start), pixels)
            for band in f:
                distance += (band[start : start + step, None] - band).square_()
            blocks.append(distance.mul_(-0.5).exp_() @ values)
        return torch.cat(blocks)


class WindowFilter:
    """Pairs of pixels that are at most ``radius`` rows and columns apart.

    Memory is a few images, whatever the radius: the offsets are taken one by one.
    """

    def __init__(self, features: Tensor, radius: int) -> None:
        """Take the features.

        Args:
            features: float (D, H, W).
            radius: px, at least 0.
        """
        height, width = features.shape[1:]
        self._rows, self._cols = min(radius, height - 1), min(radius, width - 1)
        self._features = features
        self._padded = self._pad(features)

    def _pad(self, x: Tensor) -> Tensor:
        return F.pad(x, (self._cols, self._cols, self._rows, self._rows))

    def __call__(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """See :class:`Filter`; the map is its own transpose."""
        height, width = self._features.shape[1:]
        # Beyond the image there are zeros, and what is zero adds nothing.
        padded = self._pad(values.T.reshape(-1, height, width))
        bands = max(len(self._features), len(padded))
        step = max(1, _BLOCK // (bands * width))
        blocks = []
        for top in range(0, height, step):
            here = self._features[:, top : top + step]
            out = padded.new_zeros(len(padded), *here.shape[1:])
            for down in range(top, top + 2 * self._rows + 1):
                for right in range(2 * self._cols + 1):
                    there = (
                        slice(None),
                        slice(down, down + here.shape[1]),
                        slice(right, right + width),
                    )
                    distance = (self._padded[there] - here).square_().sum(dim=0)
                    out.addcmul_(distance.mul_(-0.5).exp_(), padded[there])
            blocks.append(out)
        return torch.cat(blocks, dim=1).flatten(1).T
