"""Blocks that a file is decoded by, each as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from geoseg.geo.window import Window

__all__ = [
    "TALL_ROWS",
    "FileBlocks",
    "blocks_of",
    "interleaved",
    "number_bytes",
    "rows_of_blocks",
]

#: Blocks of more rows are tall: rows of chips are read several times from each.
TALL_ROWS = 512


@dataclass(frozen=True)
class FileBlocks:
    """What a file is decoded by.

    Attributes:
        height: rows of a block.
        width: columns of a block.
        bands: of the file that are decoded together.
        decoding: bytes a number, while a block is decoded.
    """

    height: int
    width: int
    bands: int
    decoding: int

    @property
    def tall(self) -> bool:
        """Whether a row of chips is only a part of a row of blocks."""
        return self.height > TALL_ROWS

    @property
    def decoder_bytes(self) -> int:
        """Memory of a decoder that is at work on a block, beside the cache."""
        return self.height * self.width * self.bands * self.decoding


def number_bytes(dtype: str) -> int:
    """Bytes of a number.

    Args:
        dtype: as rasterio calls it.
    """
    # The only one of rasterio's that numpy does not know.
    return 4 if dtype == "complex_int16" else np.dtype(dtype).itemsize


def interleaved(dataset: Any) -> bool:
    """Whether a block holds all bands.

    Args:
        dataset: rasterio's.
    """
    return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL")


def blocks_of(dataset: Any) -> FileBlocks:
    """Find what a raster is decoded by.

    Args:
        dataset: rasterio's.
    """
    height, width = dataset.block_shapes[0]
    # Decoders of JPEG 2000 compute with 4 bytes, and took 5 with all that they hold; of others the
    # block as it stands in the file is there, too, which is hardly larger.
    decoding = 5 if dataset.driver.startswith("JP2") else 2 * number_bytes(dataset.dtypes[0])
    return FileBlocks(height, width, dataset.count if interleaved(dataset) else 1, decoding)


def rows_of_blocks(window: Window, starts: Iterable[tuple[int, int]]) -> list[Window]:
    """Cut a window where rows of blocks begin.

    >>> rows_of_blocks(Window(900, 0, 300, 5), [(1024, 0)])
    [Window(row=900, col=0, height=124, width=5), Window(row=1024, col=0, height=176, width=5)]

    Args:
        window: of a pixel grid.
        starts: (rows of a block, row of the file at the grid's first row) of each file.

    Returns:
        Its parts from the top, in each of which every file is read from one row of blocks alone.
    """
    cuts = {window.row, window.bottom}
    for height, shift in starts:
        first = (window.row + shift) // height * height + height - shift
        cuts.update(range(first, window.bottom, height))
    edges = sorted(cuts)
    return [Window(a, window.col, b - a, window.width) for a, b in pairwise(edges)]
