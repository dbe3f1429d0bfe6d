"""Vector files: one table in each format."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import geopandas
import shapely

from geoseg.errors import OutputError, UsageError

__all__ = ["FORMATS", "check_suffix", "write_points", "write_polygons"]


def _write_vector(
    frame: geopandas.GeoDataFrame, path: Path, layer: str, geometry_type: str, **options: str
) -> None:
    with warnings.catch_warnings():
        # A scene without a CRS gives shapes without one; whoever asked for them knows.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        # The geometry type is said because an empty frame has no geometry to tell it from.
        options = {"geometry_type": geometry_type, **options}
        frame.to_file(path, layer=layer, engine="pyogrio", index=False, **options)


def _write_geojson(
    frame: geopandas.GeoDataFrame, path: Path, layer: str, geometry_type: str
) -> None:
    if frame.crs is None or not (frame.crs.is_geographic or frame.crs.is_projected):
        raise UsageError(
            f"{path}: GeoJSON is longitude and latitude on WGS 84 (RFC 7946), and these shapes "
            f"have no geographic or projected CRS; choose .gpkg"
        )
    if len(frame) and frame.crs.equals("OGC:CRS84", ignore_axis_order=True):
        # GDAL cuts at the antimeridian itself, but drops what lies beyond 360 without a word.
        frame = frame.copy()
        bounds = frame.bounds
        beyond = (bounds.minx < -180) | (bounds.maxx > 180)
        cut = _turn if (frame.geom_type == "Point").all() else _cut_at_180
        frame.loc[beyond, "geometry"] = [cut(g) for g in frame.geometry[beyond]]
    # Cutting makes multi-polygons of some polygons.
    _write_vector(frame, path, layer, "Unknown", driver="GeoJSON", RFC7946="YES")


def _turn(point: shapely.Point) -> shapely.Point:
    """A point with a longitude beyond 180, where it is after full turns."""
    return shapely.Point((point.x + 180) % 360 - 180, point.y)


def _cut_at_180(polygon: shapely.Polygon) -> shapely.Polygon | shapely.MultiPolygon:
    """A polygon with longitudes beyond 180, cut at the antimeridian as RFC 7946 asks."""
    west, _, east, _ = polygon.bounds
    parts: list[shapely.Polygon] = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        inside = polygon & shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        moved = shapely.transform(inside, lambda xy, turn=turn: xy - [360 * turn, 0])
        # Where the polygon only touches the meridian, there are points and lines too.
        parts += [p for p in shapely.get_parts(shapely.get_parts(moved)) if p.area > 0]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _write_parquet(
    frame: geopandas.GeoDataFrame, path: Path, layer: str, geometry_type: str
) -> None:
    frame.to_parquet(path, index=False, schema_version="1.1.0")


#: Suffix -> writer(frame, path, layer, geometry type).
FORMATS: dict[str, Callable[[geopandas.GeoDataFrame, Path, str, str], None]] = {
    # GDAL's newest GeoPackage version (1.4) makes older QGIS and GDAL warn.
    ".gpkg": partial(_write_vector, driver="GPKG", VERSION="1.3"),
    ".fgb": partial(_write_vector, driver="FlatGeobuf"),
    ".parquet": _write_parquet,
    ".geojson": _write_geojson,
    ".json": _write_geojson,
}


def check_suffix(path: Path) -> None:
    """Refuse a path that no writer is for, before any work is done.

    Raises:
        UsageError: the suffix is none of FORMATS'.

    >>> check_suffix(Path("landcover.GPKG"))
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{path} ends in {path.suffix!r}; vector files are written as {', '.join(FORMATS)}"
        )


def write_polygons(frame: geopandas.GeoDataFrame, path: Path, *, layer: str = "landcover") -> None:
    """Write polygons in the format that the path's suffix names, to that very path.

    GeoJSON follows RFC 7946: WGS 84, longitude first, right-hand rule, 7 decimals.

    Args:
        frame: of :func:`polygonize`.
        path: ends in one of FORMATS' suffixes. A failed write may leave a part of a file there.
        layer: the layer's name, where the format has layers.

    Raises:
        UsageError: the suffix is unknown, or GeoJSON is asked for without a CRS.
        OutputError: the file can't be written.
    """
    _write(frame, path, layer, "Polygon")


def write_points(frame: geopandas.GeoDataFrame, path: Path, *, layer: str = "points") -> None:
    """Write points as :func:`write_polygons` writes polygons.

    Args:
        frame: of points only.
        path: ends in one of FORMATS' suffixes. A failed write may leave a part of a file there.
        layer: the layer's name, where the format has layers.

    Raises:
        UsageError: the suffix is unknown, or GeoJSON is asked for without a CRS.
        OutputError: the file can't be written.
    """
    _write(frame, path, layer, "Point")


def _write(frame: geopandas.GeoDataFrame, path: Path, layer: str, geometry_type: str) -> None:
    check_suffix(path)
    try:
        FORMATS[path.suffix.lower()](frame, path, layer, geometry_type)
    except (OSError, RuntimeError, ImportError) as error:  # pyogrio's are RuntimeErrors
        raise OutputError(
            f"{path} can't be written: {error}; check the folder, its permissions and free space"
        ) from error
