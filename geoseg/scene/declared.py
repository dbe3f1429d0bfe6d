"""What a raster's header declares, against what its file holds and what may be read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, TILED, explain_read_error, retried
from geoseg.errors import SceneError
from geoseg.geo.window import Window
from geoseg.scene.file_blocks import interleaved, number_bytes

__all__ = [
    "MAX_PIXELS",
    "check_declared",
    "has_blocks",
    "pixel_limit",
    "pixels_allowed",
    "some_blocks",
]

#: Of a raster, unless the user says otherwise.
MAX_PIXELS = 100_000_000_000
#: A block is decoded as a whole, so it must fit into memory.
BLOCK_BYTES = 1 << 30
#: So many blocks are looked at, which takes ten seconds, to find out which are there.
MOST_BLOCKS = 8_000_000
#: And so many where some of them are enough: half a second.
SOME_BLOCKS = 400_000

_limit: ContextVar[float] = ContextVar("max_pixels", default=MAX_PIXELS)


@contextmanager
def pixel_limit(most: float | None) -> Iterator[None]:
    """Set how many pixels a raster may have that is opened in a ``with``.

    Args:
        most: of a band; blocks that a sparse file leaves out don't count. None for what holds
            outside, which is :data:`MAX_PIXELS` at first.
    """
    token = _limit.set(_limit.get() if most is None else most)
    try:
        yield
    finally:
        _limit.reset(token)


def pixels_allowed() -> float:
    """Give how many pixels a raster may have; see :func:`pixel_limit`."""
    return _limit.get()


def check_declared(dataset: Any, file: str) -> None:
    """Refuse an open raster that declares more than can be read, before memory is taken for it.

    Args:
        dataset: rasterio's.
        file: its path, for messages.

    Raises:
        SceneError: its pixels are too many, a block is too large, or its file can't hold them.
    """
    height, width = dataset.block_shapes[0]
    together = dataset.count if interleaved(dataset) else 1
    decoded = height * width * together * max(number_bytes(d) for d in set(dataset.dtypes))
    if decoded > BLOCK_BYTES:
        raise SceneError(
            f"{file}: its blocks are {width} x {height} px, {decoded / 1e9:.1f} GB when decoded; "
            f"at most {BLOCK_BYTES / 1e9:.1f} GB are taken: write it in smaller blocks ({TILED})"
        )
    pixels, most = dataset.height * dataset.width, _limit.get()
    if pixels > most and not _holds_at_most(dataset, most):
        size = _file_size(file)
        within = "" if size is None else f", in a file of {size} bytes"
        raise SceneError(
            f"{file} declares {dataset.width} x {dataset.height} px{within}; a raster may have "
            f"{most:.3g} pixels: give --max-pixels {_round_up(pixels):.2g} if it is meant so"
        )
    blocks = math.ceil(dataset.height / height) * math.ceil(dataset.width / width)
    size = _file_size(file)
    # Even the table of where blocks lie takes bytes; only a file without any block needs none.
    if dataset.driver == "GTiff" and size is not None and blocks > size:
        corner = RasterioWindow(dataset.width - 1, dataset.height - 1, 1, 1)
        try:
            dataset.read(1, window=corner)
        except GDAL_ERRORS as error:
            raise SceneError(
                f"{file} declares {dataset.width} x {dataset.height} px in {blocks} blocks, in a "
                f"file of {size} bytes: {explain_read_error(error, file)}"
            ) from error


def has_blocks(dataset: Any, file: str, bands: list[int], window: Window) -> bool:
    """Whether a GeoTIFF holds a block that reaches into a window; True where that isn't known.

    What GDAL can't look up counts as missing, for good: who asks has read a pixel of the window's
    last block before, which fails where the table of blocks is cut short.

    Args:
        dataset: rasterio's.
        file: its path or URL.
        bands: from 1.
        window: within the dataset.
    """
    if dataset.driver != "GTiff":
        return True
    planes = bands[:1] if interleaved(dataset) else bands

    def look() -> bool:
        return any(_blocks(dataset, planes, window))

    return retried(file, look)


def some_blocks(dataset: Any, file: str, band: int, most: int) -> list[Window]:
    """Find blocks that a GeoTIFF holds, spread over all that were found.

    Of a file with very many blocks one in so many is looked up.

    Args:
        dataset: rasterio's, of which a pixel was read; see :func:`has_blocks`.
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


def _blocks(dataset: Any, planes: list[int], window: Window) -> Iterator[bool]:
    """Whether each block that reaches into a window is there."""
    height, width = dataset.block_shapes[0]
    for band in planes:
        for row in range(window.row // height, (window.bottom - 1) // height + 1):
            for col in range(window.col // width, (window.right - 1) // width + 1):
                found = dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
                yield found is not None


def _holds_at_most(dataset: Any, most: float) -> bool:
    """Whether the blocks that are there have no more pixels than that."""
    height, width = dataset.block_shapes[0]
    blocks = math.ceil(dataset.height / height) * math.ceil(dataset.width / width)
    if dataset.driver != "GTiff" or blocks > MOST_BLOCKS:
        return False
    try:  # see has_blocks
        dataset.read(1, window=RasterioWindow(dataset.width - 1, dataset.height - 1, 1, 1))
    except GDAL_ERRORS:
        return False
    left = most
    for there in _blocks(dataset, [1], Window(0, 0, dataset.height, dataset.width)):
        left -= there * height * width
        if left < 0:
            return False
    return True


def _file_size(file: str) -> int | None:
    path = Path(file)
    return path.stat().st_size if path.is_file() else None


def _round_up(pixels: int) -> float:
    """To two digits."""
    step = 10.0 ** max(0, len(str(pixels)) - 2)
    return math.ceil(pixels / step) * step
