"""Labels on a pixel grid: from a raster on any grid, or from polygons in a vector file.

Rasters come through a virtual warp (nearest neighbour), polygons are filled where a pixel's centre
lies inside. Both are read a window at a time, and what a window holds does not depend on how the
grid is cut into windows.

torchgeo's RasterDataset and VectorDataset were tried for joining images and labels (0.8.1): both
fill what lies beyond the labels with 0, which is a class here and not "unknown", and images come
without which pixels were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pyproj.exceptions
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from geoseg.core.gdal import GDAL_ERRORS, first_line
from geoseg.core.names import public_name
from geoseg.errors import LabelError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.labels.polygons import PlacedPolygons, read_polygons
from geoseg.labels.vector_files import is_vector
from geoseg.labels.window import Bounds, Labels, check_crs
from geoseg.rasters.class_raster import ClassRaster, open_class_raster, read_class_window
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["RasterLabels", "bounds_in", "on_grid", "open_labels"]


@dataclass(frozen=True)
class RasterLabels:
    """A raster of labels on a pixel grid.

    Attributes:
        raster: as opened.
        dataset: rasterio's, on the grid.
        bounds: in the grid's CRS; infinite where it has no place for them.
        ignore: ids that mean no class.
    """

    raster: ClassRaster
    dataset: Any
    bounds: Bounds
    ignore: tuple[int, ...] = field(default=())

    @property
    def path(self) -> str:
        """Of the file."""
        return self.raster.path

    @property
    def legend(self) -> dict[int, str]:
        """Names that the file's tags give the ids; empty without."""
        return self.raster.legend

    def strip(self, top: int, bottom: int) -> Labels:
        """Read labels of full-width rows; see :meth:`window`."""
        return self.window(Window(top, 0, bottom - top, self.dataset.width))

    def window(self, window: Window) -> Labels:
        """Read labels of a window of the grid.

        Args:
            window: within the grid.

        Raises:
            SceneError: a block is damaged.
        """
        ids, known = read_class_window(self.dataset, self.path, window)
        ignored = known & np.isin(ids, self.ignore)
        return Labels(ids, known & ~ignored, np.zeros(ids.shape, bool), ignored)


@contextmanager
def on_grid(labels: ClassRaster, grid: PixelGrid, other: str) -> Iterator[Any]:
    """Bring a class raster's dataset to a grid: itself, or a virtual warp (nearest neighbour).

    Args:
        labels: open.
        grid: any.
        other: whose grid it is, a path, for messages.

    Raises:
        LabelError: they can't be brought together.
    """
    theirs = labels.dataset
    if grid.same_pixels(labels.pixels):
        yield theirs
        return
    if grid.crs is None:
        height, width = theirs.shape
        raise LabelError(
            f"{other} ({grid.height} x {grid.width} px) and {labels.path} ({height} x {width} px) "
            f"lie on different grids and have no CRS to bring them together; make them the same "
            f"size at the same place, or give both a CRS (gdal_edit.py -a_srs)"
        )
    # Without nodata, what lies beyond the labels would become the class 0: alpha marks it.
    marked = theirs.nodata is not None or ColorInterp.alpha in theirs.colorinterp
    try:
        with WarpedVRT(
            theirs,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.nearest,
            add_alpha=not marked,
            # GDAL interpolates places along a row, by default wrong by up to an eighth of a pixel.
            # With 0 rasterio makes no VRT at all.
            tolerance=1e-3,
        ) as warped:
            yield warped
    except GDAL_ERRORS as error:
        raise LabelError(
            f"{labels.path} can't be brought to the grid of {other} ({first_line(error)})"
        ) from error


def bounds_in(crs: Any, labels: ClassRaster) -> Bounds:
    """Bounds of a class raster in another CRS; infinite where it has no place for them.

    Args:
        crs: rasterio's or pyproj's; None gives the raster's own bounds.
        labels: open.
    """
    if crs is None or crs == labels.dataset.crs:
        return labels.bounds
    try:
        change = pyproj.Transformer.from_crs(
            labels.grid.file_crs, pyproj.CRS.from_user_input(crs), always_xy=True
        )
        west, south, east, north = change.transform_bounds(*labels.bounds)
    except pyproj.exceptions.ProjError:
        return (math.inf,) * 4
    return west, south, east, north


@contextmanager
def open_labels(
    path: str | Path,
    grid: PixelGrid,
    legend: Mapping[int, str],
    other: str,
    *,
    column: str | None = None,
    ignore: Sequence[int | str] = (),
    owner: str = "the map",
    rules: Rules = LOCAL,
) -> Iterator[RasterLabels | PlacedPolygons]:
    """Open labels of either kind on a pixel grid.

    Args:
        path: a raster of class ids, or a vector file of polygons.
        grid: any.
        legend: id -> name of the classes. A raster may hold others; that is for the caller to see.
        other: whose grid it is, a path, for messages.
        column: of polygons, see :func:`read_polygons`; rasters have none.
        ignore: labels that mean no class: ids, or for polygons names, too.
        owner: whose legend it is, for messages.
        rules: what the file may point to.

    Raises:
        UsageError: an option does not fit the file, or a vector file can't be read.
        SceneError: a raster can't be read.
        LabelError: labels and grid can't be brought together, or polygons have unknown classes.
    """
    path = public_name(path)
    if is_vector(path):
        polygons = read_polygons(path, column, legend, ignore=ignore, owner=owner, rules=rules)
        yield polygons.on(grid, other)
        return
    if column is not None:
        raise UsageError(
            f"column {column!r} is of points or polygons, and {path} is no vector file; leave "
            f"--column out for a raster of labels"
        )
    try:
        left_out = tuple(sorted({int(value) for value in ignore}))
    except ValueError as error:
        raise UsageError(
            f"ignore is {', '.join(map(str, ignore))}; labels of a raster are ignored by id"
        ) from error
    mask = " (a mask in class colours: say which is which with --class NAME=#RRGGBB)"
    with open_class_raster(path, mask, rules) as labels:
        check_crs(grid.crs is not None, other, labels.grid.file_crs is not None, path)
        with on_grid(labels, grid, other) as dataset:
            yield RasterLabels(labels, dataset, bounds_in(grid.crs, labels), left_out)
