"""A disk of metres on a pixel grid, and what lies that near to something."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.model_grid import GSD_SLACK
from geoseg.geo.pixel_grid import PixelGrid

__all__ = ["Disk"]


@dataclass(frozen=True)
class Disk:
    """The pixels whose centres lie within a radius of a pixel's centre.

    Attributes:
        rows: a row each: (rows down, first column, last column), counted from the pixel. Of whole
            numbers alone, so that what it covers is the same in every window.
    """

    rows: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, grid: PixelGrid, radius: float) -> Disk:
        """Find the disk of a radius.

        Args:
            grid: of the pixels; any affine, in a CRS of whatever units.
            radius: metres on the ground, at least 0. Pixels are measured on the ellipsoid at the
                grid's centre, and one counts up to 1 % beyond: a UTM zone's scale must not decide.

        Raises:
            ValueError: the grid has no metres, and the radius is more than 0.
        """
        if radius == 0:
            return cls(((0, 0, 0),))
        if grid.metric is None:
            raise ValueError("a grid without metres has no disk of metres")
        across, mixed, down = grid.metric
        square = (radius * GSD_SLACK) ** 2
        # Down a turned or sheared grid the disk reaches as far as its lowest point.
        most = math.floor(math.sqrt(square / (down - mixed * mixed / across)))
        found = []
        for row in range(-most, most + 1):
            middle = -mixed * row / across
            half = math.sqrt(max(0.0, middle**2 - (down * row * row - square) / across))
            first, last = math.ceil(middle - half), math.floor(middle + half)
            if first <= last:
                found.append((row, first, last))
        return cls(tuple(found))

    @property
    def height(self) -> int:
        """How far it reaches up and down, px."""
        return max(abs(row) for row, *_ in self.rows)

    @property
    def width(self) -> int:
        """How far it reaches to the left and to the right, px."""
        return max(max(-first, last) for _, first, last in self.rows)

    def dilated(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Find the pixels in whose disk some pixel is True.

        Args:
            mask: (H, W).

        Returns:
            (H, W). Nothing lies beyond the mask's ends: who looks at a window reads it wider by
            ``height`` and ``width``.
        """
        if len(self.rows) == 1 and self.rows[0] == (0, 0, 0):
            return mask
        out = np.zeros_like(mask)
        if not mask.any():
            return out
        height, reach = len(mask), self.width
        # How many there are before each column, so that a row of the disk is one subtraction.
        counts = np.pad(np.cumsum(mask, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        counts = np.pad(counts, ((0, 0), (reach, reach)), mode="edge")
        for row, first, last in self.rows:
            top, bottom = max(0, -row), min(height, height - row)
            if top >= bottom:
                continue
            seen = counts[top + row : bottom + row]
            ends = seen[:, reach + last + 1 :][:, : mask.shape[1]]
            out[top:bottom] |= ends > seen[:, reach + first :][:, : mask.shape[1]]
        return out
