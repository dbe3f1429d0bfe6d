"""What a raster's header declares, against what its file holds and what may be read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, TILED, explain_read_error
from geoseg.errors import SceneError
from geoseg.geo.window import Window
from geoseg.scene.file_blocks import interleaved, number_bytes
from geoseg.scene.sparse_blocks import blocks_there

__all__ = [
    "MAX_PIXELS",
    "check_declared",
    "pixel_limit",
    "pixels_allowed",
]

#: Of a raster, unless the user says otherwise.
MAX_PIXELS = 100_000_000_000
#: A block is decoded as a whole, so it must fit into memory.
BLOCK_BYTES = 1 << 30
#: So many blocks are looked at, which takes ten seconds, to find out which are there.
MOST_BLOCKS = 8_000_000

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


def _holds_at_most(dataset: Any, most: float) -> bool:
    """Whether the blocks that are there have no more pixels than that."""
    height, width = dataset.block_shapes[0]
    blocks = math.ceil(dataset.height / height) * math.ceil(dataset.width / width)
    if dataset.driver != "GTiff" or blocks > MOST_BLOCKS:
        return False
    try:  # see blocks_there
        dataset.read(1, window=RasterioWindow(dataset.width - 1, dataset.height - 1, 1, 1))
    except GDAL_ERRORS:
        return False
    left = most
    for there in blocks_there(dataset, 1, Window(0, 0, dataset.height, dataset.width)):
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
