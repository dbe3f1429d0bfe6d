"""What a part of a raster costs to read: the blocks that it touches, decoded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine

from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window

__all__ = ["BlockLayout", "layout_of", "read_bytes"]

#: Drivers that keep wavelets: a block takes so many times as long as one of DEFLATE, and of a
#: lower resolution less is decoded.
WAVELETS, SLOWER = ("JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEG2000"), 16


@dataclass(frozen=True)
class BlockLayout:
    """The blocks of a file, as far as they are read.

    Attributes:
        grid: of the file.
        height: of a block, px.
        width: of a block, px.
        size: bytes of a block of all bands that are read, decoded.
        levels: how many times as large the pixels of its overviews are.
        wavelets: whether overviews are parts of the blocks.
    """

    grid: PixelGrid
    height: int
    width: int
    size: int
    levels: tuple[int, ...] = ()
    wavelets: bool = False

    def cost(self, of: PixelGrid, windows: Iterable[Window], step: int) -> int:
        """Count the bytes to decode for every so-many-th pixel of windows, each block once.

        Args:
            of: the grid of the windows.
            windows: within it.
            step: px of the grid from one pixel that is wanted to the next.
        """
        relative = ~self.grid.transform @ of.transform
        if of.crs == self.grid.crs:
            ratio = math.sqrt(abs(relative.determinant))
        else:  # about
            ratio = math.sqrt(self.grid.height * self.grid.width / (of.height * of.width))
            relative = Affine.scale(ratio)
        level = max((v for v in (1, *self.levels) if v <= step * ratio), default=1)
        # The blocks of an overview are as large as the file's, but for wavelets.
        part = 1 if self.wavelets else level
        height, width = self.height * part, self.width * part
        touched: set[tuple[int, int]] = set()
        for window in windows:
            ends = (window.col + 0.5, window.row + 0.5), (window.right - 0.5, window.bottom - 0.5)
            cols, rows = (
                sorted(map(int, place))
                for place in zip(*(relative @ end for end in ends), strict=True)
            )
            touched.update(
                (row, col)
                for row in range(rows[0] // height, rows[1] // height + 1)
                for col in range(cols[0] // width, cols[1] // width + 1)
            )
        each = self.size * SLOWER // level**2 if self.wavelets else self.size
        return len(touched) * max(1, each)


def layout_of(dataset: Any, grid: PixelGrid, indexes: Sequence[int]) -> BlockLayout:
    """Look up a file's blocks.

    Args:
        dataset: rasterio's.
        grid: of the file.
        indexes: of the bands that are read, from 1.
    """
    height, width = dataset.block_shapes[indexes[0] - 1]
    together = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    count = dataset.count if together else len(indexes)
    size = height * width * count * np.dtype(dataset.dtypes[indexes[0] - 1]).itemsize
    return BlockLayout(
        grid,
        height,
        width,
        size,
        tuple(dataset.overviews(indexes[0])),
        dataset.driver in WAVELETS,
    )


def read_bytes(
    layouts: Iterable[BlockLayout], grid: PixelGrid, windows: Sequence[Window], step: int
) -> int:
    """Count the bytes to decode for every so-many-th pixel of windows of a scene.

    Args:
        layouts: of all its files.
        grid: of the windows.
        windows: within it.
        step: px of the grid from one pixel that is wanted to the next.
    """
    return sum(layout.cost(grid, windows, step) for layout in layouts)
