"""Blocks that a sparse GeoTIFF does not hold: which they are, and what their pixels count as."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any

from geoseg.core.gdal import retried
from geoseg.errors import SceneError
from geoseg.geo.window import Window
from geoseg.scene.file_blocks import interleaved
from geoseg.scene.resampling import Pixels

__all__ = ["SparseBlocks", "blocks_there", "some_blocks"]

#: So many blocks are looked up where some of them are enough: half a second.
SOME_BLOCKS = 400_000
#: Rows of blocks, of each band, of which it is kept whether one is there: rows of chips share some.
KEPT_ROWS = 256


class SparseBlocks:
    """The blocks that an open raster does not hold.

    All of them have the same pixels, so one is read for all. Formats other than GeoTIFF, whose
    blocks can't be looked up, count as holding all of them.
    """

    def __init__(
        self, dataset: Any, file: str, bands: list[int], read: Callable[[Window], Pixels]
    ) -> None:
        """Look nothing up yet.

        Args:
            dataset: rasterio's, of which no block was looked up.
            file: its path or URL.
            bands: from 1, those that are asked for.
            read: gives the pixels of a window of the file; a SceneError where it can't.
        """
        self._dataset, self._file, self._read = dataset, file, read
        self._planes = bands[:1] if interleaved(dataset) else bands
        self._row_is_empty = lru_cache(KEPT_ROWS * len(self._planes))(self._look)
        self._pixel: Pixels | None = None

    def pixel(self, window: Window) -> Pixels | None:
        """Find what every pixel of a window is, where none of its blocks is there.

        Args:
            window: within the file.

        Returns:
            The pixels of a window of 1 x 1; None where a block is there.

        Raises:
            SceneError: the table of blocks is cut short, or the server failed.
        """
        if not self._can_be_asked:
            return None
        height, width = self._dataset.block_shapes[0]
        cols = window.col // width, (window.right - 1) // width
        rows = range(window.row // height, (window.bottom - 1) // height + 1)
        if not all(self._row_is_empty(band, row, *cols) for row in rows for band in self._planes):
            return None
        if self._pixel is None:
            self._pixel = self._read(Window(window.row, window.col, 1, 1))
        return self._pixel

    @cached_property
    def _can_be_asked(self) -> bool:
        """Whether blocks can be looked up; it is found out before the first one is.

        GDAL takes a place that it can't read in the table of blocks for a block that is not there,
        and reports it only to who reads such a block before anybody looks it up. As GDAL itself
        looks up the last block when it opens a file, the one before it is read.
        """
        if self._dataset.driver != "GTiff":
            return False
        height, width = self._dataset.block_shapes[0]
        down, across = (
            math.ceil(length / side)
            for length, side in zip(self._dataset.shape, (height, width), strict=True)
        )
        row, col = divmod(max(0, down * across - 2), across)
        block = Window(row * height, col * width, 1, 1)
        try:
            self._read(block)
        except SceneError:
            if not any(blocks_there(self._dataset, max(self._planes), block)):
                raise  # the table is cut short; else it's that block which is damaged
        return True

    def _look(self, band: int, row: int, first: int, last: int) -> bool:
        """Whether none of a row of blocks is there, from one column of blocks to another."""
        height, width = self._dataset.block_shapes[0]
        blocks = Window(row * height, first * width, 1, (last - first) * width + 1)
        return not retried(self._file, lambda: any(blocks_there(self._dataset, band, blocks)))


def blocks_there(dataset: Any, band: int, window: Window) -> Iterator[bool]:
    """Look up whether each block that reaches into a window is there.

    What GDAL can't look up counts as missing, for good: :class:`SparseBlocks` sees first that the
    table of blocks is whole.

    Args:
        dataset: rasterio's, a GeoTIFF.
        band: from 1.
        window: within the dataset.

    Yields:
        One answer a block, row by row.
    """
    height, width = dataset.block_shapes[0]
    for row in range(window.row // height, (window.bottom - 1) // height + 1):
        for col in range(window.col // width, (window.right - 1) // width + 1):
            found = dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
            yield found is not None


def some_blocks(dataset: Any, file: str, band: int, most: int) -> list[Window]:
    """Find blocks that a GeoTIFF holds, spread over all that were found.

    Of a file with very many blocks one in so many is looked up.

    Args:
        dataset: rasterio's; see :func:`blocks_there`.
        file: its path or URL.
        band: from 1.
        most: how many windows to give at most.
    """
    if dataset.driver != "GTiff":
        return []
    height, width = dataset.block_shapes[0]
    down, across = math.ceil(dataset.height / height), math.ceil(dataset.width / width)
    every = math.ceil(down * across / SOME_BLOCKS)
    while math.gcd(every, across) > 1:  # else some columns would never be looked at
        every += 1

    def look() -> list[int]:
        return [
            number
            for number in range(0, down * across, every)
            if dataset.get_tag_item(
                f"BLOCK_OFFSET_{number % across}_{number // across}", "TIFF", bidx=band
            )
            is not None
        ]

    found = retried(file, look)
    chosen = found if len(found) <= most else [found[i * len(found) // most] for i in range(most)]
    whole = Window(0, 0, dataset.height, dataset.width)
    windows = (
        Window(n // across * height, n % across * width, height, width).intersection(whole)
        for n in chosen
    )
    return [window for window in windows if window is not None]
