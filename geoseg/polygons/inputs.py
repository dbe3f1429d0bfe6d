"""What polygons are made of: rows of a map, its legend, and probabilities."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pyproj.exceptions
import rasterio
import rasterio.errors
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.cards.legend import ClassInfo
from geoseg.core.gdal import first_line
from geoseg.core.names import public_name
from geoseg.core.workers import Stop
from geoseg.errors import SceneError, UsageError
from geoseg.geo.geodesy import GroundGrid
from geoseg.polygons.kernels.regions import notice
from geoseg.rasters.class_raster import MAX_ID, ClassRaster, outside
from geoseg.scene.files import opened
from geoseg.scene.sources import Rules

__all__ = ["MapRows", "legend_of", "open_shares", "with_not_sure"]


#: (top, bottom) -> (bands, rows, W) float32, NaN where unknown.
ShareRows = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class MapRows:
    """What polygons are made of, by rows of full width.

    Attributes:
        name: for messages.
        grid: where the pixels lie.
        ids: (top, bottom) -> ids (rows, W) of whole numbers, and where they are valid.
        confidence: reader of the winning probability, one band, or None.
        probs: reader of all, one band a class, or None.
    """

    name: str
    grid: GroundGrid
    ids: Callable[[int, int], tuple[NDArray[Any], NDArray[np.bool_]]]
    confidence: ShareRows | None = None
    probs: ShareRows | None = None


def legend_of(raster: ClassRaster, stop: Stop) -> list[ClassInfo]:
    """Read the classes in the raster's tags and colour table; without tags, all ids in it."""
    names = raster.legend
    if not names:
        seen = np.zeros(MAX_ID + 1, bool)
        for strip in raster.strips():
            stop.check()
            ids = strip.ids[strip.valid] if not strip.valid.all() else strip.ids
            if ids.dtype != np.uint8 and ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
                raise SceneError(outside(raster.path, ids))
            notice(np.ascontiguousarray(ids), seen)
        names = {i: f"class {i}" for i in np.flatnonzero(seen).tolist()}
    try:
        colours = raster.dataset.colormap(1)
    except ValueError:
        colours = {}
    return [
        ClassInfo(i, name, "#{:02X}{:02X}{:02X}".format(*colours.get(i, _colour(i))[:3]))
        for i, name in names.items()
    ]


def _colour(i: int) -> tuple[int, int, int]:
    """Choose a colour for a class that has none, far from its neighbours' (golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1.0, 0.5, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def with_not_sure(shares: ShareRows, place: int) -> ShareRows:
    """Give what is not sure, which has no probability of its own, a band of zeros.

    Args:
        shares: of the other classes, one band each.
        place: of it in the legend.
    """
    return lambda top, bottom: np.insert(shares(top, bottom), place, 0, axis=0)


@contextmanager
def open_shares(
    path: str | Path, grid: GroundGrid, bands: int, what: str, rules: Rules
) -> Iterator[ShareRows]:
    """Open a raster of probabilities on the class raster's grid."""
    path = public_name(path)

    def read(top: int, bottom: int) -> NDArray[np.float32]:
        window = RasterioWindow(0, top, grid.width, bottom - top)
        masked = dataset.read(window=window, masked=True).astype(np.float32)
        values = np.asarray(masked.filled(np.nan))
        if dataset.scales[0] != 1 or dataset.offsets[0] != 0:
            values = (values * dataset.scales[0] + dataset.offsets[0]).astype(np.float32)
        low, high = np.fmin.reduce(values, None), np.fmax.reduce(values, None)
        if low < -0.01 or high > 1.01:
            raise SceneError(
                f"{path} holds values outside 0 to 1; {what} is a share: 8-bit files need their "
                f"GDAL scale tag"
            )
        return values

    try:
        with opened(path, rules) as dataset:
            crs = None if dataset.crs is None else pyproj.CRS.from_user_input(dataset.crs)
            found = (dataset.count, dataset.shape, tuple(dataset.transform)[:6], crs)
            if found != (bands, (grid.height, grid.width), grid.transform, grid.file_crs):
                raise UsageError(
                    f"{path} has (bands, shape, transform, CRS) {found}; a {what} raster has "
                    f"{bands} bands on the class raster's grid: give the one of the same run"
                )
            yield read
    except (rasterio.errors.RasterioError, pyproj.exceptions.CRSError) as error:
        raise SceneError(f"{path} can't be read as a {what} raster: {first_line(error)}") from error
