"""The mosaic's pixels, window by window: composed, halved for overviews, written, read back."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.core.workers import Stop
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError, SceneError
from geoseg.geo.geodesy import GroundGrid, Rings
from geoseg.geo.window import Window
from geoseg.mosaicking.reading import Layers
from geoseg.mosaicking.tops import RULES, score_type
from geoseg.rasters.class_raster import grid_as_written
from geoseg.rasters.writing import COG_BLOCK, NODATA, RasterSpec, halve, write_cog, write_vrt
from geoseg.scene.vrt import Source, virtual_raster

__all__ = ["Made", "compose", "count", "write_raster"]

#: Side of a window, px; a multiple of a COG's blocks.
WINDOW = 1024
#: Bytes of counters that a window may have.
COUNTERS = 128 << 20
#: Places along a side of a window at which the area of a pixel is measured.
NODES = 17


@dataclass
class Made:
    """What was made.

    Attributes:
        pixels: (number of maps,) that each gave; see :class:`geoseg.mosaicking.tops.Composed`.
        per_class: (256,) pixels of each id.
        area_m2: (256,) square metres of each id, NaN where the CRS gives none.
        crc: window of the mosaic, from its first pixel -> CRC-32 of its pixels; those without any
            class are left out.
    """

    pixels: NDArray[np.int64]
    per_class: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    area_m2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))
    crc: dict[Window, int] = field(default_factory=dict)


def compose(
    layers: Layers,
    top: str,
    stop: Stop,
    progress: Callable[[int, int], None],
    made: Made,
) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
    """Compose the mosaic's windows; those without any class are left out.

    Args:
        layers: the maps by rank.
        top: one of :data:`RULES`.
        stop: asked before each window.
        progress: called with windows done, and all.
        made: where what was made is counted.

    Yields:
        A window, from the mosaic's first pixel, and its ids, uint8 (H, W).
    """
    mosaic, ids = layers.mosaic, [c.id for c in layers.maps[0].classes]
    ground = grid_as_written(mosaic.pixels(), "the mosaic")
    whole = mosaic.window
    windows = [*_windows(whole.height, whole.width, _side(top, len(ids), len(layers.maps)))]
    for number, window in enumerate(windows, start=1):
        stop.check()
        place = Window(window.row + whole.row, window.col + whole.col, window.height, window.width)
        most = len(layers.within(place))
        if most:
            done = RULES[top](layers.read(place), most, (window.height, window.width), ids)
            for map_number, pixels in done.pixels.items():
                made.pixels[map_number] += pixels
            if (done.ids != NODATA).any():
                count(made, ground, window, done.ids)
                yield window, done.ids
        progress(number, len(windows))


def _side(top: str, classes: int, maps: int) -> int:
    """Find how large windows may be, px; multiples of a COG's blocks, whatever the rule is."""
    if top != "frequent":
        return WINDOW
    pixels = COUNTERS // (classes * score_type(maps).itemsize)
    return min(WINDOW, max(1, int(pixels**0.5) // COG_BLOCK) * COG_BLOCK)


def _windows(height: int, width: int, side: int) -> Iterator[Window]:
    for row, col in product(range(0, height, side), range(0, width, side)):
        yield Window(row, col, min(side, height - row), min(side, width - col))


def count(made: Made, ground: GroundGrid, window: Window, ids: NDArray[np.uint8]) -> None:
    """Count a window's pixels and areas, and keep its checksum.

    Args:
        made: where.
        ground: of the mosaic.
        window: from the mosaic's first pixel.
        ids: (H, W); 255 where there is no class.
    """
    pixels = np.bincount(ids.ravel(), minlength=256)
    pixels[NODATA] = 0
    made.per_class += pixels
    made.crc[window] = zlib.crc32(np.ascontiguousarray(ids).data)
    areas = np.bincount(ids.ravel(), _pixel_areas(ground, window).ravel(), minlength=256)
    areas[NODATA] = 0.0
    made.area_m2 += areas


def _pixel_areas(ground: GroundGrid, window: Window) -> NDArray[np.float64]:
    """Measure the pixels of a window, (H, W), square metres; NaN where that isn't known.

    Exact at some places, and linear between them.
    """
    places = []
    for first, size in ((window.row, window.height), (window.col, window.width)):
        at = np.unique(np.linspace(0, size - 1, NODES).round().astype(np.int64))
        weights = np.stack([np.interp(np.arange(size), at, one) for one in np.eye(len(at))])
        places.append((at + first, weights))
    (rows, down), (cols, across) = places
    y, x = np.meshgrid(rows, cols, indexing="ij")
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.float64)
    corners = (np.stack((x, y), axis=-1)[:, :, None, :] + square).reshape(-1, 2)
    each = np.arange(x.size + 1)
    nodes = ground.areas(Rings(ground.to_crs(corners), 5 * each, each)).reshape(x.shape)
    return np.asarray(down.T @ nodes @ across)


def write_raster(
    windows: Iterator[tuple[Window, NDArray[np.uint8]]],
    path: Path,
    scratch: Path,
    spec: RasterSpec,
    made: Made,
) -> None:
    """Write the mosaic.

    Args:
        windows: see :func:`compose`.
        path: of the COG.
        scratch: a folder for what is not kept.
        spec: what the raster is.
        made: filled while the windows come.

    Raises:
        OutputError: it can't be written, or does not hold what was written.
        SceneError: no pixel has a class.
    """
    scratch.mkdir(exist_ok=True)
    shape = spec.grid.height, spec.grid.width
    level = scratch / "mosaic.tif"
    try:
        there = []
        with _raster(level, shape) as dataset:
            for window, ids in windows:
                dataset.write(ids, 1, window=_rasterio(window))
                there.append(window)
        if not there:
            raise SceneError(
                "no pixel of the mosaic has a class: the maps hold nothing there; check --bbox"
            )
        overviews: list[Path] = []
        while max(shape) > COG_BLOCK:
            upper, level = level, scratch / f"overview-{len(overviews)}.tif"
            shape, there = _halved(upper, level, shape, there)
            overviews.append(level)
        virtual = scratch / "mosaic.vrt"
        whole = Window(0, 0, spec.grid.height, spec.grid.width)
        sources = [Source(Path("mosaic.tif"), whole)]
        names = [Path(overview.name) for overview in overviews]
        text = virtual_raster(whole.height, whole.width, "uint8", 1, sources, overviews=names)
        write_vrt(text, virtual, spec)
    except GDAL_ERRORS as error:
        raise explain_write_error(error, path) from error
    write_cog(virtual, path, spec)
    _verify(path, made)


@contextmanager
def _raster(path: Path, shape: tuple[int, int]) -> Iterator[Any]:
    """Open a class raster for writing, of which blocks without any class take no room."""
    # Half a file of a run that was killed: rasterio fails to replace what GDAL can't read.
    path.unlink(missing_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=shape[0],
        width=shape[1],
        count=1,
        dtype="uint8",
        nodata=NODATA,
        # Any but none, which rasterio would warn of whenever it meets the file.
        transform=Affine.translation(1, 1),
        tiled=True,
        blockxsize=COG_BLOCK,
        blockysize=COG_BLOCK,
        compress="zstd",
        zstd_level=1,
        sparse_ok=True,
        bigtiff="if_safer",
    ) as dataset:
        yield dataset


def _halved(
    upper: Path, path: Path, shape: tuple[int, int], there: Sequence[Window]
) -> tuple[tuple[int, int], list[Window]]:
    """Write a raster at half its size.

    Args:
        upper: the raster.
        path: of the new one.
        shape: of the raster.
        there: its windows that hold something; none of them share a pixel.

    Returns:
        Shape and windows of the new one.
    """
    half = (shape[0] + 1) // 2, (shape[1] + 1) // 2
    # Of two windows' halves, the whole window.
    corners = {(w.row // 2 // WINDOW * WINDOW, w.col // 2 // WINDOW * WINDOW) for w in there}
    windows = [
        Window(row, col, min(WINDOW, half[0] - row), min(WINDOW, half[1] - col))
        for row, col in sorted(corners)
    ]
    with rasterio.open(upper) as source, _raster(path, half) as dataset:
        for w in windows:
            bottom, right = min(2 * w.bottom, shape[0]), min(2 * w.right, shape[1])
            area = Window(2 * w.row, 2 * w.col, bottom - 2 * w.row, right - 2 * w.col)
            dataset.write(halve(source.read(1, window=_rasterio(area))), 1, window=_rasterio(w))
    return half, windows


def _verify(path: Path, made: Made) -> None:
    """Compare a finished raster with what it was made of: some disk errors show only so.

    Raises:
        OutputError: they differ, or it can't be read.
    """
    try:
        with rasterio.open(path) as dataset:
            alike = all(
                zlib.crc32(dataset.read(1, window=_rasterio(window)).data) == crc
                for window, crc in made.crc.items()
            )
    except GDAL_ERRORS as error:
        raise explain_write_error(error, path) from error
    if not alike:
        raise OutputError(
            f"{path}: what was read back differs from what was written, so the disk is full or "
            f"faulty; free some space or take another one"
        )


def _rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)
