"""Polygons as flat arrays, and their true areas on the ellipsoid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

__all__ = ["CHUNK", "Floats", "GroundGrid", "Ints", "Rings", "runs"]

#: Longest piece of an edge, px.
PIECE = 16.0
#: Pieces along a raster's sides where these are no distances on Earth.
MOST_PIECES = 1024
#: Smaller pixels, m, are measured some together.
SMALL = 0.25
#: Work is done on about this many vertices or pixels at a time, to bound the temporary arrays.
CHUNK = 1 << 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Rings(NamedTuple):
    """Polygons as flat arrays (shapely's ragged arrays), closed rings, the exterior ring first.

    Attributes:
        xy: (V, 2) float64; the vertices of all rings, one ring after another.
        rings: (R + 1,) int64; ring r is ``xy[rings[r]:rings[r + 1]]``.
        polygons: (P + 1,) int64; polygon p is the rings ``polygons[p]`` to ``polygons[p + 1] - 1``.
    """

    xy: Floats
    rings: Ints
    polygons: Ints

    def geometries(self) -> NDArray[np.object_]:
        """Make (P,) shapely polygons."""
        offsets = (self.rings, self.polygons)
        return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, self.xy, offsets))

    def chunks(self) -> Iterator[tuple[slice, Rings]]:
        """Consecutive polygons, about CHUNK vertices at a time, with their place in the whole."""
        ends = self.rings[self.polygons]
        start = 0
        while start < len(self.polygons) - 1:
            stop = int(np.searchsorted(ends, ends[start] + CHUNK))
            stop = min(max(stop, start + 1), len(self.polygons) - 1)
            first, last = self.polygons[start], self.polygons[stop]
            yield (
                slice(start, stop),
                Rings(
                    self.xy[ends[start] : ends[stop]],
                    self.rings[first : last + 1] - ends[start],
                    self.polygons[start : stop + 1] - first,
                ),
            )
            start = stop


@dataclass(frozen=True)
class GroundGrid:
    """Where the class raster's pixels lie.

    Attributes:
        height, width: px.
        transform: (a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f, CRS units.
        file_crs: the file's CRS, as it is written out; None if it has none.
        crs: the same for calculations; None if it is neither geographic nor projected.
    """

    height: int
    width: int
    transform: tuple[float, float, float, float, float, float]
    file_crs: Any
    crs: pyproj.CRS | None

    @classmethod
    def of(cls, dataset: Any) -> GroundGrid:
        """Take the grid of an open dataset of rasterio's.

        Raises:
            pyproj.exceptions.CRSError: PROJ does not know the CRS.
        """
        crs = None if dataset.crs is None else pyproj.CRS.from_user_input(dataset.crs)
        usable = crs if crs is not None and (crs.is_geographic or crs.is_projected) else None
        a, b, c, d, e, f = tuple(dataset.transform)[:6]
        return cls(dataset.height, dataset.width, (a, b, c, d, e, f), crs, usable)

    def strips(self) -> Iterator[tuple[int, int]]:
        """Top and bottom rows of full-width strips of about CHUNK pixels."""
        rows = max(1, CHUNK // self.width)
        for top in range(0, self.height, rows):
            yield top, min(top + rows, self.height)

    def to_crs(self, xy: Floats) -> Floats:
        """Turn (V, 2) pixel coordinates (col, row; corners are whole) into CRS coordinates."""
        a, b, c, d, e, f = self.transform
        x, y = xy[:, 0], xy[:, 1]
        return np.column_stack((a * x + b * y + c, d * x + e * y + f))

    def to_lonlat(self, xy: Floats) -> Floats:
        """Turn (V, 2) CRS coordinates into degrees on its own ellipsoid; never a datum shift."""
        assert self.crs is not None
        geodetic = self.crs.geodetic_crs
        assert geodetic is not None
        lonlat = np.column_stack(
            pyproj.Transformer.from_crs(self.crs, geodetic, always_xy=True).transform(*xy.T)
        )
        lonlat *= math.degrees(geodetic.axis_info[0].unit_conversion_factor)  # some are in grads
        # Global grids of pixel centres reach half a pixel beyond the poles: no ground is there.
        np.clip(lonlat[:, 1], -90, 90, out=lonlat[:, 1])
        return lonlat

    @property
    def is_on_ground(self) -> bool:
        """Whether metres are known at the scene's middle."""
        return self.crs is not None and all(0 < side < np.inf for side in self.pixel_size())

    def pixel_size(self) -> tuple[float, float]:
        """Width and height of the scene's central pixel, metres on the ground."""
        assert self.crs is not None
        x, y = self.width // 2, self.height // 2
        span = self._span()
        corners = np.array([[x, y], [x + span, y], [x, y + span]], dtype=np.float64)
        (lon, lat), *others = self.to_lonlat(self.to_crs(corners)).tolist()
        geod = self.crs.get_geod()
        assert geod is not None
        width, height = (geod.inv(lon, lat, *other)[2] / span for other in others)
        return width, height

    @np.errstate(invalid="ignore", over="ignore")  # of what has no place on the ground
    def areas(self, rings: Rings, piece: float = PIECE) -> Floats:
        """Geodesic areas of polygons in the CRS's coordinates.

        Edges, straight in the CRS, are cut into pieces of at most PIECE pixels; each piece's middle
        is projected too, and the area under it is Richardson's (4 halves - 1 whole) / 3, exact
        for a parabola. Without the middle, a sliver along a curved edge is wrong by up to 1e-3.

        Args:
            rings: P polygons.
            piece: longer pieces, px, for polygons that are far larger than pixels.

        Returns:
            (P,) float64, square metres; NaN without a geographic or projected CRS, or where it
            gives some vertex no place on the ground.
        """
        areas = np.full(len(rings.polygons) - 1, np.nan)
        if self.crs is None or not len(areas):
            return areas
        longest = self._longest(piece)
        projection = self._equal_area()
        if projection is None or not 0 < longest < np.inf:
            return areas
        project, period = projection
        for place, (xy, offsets, polygons) in rings.chunks():
            edges = np.diff(xy, axis=0, append=xy[-1:])
            closing = offsets[1:] - 1
            edges[closing] = 0.0  # from the end of one ring to the start of the next is no edge
            pieces = np.ceil(np.hypot(*edges.T) / longest).astype(np.int64).clip(min=1)
            step, start = runs(pieces)
            along = (step + np.array([[0.0], [0.5]])) / pieces[start]
            ends, middles = (xy[start] + edges[start] * part[:, None] for part in along)
            p = project(self.to_lonlat(ends))
            q = project(self.to_lonlat(middles))
            following = np.append(p[1:], p[-1:], axis=0)
            # Heights above the ring's own first vertex, for small differences of large numbers.
            first = np.cumsum(pieces) - pieces
            ring = np.repeat(first[offsets[:-1]], np.add.reduceat(pieces, offsets[:-1]))
            base = p[ring, 1]
            first_half = _strip(p, q, base, period)
            second_half = _strip(q, following, base, period)
            whole = _strip(p, following, base, period)
            under = (4.0 * (first_half + second_half) - whole) / 3.0
            under[first[closing]] = 0.0
            area = np.abs(np.add.reduceat(under, first[offsets[:-1]]))
            holes = np.ones(len(area), dtype=bool)
            holes[polygons[:-1]] = False
            area[holes] *= -1.0
            areas[place] = np.add.reduceat(area, polygons[:-1])
        areas[np.isinf(areas)] = np.nan
        return areas

    @np.errstate(invalid="ignore", over="ignore")
    def perimeters(self, rings: Rings) -> Floats:
        """Geodesic lengths of all rings of polygons in the CRS's coordinates.

        Edges, straight in the CRS, are cut into pieces of at most PIECE pixels, and those are
        geodesics.

        Args:
            rings: P polygons.

        Returns:
            (P,) float64, metres; NaN as for :meth:`areas`.
        """
        lengths = np.full(len(rings.polygons) - 1, np.nan)
        if self.crs is None or not len(lengths):
            return lengths
        geod = self.crs.get_geod()
        assert geod is not None
        longest = self._longest()
        if not 0 < longest < np.inf:
            return lengths
        for place, (xy, offsets, polygons) in rings.chunks():
            edges = np.diff(xy, axis=0, append=xy[-1:])
            edges[offsets[1:] - 1] = 0.0  # from one ring to the next is no edge
            pieces = np.ceil(np.hypot(*edges.T) / longest).astype(np.int64)
            step, start = runs(pieces)
            ends = [
                self.to_lonlat(xy[start] + edges[start] * ((step + k) / pieces[start])[:, None])
                for k in (0, 1)
            ]
            each = geod.inv(*ends[0].T, *ends[1].T)[2]
            polygon = np.repeat(np.arange(len(polygons) - 1), np.diff(offsets[polygons]))
            lengths[place] = np.bincount(polygon[start], each, len(polygons) - 1)
        lengths[np.isinf(lengths)] = np.nan
        return lengths

    def _longest(self, piece: float = PIECE) -> float:
        """Find the longest piece of an edge that is measured as one, CRS units."""
        pixel = math.sqrt(abs(self._determinant))
        # Not even the whole Earth has edges of more than thousands of pieces; where the CRS is not
        # that of the numbers, a single pixel may be said to be as large as the sun.
        far = max(100_000.0 / self._metres, (self.width + self.height) * pixel / MOST_PIECES)
        return min(max(PIECE, piece) * pixel, far)

    @property
    def _determinant(self) -> float:
        a, b, _, d, e, _ = self.transform
        return a * e - b * d

    @property
    def _metres(self) -> float:
        """A unit of the CRS, roughly."""
        assert self.crs is not None
        unit = float(self.crs.axis_info[0].unit_conversion_factor)  # to metres or to radians
        return unit * (6_371_000.0 if self.crs.is_geographic else 1.0)

    def _span(self) -> float:
        """Find how many pixels are measured as one: numbers end 10 digits after a metre."""
        pixel = math.sqrt(abs(self._determinant)) * self._metres
        return math.ceil(SMALL / pixel) if 0 < pixel < SMALL else 1.0

    def pixel_areas(self, top: int, bottom: int) -> Floats:
        """Geodesic areas of the pixels of some rows.

        A pixel's area is exact at 33 columns of every row and linear between them: exact wherever
        it depends on the row alone, as in geographic CRSs, and right to 1e-6 in a UTM zone.

        Args:
            top: first row.
            bottom: the first row below.

        Returns:
            (bottom - top, width) float64, square metres; NaN without a geographic or projected
            CRS.
        """
        cols = np.unique(np.linspace(0, self.width - 1, 33).round().astype(np.int64))
        between = [np.interp(np.arange(self.width), cols, one) for one in np.eye(len(cols))]
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.float64)
        span = 1.0 if self.crs is None else self._span()
        square = (square - 0.5) * span + 0.5  # about the pixel
        y, x = np.meshgrid(np.arange(top, bottom), cols, indexing="ij")
        xy = (np.stack((x, y), axis=-1)[:, :, None, :] + square).reshape(-1, 2)
        each = np.arange(x.size + 1)
        nodes = self.areas(Rings(self.to_crs(xy), 5 * each, each), 2 * span).reshape(x.shape)
        nodes /= span**2
        return nodes @ np.stack(between)

    def _equal_area(self) -> tuple[Callable[[Floats], Floats], float | None] | None:
        """Make an equal-area projection for the scene, from degrees to metres.

        Returns:
            The projection, and the distance in x after which it repeats itself (None: never).
            Cylindrical (parallels and meridians stay straight) for geographic CRSs and for
            scenes that reach further than a hemisphere; azimuthal for others, as they may hold
            a pole. None where the scene has no place on the ground.
        """
        assert self.crs is not None and self.crs.ellipsoid is not None
        cols, rows = np.meshgrid(np.linspace(0, self.width, 9), np.linspace(0, self.height, 9))
        lonlat = self.to_lonlat(self.to_crs(np.column_stack((cols.ravel(), rows.ravel()))))
        on_ground = np.asarray(np.isfinite(lonlat).all(axis=1))
        if not on_ground.any():
            return None
        middle = int(on_ground[: len(lonlat) // 2 + 1].sum()) - 1
        lonlat = lonlat[on_ground]
        lon, lat = np.radians(lonlat).T
        ball = np.stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
        far = bool((ball[:, middle] @ ball < 0).any())
        a = self.crs.ellipsoid.semi_major_metre
        options = {"a": a, "b": self.crs.ellipsoid.semi_minor_metre, "lon_0": lonlat[middle, 0]}
        if self.crs.is_geographic or far:
            projection, period = pyproj.Proj(proj="cea", **options), 2 * math.pi * a
        else:
            projection, period = pyproj.Proj(proj="laea", lat_0=lonlat[middle, 1], **options), None
        return lambda degrees: np.column_stack(projection(*degrees.T)), period


def _strip(start: Floats, end: Floats, base: Floats, period: float | None) -> Floats:
    """Measure signed areas between straight edges (N, 2) and the heights ``base`` (N,); (N,)."""
    width = end[:, 0] - start[:, 0]
    if period is not None:
        width -= period * np.round(width / period)
    return width * ((start[:, 1] + end[:, 1]) / 2 - base)


def runs(counts: Ints) -> tuple[Ints, Ints]:
    """Number the elements of runs of the given lengths: the place in its run, and its run's number.

    >>> [x.tolist() for x in runs(np.array([2, 0, 3]))]
    [[0, 1, 0, 1, 2], [0, 0, 2, 2, 2]]
    """
    run = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(run)) - (np.cumsum(counts) - counts)[run], run
