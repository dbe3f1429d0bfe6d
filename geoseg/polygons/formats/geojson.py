"""GeoJSON: longitude and latitude on WGS 84, cut at the antimeridian (RFC 7946)."""

from __future__ import annotations

import math
from dataclasses import replace

import geopandas
import shapely

from geoseg.errors import UsageError
from geoseg.polygons.formats.job import GdalWriter, Job

__all__ = ["write_geojson"]


def write_geojson(job: Job) -> None:
    """Write a GeoJSON file.

    Raises:
        UsageError: the shapes have no geographic or projected CRS.
    """
    crs = job.empty.crs
    if crs is None or not (crs.is_geographic or crs.is_projected):
        raise UsageError(
            f"{job.name}: GeoJSON is longitude and latitude on WGS 84 (RFC 7946), and these shapes "
            f"have no geographic or projected CRS; choose .gpkg"
        )
    if crs.equals("OGC:CRS84", ignore_axis_order=True):
        job = replace(job, frames=map(_within_180, job.frames))
    # Cutting makes multi-polygons of some polygons.
    GdalWriter("GeoJSON", geometry="Unknown", options={"RFC7946": "YES"})(job)


def _within_180(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Bring shapes beyond 180 degrees back to where they are."""
    # GDAL cuts at the antimeridian itself, but drops what lies beyond 360 without a word.
    bounds = frame.bounds
    beyond = (bounds.minx < -180) | (bounds.maxx > 180)
    if not beyond.any():
        return frame
    frame = frame.copy()
    cut = _turned if (frame.geom_type == "Point").all() else _cut_at_180
    frame.loc[beyond, "geometry"] = [cut(g) for g in frame.geometry[beyond]]
    return frame


def _turned(point: shapely.Point) -> shapely.Point:
    """Bring a point with a longitude beyond 180 to where it is after full turns."""
    return shapely.Point((point.x + 180) % 360 - 180, point.y)


def _cut_at_180(polygon: shapely.Polygon) -> shapely.Polygon | shapely.MultiPolygon:
    """Cut a polygon with longitudes beyond 180 at the antimeridian as RFC 7946 asks."""
    west, _, east, _ = polygon.bounds
    parts: list[shapely.Polygon] = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        inside = polygon & shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        moved = shapely.transform(inside, lambda xy, turn=turn: xy - [360 * turn, 0])
        # Where the polygon only touches the meridian, there are points and lines too.
        parts += [p for p in shapely.get_parts(shapely.get_parts(moved)) if p.area > 0]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
