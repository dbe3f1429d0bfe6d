"""The part of a scene that is wanted: --bbox and --aoi."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import geometry_mask

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.core.names import public_name
from geoseg.errors import UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.scene.sources import Rules

__all__ = ["crop_window", "in_polygons", "read_polygons"]


#: What a CRS that PROJ doesn't know ends in.
BAD_CRS: tuple[type[Exception], ...] = (*GDAL_ERRORS, ValueError)


def crop_window(full: PixelGrid, options: PredictOptions, aoi: Sequence[Any]) -> Window:
    """The part of the scene inside bbox and AOI, in whole pixels."""
    window = Window(0, 0, full.height, full.width)
    if options.bbox is not None:
        west, south, east, north = options.bbox
        if not (west < east and south < north and all(map(math.isfinite, options.bbox))):
            raise UsageError(
                f"--bbox {options.bbox}: give finite west,south,east,north, west < east and "
                f"south < north"
            )
        bounds = (west, south, east, north)
        if options.bbox_crs is not None:
            bounds = _to_crs(bounds, options.bbox_crs, full.crs)
        window = _inside(full, window, bounds, "--bbox")
    if aoi:
        from shapely.geometry import shape

        boxes = [shape(g).bounds for g in aoi]
        bounds = (
            min(b[0] for b in boxes),
            min(b[1] for b in boxes),
            max(b[2] for b in boxes),
            max(b[3] for b in boxes),
        )
        window = _inside(full, window, bounds, "--aoi")
    return window


def in_polygons(
    polygons: Sequence[Any], grid: PixelGrid, window: Window, *, around: int = 0
) -> NDArray[np.bool_]:
    """Find the pixels of a window whose centres lie in polygons.

    Args:
        polygons: GeoJSON-like, in the grid's CRS.
        grid: of the pixels.
        window: of it.
        around: px around each polygon that count, too, as do then those that it touches.

    Returns:
        (H, W), True = inside.
    """
    wide = Window(
        window.row - around,
        window.col - around,
        window.height + 2 * around,
        window.width + 2 * around,
    )
    mask: NDArray[np.bool_] = geometry_mask(
        polygons,
        (wide.height, wide.width),
        grid.crop(wide).transform,
        invert=True,
        all_touched=around > 0,
    )
    if not around:
        return mask
    from scipy.ndimage import maximum_filter

    inside = slice(around, -around)
    grown: NDArray[np.bool_] = maximum_filter(mask, size=2 * around + 1)[inside, inside]
    return grown


def _to_crs(
    bounds: tuple[float, float, float, float], source: str, target: CRS | None
) -> tuple[float, float, float, float]:
    if target is None:
        raise UsageError("--bbox-crs needs a scene with a CRS; this one has none: leave it out")
    try:
        west, south, east, north = rasterio.warp.transform_bounds(source, target, *bounds)
    except BAD_CRS as error:
        raise UsageError(f"--bbox-crs {source!r}: {error}; give e.g. EPSG:4326") from error
    if not all(map(math.isfinite, (west, south, east, north))):
        raise UsageError(
            f"--bbox {_shown(bounds)} is no place of {source} that the scene's CRS could have"
        )
    return west, south, east, north


def _shown(bounds: Sequence[float]) -> str:
    return ",".join(f"{value:.10g}" for value in bounds)


def _inside(
    grid: PixelGrid, window: Window, bounds: tuple[float, float, float, float], what: str
) -> Window:
    """The pixels of a window that bounds in the grid's CRS touch.

    Raises:
        UsageError: none.
    """
    west, south, east, north = bounds
    inverse = ~grid.transform
    corners = [inverse @ p for p in ((west, south), (west, north), (east, south), (east, north))]
    first_col, last_col = min(c[0] for c in corners), max(c[0] for c in corners)
    first_row, last_row = min(c[1] for c in corners), max(c[1] for c in corners)
    # A bbox copied from a pixel's edge must not take in the next pixel for a rounding error.
    col, right = math.floor(first_col + 1e-6), math.ceil(last_col - 1e-6)
    row, bottom = math.floor(first_row + 1e-6), math.ceil(last_row - 1e-6)
    wanted = Window(row, col, max(1, bottom - row), max(1, right - col))
    found = window.intersection(wanted)
    if found is None:
        edges = [
            grid.transform @ p
            for p in ((0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height))
        ]
        extent = (
            min(p[0] for p in edges),
            min(p[1] for p in edges),
            max(p[0] for p in edges),
            max(p[1] for p in edges),
        )
        raise UsageError(
            f"{what} {_shown(bounds)} lies outside the scene, which covers {_shown(extent)} in "
            f"{grid.crs or 'its own coordinates'}"
        )
    return found


def read_polygons(
    path: str | Path, crs: CRS | None, rules: Rules, option: str
) -> tuple[Mapping[str, Any], ...]:
    """Read a file's polygons in the scene's CRS, as GeoJSON-like dicts.

    Args:
        path: of the vector file.
        crs: of the scene.
        rules: what the file may point to.
        option: by which it was named, for messages.

    Raises:
        UsageError: the file can't be read, holds no polygon, or one side has no CRS.
    """
    import geopandas

    from geoseg.labels.vector_files import read_vector

    frame, path = read_vector(path, rules), public_name(path)
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise UsageError(f"{option} {path} is a table without geometry; give a file of polygons")
    if frame.crs is None or crs is None:
        side = "the file" if frame.crs is None else "the scene"
        raise UsageError(f"{option} {path}: {side} has no CRS, so they can't be brought together")
    shapes = frame.to_crs(crs.to_wkt()).geometry.explode(index_parts=False)
    polygons = shapes[(shapes.geom_type == "Polygon") & ~shapes.is_empty]
    if polygons.empty:
        raise UsageError(f"{option} {path} holds no polygon; give a file of polygons")
    if not np.isfinite(polygons.bounds.to_numpy()).all():
        raise UsageError(
            f"{option} {path}: {_shown(frame.total_bounds)} in its CRS ({frame.crs.name}) is no "
            f"place that the scene's CRS could have; correct the CRS of the file"
        )
    return tuple(g.__geo_interface__ for g in polygons)
