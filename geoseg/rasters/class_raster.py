"""Class rasters that are read: strip by strip, with their legend."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj.exceptions
import rasterio.errors
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from geoseg.cards.legend import NOT_SURE_TAG
from geoseg.core.gdal import (
    GDAL_ERRORS,
    block_cache,
    explain_read_error,
    first_line,
    gdal_options,
    retried,
)
from geoseg.core.names import public_name
from geoseg.errors import SceneError
from geoseg.geo.geodesy import GroundGrid
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.files import opened
from geoseg.scene.place import check_place
from geoseg.scene.sources import LOCAL, Rules

__all__ = [
    "ClassRaster",
    "MapStrip",
    "Survey",
    "grid_as_written",
    "open_class_raster",
    "outside",
    "read_class_window",
    "read_window",
    "survey",
]

#: Ids are whole numbers of 0 to this one.
MAX_ID = 65535


@dataclass(frozen=True)
class MapStrip:
    """Full-width rows of a class raster.

    Attributes:
        top: the first row, px.
        ids: (H, W) whole numbers.
        valid: (H, W), True where there is a class; elsewhere ids mean nothing.
    """

    top: int
    ids: NDArray[Any]
    valid: NDArray[np.bool_]

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.top + len(self.ids)


@dataclass(frozen=True)
class ClassRaster:
    """An open class raster.

    Attributes:
        path: the file.
        dataset: rasterio's.
        grid: where its pixels lie.
        legend: id -> name as the file's tags have them; empty where it has none.
        not_sure: the one of these ids that pixels have whose confidence was too low for a class,
            by the tag GEOSEG_NOT_SURE; None where there is none.
    """

    path: str
    dataset: Any
    grid: GroundGrid
    legend: dict[int, str]
    not_sure: int | None = None

    def strips(self) -> Iterator[MapStrip]:
        """Read all pixels once, in strips of about a million.

        Raises:
            SceneError: a block is damaged.
        """
        for top, bottom in self.grid.strips():
            window = Window(top, 0, bottom - top, self.grid.width)
            yield MapStrip(top, *read_class_window(self.dataset, self.path, window))

    @property
    def pixels(self) -> PixelGrid:
        """The grid, as scenes and labels have theirs."""
        return PixelGrid.of(self.dataset)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north of all corners, also of a rotated grid; CRS units."""
        height, width = self.grid.height, self.grid.width
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
        x, y = self.grid.to_crs(corners).T
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())


@dataclass(frozen=True)
class Survey:
    """What a class raster holds.

    Attributes:
        ids: (K,) of the legend; of the pixels, in ascending order, where there is no legend.
        names: (K,) of the classes.
        pixels: (K,) int64.
        area_m2: (K,) geodesic; None without a geographic or projected CRS, or where the CRS gives
            some pixels no place on the ground.
        area_range: smallest and largest geodesic area of a pixel with a class, square metres;
            None as for ``area_m2``.
    """

    ids: list[int]
    names: list[str]
    pixels: NDArray[np.int64]
    area_m2: NDArray[np.float64] | None
    area_range: tuple[float, float] | None

    @property
    def areas(self) -> NDArray[np.float64]:
        """(K,) in square metres, or in pixels where these are not known."""
        return self.pixels.astype(np.float64) if self.area_m2 is None else self.area_m2


@contextmanager
def open_class_raster(
    path: str | Path, hint: str = "", rules: Rules = LOCAL
) -> Iterator[ClassRaster]:
    """Open a class raster.

    Args:
        path: or URL of a raster with one band of whole numbers (and perhaps alpha), which may be
            written as floats. Names are read from the tags ``class_<id>`` of the band or
            ``GEOSEG_CLASSES`` of the file, as ``geoseg predict`` writes them.
        hint: what else a raster of other bands may be, for the message.
        rules: what the file may point to.

    Raises:
        SceneError: it isn't there, or is no class raster, or its coordinates are not those of its
            CRS.
    """
    text = public_name(path)
    with gdal_options(text), opened(text, rules) as dataset:
        bands = dataset.count - (ColorInterp.alpha in dataset.colorinterp)
        # Whether floats are whole numbers shows as they are read.
        if bands != 1 or dataset.dtypes[0].startswith("complex"):
            raise SceneError(
                f"{text} has {bands} bands of {dataset.dtypes[0]}; a class raster has one band of "
                f"whole numbers: give the class raster, not probabilities or a scene{hint}"
            )
        grid = _map_grid(dataset, text)
        check_place(PixelGrid.of(dataset), text)
        with block_cache(_cache_bytes(dataset)):
            legend = _legend(dataset, text)
            yield ClassRaster(text, dataset, grid, legend, _not_sure(dataset, legend))


def _map_grid(dataset: Any, path: str) -> GroundGrid:
    try:
        return GroundGrid.of(dataset)
    except pyproj.exceptions.CRSError as error:
        raise SceneError(f"{path} has a CRS that is unknown ({first_line(error)})") from error


def grid_as_written(grid: PixelGrid, path: str | Path) -> GroundGrid:
    """Make the grid that a GeoTIFF will give back, whose words for a CRS differ from a scene's.

    Args:
        grid: of the raster.
        path: of the raster, which need not be there; for messages.

    Raises:
        SceneError: the CRS is unknown.
    """
    with MemoryFile() as memory:
        about = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": 1, "width": 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with memory.open(**about, crs=grid.crs, transform=grid.transform):
                pass
            with memory.open() as dataset:
                written = _map_grid(dataset, str(path))
    return replace(written, height=grid.height, width=grid.width)


def _cache_bytes(dataset: Any) -> int:
    """GDAL's block cache: a few rows of blocks, so that none is decoded twice, and no more."""
    row = dataset.width * np.dtype(dataset.dtypes[0]).itemsize * dataset.count
    return int(min(max(3 * dataset.block_shapes[0][0] * row, 64 << 20), 512 << 20))


def _legend(dataset: Any, path: str) -> dict[int, str]:
    """Read the names in the tags.

    Raises:
        SceneError: they can't be read.
    """
    matches = ((re.fullmatch(r"class_(\d+)", key), name) for key, name in dataset.tags(1).items())
    legend = {int(match[1]): name for match, name in matches if match}
    if not legend and (text := dataset.tags().get("GEOSEG_CLASSES")):
        try:
            legend = {int(key): str(name) for key, name in json.loads(text).items()}
        except (ValueError, AttributeError) as error:
            raise SceneError(
                f"{path}: its tag GEOSEG_CLASSES is {text[:60]!r}, and must be a JSON object of "
                f"id: name; correct or remove it (gdal_edit.py)"
            ) from error
    return dict(sorted(legend.items()))


def _not_sure(dataset: Any, legend: dict[int, str]) -> int | None:
    """Read which id of the legend stands for what is not sure; None where none does."""
    text = dataset.tags().get(NOT_SURE_TAG, "")
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and int(text) in legend else None


def read_class_window(
    dataset: Any, path: str, window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read ids of a part of an open class raster, or of a virtual warp of one.

    Args:
        dataset: rasterio's; its first band is read.
        path: for messages.
        window: within the dataset.

    Returns:
        ids (H, W) of the file's dtype, int32 for whole numbers that were written as floats; and
        where they are valid: neither nodata nor masked.

    Raises:
        SceneError: a block is damaged, or numbers are not whole.
    """
    values, valid = read_window(dataset, path, window)
    if values.dtype.kind != "f":
        return values, valid
    valid = valid & ~np.isnan(values)
    ids = np.where(valid, values, 0)
    odd = ids[ids != np.rint(ids)]
    if odd.size:
        raise SceneError(
            f"{path} holds {odd[0]:g}; a class raster has whole numbers: give the class raster, "
            f"not probabilities or a scene"
        )
    if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
        raise SceneError(outside(path, ids))
    return ids.astype(np.int32), valid


def outside(path: str, ids: NDArray[Any]) -> str:
    """Say why a raster's numbers can't be class ids, for a message."""
    return (
        f"{path} holds {ids.min()} to {ids.max()}; class ids are 0 to {MAX_ID}: is its nodata "
        f"unset (gdal_edit.py -a_nodata)?"
    )


def read_window(dataset: Any, path: str, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a part of a raster's first band, as it is.

    Args:
        dataset: rasterio's.
        path: for messages.
        window: within the dataset.

    Returns:
        values (H, W) of the file's dtype, and where they are neither nodata nor masked.

    Raises:
        SceneError: a block is damaged.
    """
    area = RasterioWindow(window.col, window.row, window.width, window.height)

    def read() -> tuple[NDArray[Any], NDArray[np.bool_]]:
        ids = np.asarray(dataset.read(1, window=area))
        valid = np.asarray(dataset.read_masks(1, window=area)) != 0
        if ColorInterp.alpha in dataset.colorinterp:
            alpha = dataset.colorinterp.index(ColorInterp.alpha) + 1
            valid &= np.asarray(dataset.read(alpha, window=area)) != 0
        return ids, valid

    try:
        return retried(path, read)
    except GDAL_ERRORS as error:
        raise SceneError(
            f"{path}: rows {window.row} to {window.bottom - 1} can't be read: "
            f"{explain_read_error(error, path)}"
        ) from error


def survey(raster: ClassRaster) -> Survey:
    """Count the pixels of each class and measure their areas, in one pass.

    Args:
        raster: open.

    Returns:
        The legend with pixels and geodesic areas, without what is not sure.

    Raises:
        SceneError: a block is damaged, there is no pixel with a class, or a pixel's id is not in
            the legend, or is none of 0 to 65535.
    """
    pixels = np.zeros(MAX_ID + 1, np.int64)
    area = np.zeros(MAX_ID + 1)
    low, high = np.inf, 0.0
    for strip in raster.strips():
        mapped = strip.valid
        if raster.not_sure is not None:
            mapped = mapped & (strip.ids != raster.not_sure)
        ids = strip.ids[mapped]
        if not ids.size:
            continue
        if ids.min() < 0 or ids.max() > MAX_ID:
            raise SceneError(outside(raster.path, ids))
        each = raster.grid.pixel_areas(strip.top, strip.bottom)[mapped]
        pixels += np.bincount(ids, minlength=len(pixels))
        area += np.bincount(ids, each, minlength=len(area))
        low, high = min(low, float(each.min())), max(high, float(each.max()))
    found = np.flatnonzero(pixels).tolist()
    if not found:
        raise SceneError(f"{raster.path} has no pixel with a class: all is nodata")
    legend = raster.legend or {i: f"class {i}" for i in found}
    stray = [i for i in found if i not in legend]
    if stray:
        raise SceneError(
            f"{raster.path} holds the ids {stray}, and the legend in its tags has only "
            f"{sorted(legend)}; give the raster as it was written, or correct its tags"
        )
    legend = {i: name for i, name in legend.items() if i != raster.not_sure}
    chosen = list(legend)
    if max(chosen) > MAX_ID:
        raise SceneError(
            f"{raster.path}: its tags name the class {max(chosen)}; ids end at {MAX_ID}"
        )
    measured = bool(np.isfinite(area).all())
    return Survey(
        chosen,
        list(legend.values()),
        pixels[chosen],
        area[chosen] if measured else None,
        (low, high) if measured else None,
    )
