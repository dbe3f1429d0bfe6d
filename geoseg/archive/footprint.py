"""Where on Earth a map's pixels are, as GeoJSON wants it (RFC 7946).

Sides of a map are straight in its own CRS and bent in longitude and latitude, so they are cut into
pieces, until these stay within half a pixel. Longitudes are then made continuous along
the outline; what lies beyond 180 degrees is cut off and moved to the other side; and an outline
that goes around a pole, or ends at one, is closed along the pole's parallel, which in longitude and
latitude is a line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj
import shapely
import shapely.affinity
import shapely.geometry
from affine import Affine
from numpy.typing import NDArray

from geoseg.geo.geodesy import Floats
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window

__all__ = ["footprint"]

#: Pieces of a side to begin with: none may turn by half a turn of longitude.
PIECES = 8
#: How often those that are off are halved at most; with each the outline may have as many points.
HALVINGS = 20
#: How far a piece's middle may be from where the map's side is, and a pole from a side that it is
#: taken to lie on, px.
TOLERANCE = 0.5
#: Degrees to which coordinates are rounded: a centimetre.
DIGITS = 7
#: Points along a side at which a map that has places without longitude and latitude is looked at.
SAMPLES = 65


def footprint(grid: PixelGrid, window: Window) -> tuple[dict[str, Any], list[float]] | None:
    """Find the outline of a part of a map, and its bounding box.

    Args:
        grid: the map's.
        window: its part, px.

    Returns:
        A GeoJSON Polygon, or a MultiPolygon where it crosses 180 degrees of longitude, in degrees
        on WGS 84, exterior rings counterclockwise; and west, south, east, north, where west is
        larger than east if it crosses. Where the CRS gives part of the outline no place, both are
        of the box around all that has one. None without a CRS that has places on Earth.
    """
    places = _Places.of(grid)
    if places is None:
        return None
    shape = places.polygon(window)
    if shape is None or not shape.is_valid or shape.is_empty:
        shape = places.box(window)
    return None if shape is None else _as_geojson(shape)


def _outline(window: Window) -> Floats:
    """Cut a window's sides into pieces: (4 * PIECES, 2) px, from the top left, not closed."""
    left, top, right, bottom = window.col, window.row, window.right, window.bottom
    corners = np.array([[left, top], [left, bottom], [right, bottom], [right, top], [left, top]])
    part = np.arange(PIECES)[:, None] / PIECES
    return np.concatenate([a + (b - a) * part for a, b in pairwise(corners)])


@dataclass(frozen=True)
class _Places:
    """Turns a grid's pixels into longitudes and latitudes, and back."""

    grid: PixelGrid
    crs: pyproj.CRS
    forward: pyproj.Transformer

    @classmethod
    def of(cls, grid: PixelGrid) -> _Places | None:
        """Prepare; None without a CRS, or with one that has no place on Earth."""
        if grid.crs is None:
            return None
        try:
            crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
            return cls(grid, crs, pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True))
        except pyproj.exceptions.ProjError:
            return None

    def lonlat(self, pixels: Floats) -> Floats:
        """Turn (N, 2) columns and rows into degrees; infinite where there is no place."""
        xy = _apply(self.grid.transform, pixels)
        lonlat = np.column_stack(self.forward.transform(xy[:, 0], xy[:, 1]))
        # Global grids of pixel centres reach half a pixel beyond the poles: no ground is there.
        lonlat[:, 1] = np.where(np.isfinite(lonlat[:, 1]), lonlat[:, 1].clip(-90, 90), np.inf)
        return lonlat

    def pixels(self, lonlat: Floats) -> Floats:
        """Turn (N, 2) degrees into columns and rows; infinite where there are none."""
        x, y = self.forward.transform(lonlat[:, 0], lonlat[:, 1], direction="INVERSE")
        return _apply(~self.grid.transform, np.column_stack((x, y)))

    def polygon(self, window: Window) -> Any | None:
        """Make the polygon around a window, with continuous longitudes, beyond 180 if need be.

        Returns:
            None where a part of the outline has no place.
        """
        ring = self._with_pole(_outline(window), window)
        for _ in range(HALVINGS):
            lonlat = self.lonlat(ring)
            if not np.isfinite(lonlat).all():
                return None
            closed, path = _path(ring, lonlat)
            middles = (closed[1:] + closed[:-1]) / 2
            off = self._off(middles, path)
            # Less than a pixel is not cut.
            off &= np.hypot(*np.diff(closed, axis=0).T) > 1
            if not off.any():
                break
            ring = np.insert(closed, np.flatnonzero(off) + 1, middles[off], axis=0)[:-1]
        if _at_pole(path[:1])[0] or abs(path[-1, 0] - path[0, 0]) < 180:
            return shapely.Polygon(path)
        pole = self._pole_inside(window, path)
        return shapely.Polygon([*path, [path[-1, 0], pole], [path[0, 0], pole]])

    def _off(self, middles: Floats, path: Floats) -> NDArray[np.bool_]:
        """Find the straight pieces in degrees whose middles are not where the map has them."""
        if self.crs.is_geographic:
            return np.zeros(len(middles), bool)
        found = self.pixels((path[1:] + path[:-1]) / 2)
        return np.asarray(~(np.hypot(*(found - middles).T) <= TOLERANCE))

    def _poles(self) -> dict[float, Floats]:
        """Find where the poles are, px."""
        north, south = self.pixels(np.array([[0.0, 90.0], [0.0, -90.0]]))
        return {90.0: north, -90.0: south}

    def _with_pole(self, ring: Floats, window: Window) -> Floats:
        """Make a pole that lies on an outline one of its points."""
        if self.crs.is_geographic:
            return ring
        low, high = np.array([window.col, window.row]), np.array([window.right, window.bottom])
        for place in self._poles().values():
            side = np.clip(place, low, high)
            within = np.concatenate([side - low, high - side])
            if within.min() > 0:  # it is inside: the nearest side
                axis = int(within.argmin()) % 2
                side[axis] = (low, high)[int(within.argmin()) // 2][axis]
            if np.hypot(*(side - place)) <= TOLERANCE:
                around = np.roll(ring, -1, axis=0)
                detour = np.hypot(*(ring - side).T) + np.hypot(*(around - side).T)
                after = int((detour - np.hypot(*(ring - around).T)).argmin())
                ring = np.insert(ring, after + 1, place, axis=0)
                near = np.hypot(*(ring - place).T) <= TOLERANCE
                near[after + 1] = False
                return np.asarray(ring[~near])
        return ring

    def _pole_inside(self, window: Window, path: Floats) -> float:
        """Find the pole that an outline goes around."""
        for pole, (col, row) in self._poles().items():
            if window.col <= col <= window.right and window.row <= row <= window.bottom:
                return pole
        return math.copysign(90, float(path[:, 1].mean()))

    def box(self, window: Window) -> Any | None:
        """Make the box around all pixels that have a place; None where none has."""
        cols = np.linspace(window.col, window.right, SAMPLES)
        rows = np.linspace(window.row, window.bottom, SAMPLES)
        lonlat = self.lonlat(np.array(np.meshgrid(cols, rows)).reshape(2, -1).T)
        found = lonlat[np.isfinite(lonlat).all(axis=1)]
        if not len(found):
            return None
        (west, south), (east, north) = found.min(axis=0), found.max(axis=0)
        if not (east > west and north > south):
            return None
        return shapely.box(west, south, east, north)


def _at_pole(lonlat: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(lonlat[:, 1]) > 90 - 1e-9)


def _path(ring: Floats, lonlat: Floats) -> tuple[Floats, Floats]:
    """Close an outline, with continuous longitudes.

    Args:
        ring: (N, 2) px.
        lonlat: (N, 2) its degrees.

    Returns:
        Both (N + 1, 2). Where a point is a pole they begin and end there, with the longitudes of
        the points beside it: the pole's own says nothing.
    """
    at_pole = _at_pole(lonlat)
    # Many points in a row are a pole that is a line, of longitudes that count.
    alone = np.flatnonzero(at_pole & ~np.roll(at_pole, 1) & ~np.roll(at_pole, -1))
    shift = -int(alone[0]) if len(alone) else 0
    ring, lonlat = np.roll(ring, shift, axis=0), np.roll(lonlat, shift, axis=0)
    closed, path = np.concatenate([ring, ring[:1]]), np.concatenate([lonlat, lonlat[:1]])
    if len(alone):
        path[0, 0], path[-1, 0] = path[1, 0], path[-2, 0]
    return closed, _continuous(path)


@np.errstate(invalid="ignore")  # of what has no place
def _apply(transform: Affine, points: Floats) -> Floats:
    a, b, c, d, e, f = tuple(transform)[:6]
    x, y = points[:, 0], points[:, 1]
    return np.column_stack((a * x + b * y + c, d * x + e * y + f))


def _continuous(lonlat: Floats) -> Floats:
    """Take whole turns out of the steps of a path's longitudes."""
    steps = np.diff(lonlat[:, 0])
    turns: NDArray[np.float64] = np.round(steps / 360)
    path = lonlat.copy()
    path[1:, 0] -= 360 * np.cumsum(turns)
    return path


def _as_geojson(shape: Any) -> tuple[dict[str, Any], list[float]]:
    """Cut a polygon at 180 degrees, and give it with its bounding box."""
    west, south, east, north = shape.bounds
    least = 10.0**-DIGITS  # what reaches across by less does not
    shift = -360 * math.floor((west + 180 + least) / 360)
    west, east = max(west + shift, -180.0), east + shift
    shape = shapely.affinity.translate(shape, shift)
    # What lies east of 180 degrees belongs to the other side; a whole turn meets itself there.
    parts = [shapely.intersection(shape, shapely.box(-180, -90, 180, 90))]
    if east > 180 + least:
        beyond = shapely.intersection(shape, shapely.box(180, -90, 540, 90))
        parts.append(shapely.affinity.translate(beyond, -360))
    whole = shapely.union_all(parts)
    polygons = [p for p in shapely.get_parts(whole).tolist() if p.geom_type == "Polygon"]
    flat = shapely.MultiPolygon(polygons).simplify(least)
    # Rounding alone may make a small one cross itself.
    rounded = shapely.set_precision(flat, least)
    flat = shapely.transform(flat if rounded.is_empty else rounded, lambda xy: xy.round(DIGITS))
    cut = [p for p in shapely.get_parts(shapely.orient_polygons(flat)).tolist() if not p.is_empty]
    if east - west >= 360 - 1e-9:
        west, east = -180.0, 180.0
    else:
        east = east - 360 if east > 180 + least else min(east, 180.0)
    box = [round(float(v), DIGITS) for v in (west, south, east, north)]
    return shapely.geometry.mapping(cut[0] if len(cut) == 1 else shapely.MultiPolygon(cut)), box
