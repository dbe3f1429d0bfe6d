"""Land-cover polygons from a finished class raster.

The straight line of :func:`polygonize`: class raster -> regions (maximal sets of 4-connected valid
pixels of one class) -> small regions merged into neighbours -> rings traced in pixel coordinates
-> the same nodes on both sides of every border -> simplified -> the scene's CRS -> attributes.

Laws, for any map: every valid pixel lies in exactly one polygon and no polygon lies on nodata;
nothing is cut; geometries are valid, and together they are a valid coverage (neighbours share
their borders vertex by vertex) before and after simplification; with neither ``min_area`` nor
``simplify``, rasterising the polygons on the same grid gives the class raster back.
"""

from __future__ import annotations

import heapq
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pandas
import pyproj
import pyproj.exceptions
import rasterio
import rasterio.errors
import rasterio.features
import rasterio.windows
import scipy.sparse.csgraph  # noqa: F401 - makes sparse.csgraph there
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage, sparse

from geoseg.card import ClassInfo
from geoseg.errors import OutputError, SceneError, UsageError

__all__ = ["FORMATS", "check_suffix", "polygonize", "write_polygons"]

NODATA = 255
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
        """(P,) shapely polygons."""
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


def polygonize(
    class_path: Path,
    confidence_path: Path | None,
    classes: Sequence[ClassInfo],
    *,
    min_area: float = 0.0,
    simplify: float = 0.0,
) -> geopandas.GeoDataFrame:
    """Turn a class raster into polygons, one for each 4-connected region of one class.

    The rasters are read in strips and every vertex is held in memory; with ``min_area`` the whole
    class raster and an int32 image of its regions are held, too.

    Args:
        class_path: single-band uint8 GeoTIFF of class ids; 255 is nodata. Any CRS or none, any
            affine transform.
        confidence_path: winning probability on the same grid, float32 with NaN as nodata or uint8
            with a GDAL scale tag and 255 as nodata; or None.
        classes: the legend; every id in the raster is in it.
        min_area: regions smaller than this, in geodesic square metres, go to the neighbour with
            which they share the longest border, the smallest region first, until none is left.
            A region surrounded by nodata has no neighbour and stays, whatever its size.
        simplify: tolerance in metres on the ground, 0 for the exact pixel borders. A corner goes
            when the triangle it makes is smaller than tolerance squared (Visvalingam-Whyatt).
            Borders between polygons stay shared and no polygon vanishes. Borders to nodata and to
            the scene's edge stay as they are, so that neighbouring scenes fit.

    Returns:
        A frame in the raster's CRS with the columns ``class_id`` (int32), ``class_name`` (str),
        ``area_m2`` (float64, geodesic on the CRS's own ellipsoid; null without a geographic or
        projected CRS), ``confidence`` (float64, mean winning probability of the polygon's pixels;
        null without a confidence raster) and ``geometry``. Without a CRS the coordinates are what
        the raster's transform gives. A raster of nodata only gives no rows.

    Raises:
        SceneError: a raster can't be read, or is not what is described above.
        UsageError: an id is not in the legend, the grids differ, ``min_area`` or ``simplify`` is
            negative or not finite, or is given for a raster without a CRS.
    """
    for name, value in (("min_area", min_area), ("simplify", simplify)):
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} is {value}; it must be a finite number of at least 0")
    names = {c.id: c.name for c in classes}
    with _opened(class_path) as dataset:
        grid = _grid(dataset, class_path)
        if grid.crs is None and (min_area > 0 or simplify > 0):
            raise UsageError(
                f"{class_path} has no geographic or projected CRS, so metres on its ground are "
                f"unknown; leave min_area and simplify at 0, or give the raster a CRS "
                f"(gdal_edit.py)"
            )
        source = _Source(dataset, grid)
        source.check_ids(class_path, set(names))
        if min_area > 0:
            source.pixels = _merge_small(source.rows(0, grid.height), grid, min_area)
        rings, class_ids = _trace(source)
        confidence = _mean_confidence(confidence_path, source, rings)
    if simplify > 0 and len(class_ids):
        width, height = grid.pixel_size()
        rings = _simplify(rings, simplify / math.sqrt(width * height))
    rings = rings._replace(xy=grid.to_crs(rings.xy))
    return geopandas.GeoDataFrame(
        {
            "class_id": class_ids,
            "class_name": pandas.Series([names[i] for i in class_ids.tolist()], dtype=str),
            "area_m2": grid.areas(rings),
            "confidence": confidence,
        },
        geometry=rings.geometries(),
        crs=grid.file_crs,
    )


@dataclass
class _Source:
    """The class raster, read in strips.

    Attributes:
        dataset: the open class raster.
        grid: its pixels' places.
        pixels: (H, W) uint8 in place of the file's pixels, where they were changed.
    """

    dataset: Any
    grid: Grid
    pixels: NDArray[np.uint8] | None = None

    def rows(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """(bottom - top, W) class ids."""
        if self.pixels is not None:
            return self.pixels[top:bottom]
        window = rasterio.windows.Window(0, top, self.grid.width, bottom - top)
        return np.asarray(self.dataset.read(1, window=window))

    def strips(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(first row, class ids) of strips of about CHUNK pixels."""
        for top, bottom in _strips(self.grid):
            yield top, self.rows(top, bottom)

    def shapes(self) -> Iterator[tuple[dict[str, Any], float]]:
        """4-connected regions as GeoJSON, nodata's too; see :meth:`to_pixels`."""
        if self.pixels is not None:
            yield from rasterio.features.shapes(self.pixels, connectivity=4)
        else:
            # From the file: GDAL keeps two rows, not the raster.
            yield from rasterio.features.shapes(rasterio.band(self.dataset, 1), connectivity=4)

    def to_pixels(self, xy: Floats) -> NDArray[np.int32]:
        """(V, 2) coordinates of :meth:`shapes` to whole (col, row)."""
        if self.pixels is None:
            # GDAL applies the file's transform; pixel corners are whole numbers before it.
            a, b, c, d, e, f = tuple(~Affine(*self.grid.transform))[:6]
            x, y = xy.T
            xy = np.column_stack((a * x + b * y + c, d * x + e * y + f))
        return np.rint(xy).astype(np.int32)

    def check_ids(self, path: Path, known: set[int]) -> None:
        """Refuse ids that the legend lacks.

        Raises:
            UsageError: there are some.
        """
        found: set[int] = set()
        for _, strip in self.strips():
            found.update(np.unique(strip).tolist())
        unknown = sorted(found - known - {NODATA})
        if unknown:
            raise UsageError(
                f"{path} holds the class ids {unknown}, and the legend has only {sorted(known)}; "
                f"pass the classes of the model that made the raster"
            )


@dataclass(frozen=True)
class Grid:
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

    def to_crs(self, xy: Floats) -> Floats:
        """(V, 2) pixel coordinates (col, row; corners are whole numbers) to CRS coordinates."""
        a, b, c, d, e, f = self.transform
        x, y = xy[:, 0], xy[:, 1]
        return np.column_stack((a * x + b * y + c, d * x + e * y + f))

    def to_lonlat(self, xy: Floats) -> Floats:
        """(V, 2) CRS coordinates to degrees on the CRS's own ellipsoid; never a datum shift."""
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

    def pixel_size(self) -> tuple[float, float]:
        """Width and height of the scene's central pixel, metres on the ground."""
        assert self.crs is not None
        x, y = self.width // 2, self.height // 2
        corners = np.array([[x, y], [x + 1, y], [x, y + 1]], dtype=np.float64)
        (lon, lat), *others = self.to_lonlat(self.to_crs(corners)).tolist()
        geod = self.crs.get_geod()
        assert geod is not None
        width, height = (geod.inv(lon, lat, *other)[2] for other in others)
        return width, height

    def areas(self, rings: Rings) -> Floats:
        """Geodesic areas of polygons in the CRS's coordinates.

        Edges, straight in the CRS, are cut into pieces of at most 16 pixels; each piece's middle
        is projected too, and the area under it is Richardson's (4 halves - 1 whole) / 3, exact
        for a parabola. Without the middle, a sliver along a curved edge is wrong by up to 1e-3.

        Args:
            rings: P polygons.

        Returns:
            (P,) float64, square metres; NaN without a geographic or projected CRS.
        """
        areas = np.full(len(rings.polygons) - 1, np.nan)
        if self.crs is None or not len(areas):
            return areas
        project, period = self._equal_area()
        a, b, _, d, e, _ = self.transform
        unit = self.crs.axis_info[0].unit_conversion_factor  # to metres or to radians
        far = 100_000.0 / (unit * (6_371_000.0 if self.crs.is_geographic else 1.0))
        longest = min(16.0 * math.sqrt(abs(a * e - b * d)), far)
        for place, (xy, offsets, polygons) in rings.chunks():
            edges = np.diff(xy, axis=0, append=xy[-1:])
            closing = offsets[1:] - 1
            edges[closing] = 0.0  # from the end of one ring to the start of the next is no edge
            pieces = np.ceil(np.hypot(*edges.T) / longest).astype(np.int64).clip(min=1)
            step, start = _runs(pieces)
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
        return areas

    def _equal_area(self) -> tuple[Callable[[Floats], Floats], float | None]:
        """An equal-area projection for the scene, from degrees to metres.

        Returns:
            The projection, and the distance in x after which it repeats itself (None: never).
            Cylindrical (parallels and meridians stay straight) for geographic CRSs and for
            scenes that reach further than a hemisphere; azimuthal for others, as they may hold
            a pole.
        """
        assert self.crs is not None and self.crs.ellipsoid is not None
        cols, rows = np.meshgrid(np.linspace(0, self.width, 9), np.linspace(0, self.height, 9))
        lonlat = self.to_lonlat(self.to_crs(np.column_stack((cols.ravel(), rows.ravel()))))
        lon, lat = np.radians(lonlat).T
        ball = np.stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
        middle = len(lonlat) // 2
        far = bool((ball[:, middle] @ ball < 0).any())
        a = self.crs.ellipsoid.semi_major_metre
        options = {"a": a, "b": self.crs.ellipsoid.semi_minor_metre, "lon_0": lonlat[middle, 0]}
        if self.crs.is_geographic or far:
            projection, period = pyproj.Proj(proj="cea", **options), 2 * math.pi * a
        else:
            projection, period = pyproj.Proj(proj="laea", lat_0=lonlat[middle, 1], **options), None
        return lambda degrees: np.column_stack(projection(*degrees.T)), period


def _strip(start: Floats, end: Floats, base: Floats, period: float | None) -> Floats:
    """(N,) signed areas between straight edges (N, 2) and the heights ``base`` (N,)."""
    width = end[:, 0] - start[:, 0]
    if period is not None:
        width -= period * np.round(width / period)
    return width * ((start[:, 1] + end[:, 1]) / 2 - base)


def _runs(counts: Ints) -> tuple[Ints, Ints]:
    """For runs of the given lengths: each element's place in its run, and its run's number.

    >>> [x.tolist() for x in _runs(np.array([2, 0, 3]))]
    [[0, 1, 0, 1, 2], [0, 0, 2, 2, 2]]
    """
    run = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(run)) - (np.cumsum(counts) - counts)[run], run


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open class raster."""
    try:
        with rasterio.open(path) as dataset:
            found = (dataset.count, dataset.dtypes[0], dataset.nodata)
            if found not in ((1, "uint8", NODATA), (1, "uint8", None)):
                raise SceneError(
                    f"{path} has (bands, type, nodata) {found}; a class raster has one band of "
                    f"uint8 with nodata {NODATA}: give the one that geoseg predict wrote"
                )
            yield dataset
    except (rasterio.errors.RasterioError, pyproj.exceptions.CRSError) as error:
        raise SceneError(f"{path} can't be read as a class raster: {error}") from error


def _grid(dataset: Any, path: Path) -> Grid:
    """Where an open class raster's pixels lie."""
    crs = None if dataset.crs is None else pyproj.CRS.from_user_input(dataset.crs)
    usable = crs if crs is not None and (crs.is_geographic or crs.is_projected) else None
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return Grid(dataset.height, dataset.width, (a, b, c, d, e, f), crs, usable)


def _label(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The region image (H, W), 0 for nodata and 1..P, and the class id of each region (P,)."""
    regions = np.zeros(pixels.shape, dtype=np.int32)
    class_ids: list[int] = []
    for class_id in np.unique(pixels[pixels != NODATA]).tolist():
        found, count = ndimage.label(pixels == class_id)
        np.add(found, len(class_ids), out=regions, where=found > 0)
        class_ids += [class_id] * count
    return regions, np.array(class_ids, dtype=np.int32)


def _region_areas(regions: NDArray[np.int32], count: int, grid: Grid) -> Floats:
    """Areas of the regions 1..count from their pixels' geodesic areas, square metres (count,).

    A pixel's area is exact at 33 columns of every row and linear between them: exact wherever it
    depends on the row alone, as in geographic CRSs, and right to 1e-6 in a UTM zone.
    """
    cols = np.unique(np.linspace(0, grid.width - 1, 33).round().astype(np.int64))
    between = [np.interp(np.arange(grid.width), cols, one) for one in np.eye(len(cols))]
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.float64)
    total = np.zeros(count + 1)
    for top, bottom in _strips(grid):
        y, x = np.meshgrid(np.arange(top, bottom), cols, indexing="ij")
        xy = (np.stack((x, y), axis=-1)[:, :, None, :] + square).reshape(-1, 2)
        each = np.arange(x.size + 1)
        nodes = grid.areas(Rings(grid.to_crs(xy), 5 * each, each)).reshape(x.shape)
        pixel_areas = nodes @ np.stack(between)
        total += np.bincount(regions[top:bottom].ravel(), pixel_areas.ravel(), count + 1)
    return total[1:]


def _strips(grid: Grid) -> Iterator[tuple[int, int]]:
    """Top and bottom rows of full-width strips of about CHUNK pixels."""
    rows = max(1, CHUNK // grid.width)
    for top in range(0, grid.height, rows):
        yield top, min(top + rows, grid.height)


def _borders(
    regions: NDArray[np.int32], wanted: NDArray[np.bool_], grid: Grid
) -> tuple[list[int], list[int], list[float]]:
    """Which regions touch which, and along how much border.

    Args:
        regions: (H, W), 0 for nodata and 1..P.
        wanted: (P + 1,), the regions whose neighbours are asked for.
        grid: for the shape of a pixel.

    Returns:
        starts (P + 2,), neighbours and lengths: region r touches ``neighbours[starts[r]:
        starts[r + 1]]`` along ``lengths[...]``, in heights of the scene's central pixel.
    """
    width, height = grid.pixel_size()
    # Rounded: square pixels must give ties, not differences of 1e-9 that always favour one side.
    sides = ((regions[:, :-1], regions[:, 1:], 1.0), (regions[:-1], regions[1:], width / height))
    keys, lengths = [], []
    for one, other, length in sides:
        border = (one != other) & (one > 0) & (other > 0)
        a, b = one[border].astype(np.int64), other[border].astype(np.int64)
        for source, target in ((a, b), (b, a)):
            keep = wanted[source]
            keys.append(source[keep] * len(wanted) + target[keep])
            lengths.append(np.full(len(keys[-1]), float(f"{length:.3g}")))
    pairs, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    starts = np.searchsorted(pairs, np.arange(len(wanted) + 1) * len(wanted))
    total = np.bincount(inverse, np.concatenate(lengths), len(pairs))
    return starts.tolist(), (pairs % len(wanted)).tolist(), total.tolist()


def _merge_small(pixels: NDArray[np.uint8], grid: Grid, min_area: float) -> NDArray[np.uint8]:
    """Give each region below ``min_area`` to the neighbour of the longest shared border.

    The smallest goes first; of equal borders the larger neighbour's counts. The taker's class may
    meet itself on the far side of what it took: those regions become one with it at once, so that
    regions stay maximal and their areas whole. The whole scene's region image is held in memory:
    four bytes a pixel.

    Returns:
        (H, W) class ids after the mergers.
    """
    regions, class_ids = _label(pixels)
    area = [math.inf, *_region_areas(regions, len(class_ids), grid).tolist()]
    class_of = [NODATA, *class_ids.tolist()]
    small = np.array(area) < min_area
    starts, neighbours, lengths = _borders(regions, small, grid)
    parent = list(range(len(area)))
    # Only a small region is ever asked for its neighbours, so only its members are kept. The
    # smallest goes first, so each merger at least doubles it: a member is visited O(log) times.
    members = {r: [r] for r in np.flatnonzero(small).tolist()}
    heap = [(area[r], r) for r in members]
    heapq.heapify(heap)

    def find(r: int) -> int:
        while parent[r] != r:
            parent[r] = parent[parent[r]]
            r = parent[r]
        return r

    while heap:
        known_area, region = heapq.heappop(heap)
        if parent[region] != region or area[region] != known_area:
            continue  # it was merged, or grew, since it was put here
        shared: dict[int, float] = {}
        for member in members[region]:
            for i in range(starts[member], starts[member + 1]):
                neighbour = find(neighbours[i])
                if neighbour != region:
                    shared[neighbour] = shared.get(neighbour, 0.0) + lengths[i]
        if not shared:
            continue  # nodata all around: it stays
        taker = max(shared, key=lambda r: (shared[r], area[r], -r))
        met = [r for r in shared if r != taker and class_of[r] == class_of[taker]]
        own = members.pop(region)
        for other in (region, *met):
            parent[other] = taker
            area[taker] += area[other]
            own += members.pop(other, [])
        if area[taker] < min_area:
            members[taker] += own
            heapq.heappush(heap, (area[taker], taker))

    merged = np.array([class_of[find(r)] for r in range(len(area))], dtype=np.uint8)
    return merged[regions]


def _trace(source: _Source) -> tuple[Rings, NDArray[np.int32]]:
    """The regions' polygons in pixel coordinates, with the nodes of a coverage.

    Returns:
        The rings, and (P,) the class id of each polygon.
    """
    junctions = _junctions(source)
    shapes = ((shape, int(value)) for shape, value in source.shapes() if value != NODATA)
    ids: list[int] = []
    xy, per_ring, per_polygon = [np.empty((0, 2))], [np.empty(0, int)], [np.empty(0, int)]
    while chunk := list(itertools.islice(shapes, CHUNK // 64)):
        ids += [value for _, value in chunk]
        polygons = [shape["coordinates"] for shape, _ in chunk]
        rings = list(itertools.chain.from_iterable(polygons))
        per_polygon.append(np.array([len(polygon) for polygon in polygons]))
        lengths = np.array([len(ring) for ring in rings])
        flat = itertools.chain.from_iterable(itertools.chain.from_iterable(rings))
        corners = source.to_pixels(np.fromiter(flat, float, 2 * lengths.sum()).reshape(-1, 2))
        nodes, nodes_per_ring = _add_junctions(corners, lengths, junctions)
        xy.append(nodes)
        per_ring.append(nodes_per_ring)
    return Rings(
        np.concatenate(xy),
        np.concatenate(([0], np.cumsum(np.concatenate(per_ring)))),
        np.concatenate(([0], np.cumsum(np.concatenate(per_polygon)))),
    ), np.array(ids, dtype=np.int32)


def _junctions(source: _Source) -> NDArray[np.uint8]:
    """The pixel corners where at least 3 borders between regions meet, (H + 1, W + 1) as bits.

    There a ring may run straight on while two others turn; a coverage needs the node in all three.
    4-adjacent pixels of one class lie in one region, so classes tell regions apart.

    Returns:
        (H + 1, W // 8 + 1), packed along columns as by :func:`numpy.packbits`.
    """
    grid = source.grid
    packed = np.zeros((grid.height + 1, grid.width // 8 + 1), dtype=np.uint8)
    above = np.full((1, grid.width), NODATA, dtype=np.uint8)
    last = np.full((1, grid.width), NODATA, dtype=np.uint8)
    for top, strip in source.strips():
        rows = [above, strip, last] if top + len(strip) == grid.height else [above, strip]
        padded = np.pad(np.concatenate(rows), ((0, 0), (1, 1)), constant_values=NODATA)
        across = padded[:, :-1] != padded[:, 1:]
        down = padded[:-1] != padded[1:]
        borders = across[:-1].astype(np.uint8)
        for more in (across[1:], down[:, :-1], down[:, 1:]):
            borders += more
        packed[top : top + len(borders)] = np.packbits(borders >= 3, axis=1)
        above = strip[-1:]
    return packed


def _add_junctions(
    corners: NDArray[np.int32], lengths: Ints, junctions: NDArray[np.uint8]
) -> tuple[Floats, Ints]:
    """Walk closed rings in unit steps and keep the turning points and the junctions.

    Args:
        corners: (V, 2) pixel coordinates of closed rings, one after another; edges run along
            rows or columns.
        lengths: (R,) vertices in each ring.
        junctions: of :func:`_junctions`, as bits.

    Returns:
        The rings' new vertices (closed again, float64) and how many each ring has.
    """
    ends = np.cumsum(lengths)
    edges = np.diff(corners, axis=0, append=corners[-1:])
    edges[ends - 1] = 0  # from one ring to the next is no edge
    steps = np.abs(edges).sum(axis=1)
    place, edge = _runs(steps)
    direction = np.sign(edges)[edge]
    points = corners[edge] + direction * place[:, None].astype(np.int32)
    perimeters = np.add.reduceat(steps, ends - lengths)
    first = np.cumsum(perimeters) - perimeters
    before = np.roll(direction, 1, axis=0)
    before[first] = direction[first + perimeters - 1]
    x, y = points.T
    junction = (junctions[y, x >> 3] >> (7 - (x & 7)) & 1).astype(bool)
    keep = (direction != before).any(axis=1) | junction
    kept = np.add.reduceat(keep, first, dtype=np.int64)
    nodes = points[keep]
    start = np.cumsum(kept) - kept
    return np.insert(nodes, start + kept, nodes[start], axis=0).astype(np.float64), kept + 1


def _simplify(rings: Rings, tolerance: float) -> Rings:
    """Simplify a coverage in pixel coordinates; ``tolerance`` in pixels."""
    simple = shapely.coverage_simplify(rings.geometries(), tolerance, simplify_boundary=False)
    _, xy, (ring_offsets, polygon_offsets) = shapely.to_ragged_array(simple)
    return Rings(xy, ring_offsets.astype(np.int64), polygon_offsets.astype(np.int64))


def _mean_confidence(path: Path | None, source: _Source, rings: Rings) -> Floats:
    """(P,) mean winning probability over each polygon's pixels; NaN where none is known.

    Args:
        path: the confidence raster, or None.
        source: the class raster.
        rings: of :func:`_trace`, in pixel coordinates.
    """
    count = len(rings.polygons) - 1
    if path is None or count == 0:
        return np.full(count, np.nan)
    grid = source.grid
    # The pixel below and right of a polygon's topmost, then leftmost corner belongs to it.
    key = rings.xy[:, 1].astype(np.int64) * (grid.width + 1) + rings.xy[:, 0].astype(np.int64)
    row, col = np.divmod(
        np.minimum.reduceat(key, rings.rings[:-1])[rings.polygons[:-1]], grid.width + 1
    )
    order = np.argsort(row, kind="stable")
    polygon_label = np.zeros(count, dtype=np.int64)
    totals: list[NDArray[Any]] = [np.zeros(1)]
    known: list[NDArray[Any]] = [np.zeros(1)]
    joins: list[Ints] = [np.zeros((2, 0), dtype=np.int64)]
    labels = 1  # regions of strips get numbers one after another; 0 is nodata
    above: tuple[NDArray[np.uint8], Ints] | None = None
    with _confidence_rows(path, grid) as read:
        for top, strip in source.strips():
            found, class_ids = _label(strip)
            regions = np.where(found > 0, found.astype(np.int64) + (labels - 1), 0)
            if above is not None:
                touching = (above[0] == strip[0]) & (strip[0] != NODATA)
                pairs = np.stack([above[1][touching], regions[0][touching]])
                joins.append(np.unique(pairs, axis=1))
            inside = order[slice(*np.searchsorted(row[order], (top, top + len(strip))))]
            polygon_label[inside] = regions[row[inside] - top, col[inside]]
            values = read(top, len(strip))
            measured = np.isfinite(values) & (found > 0)
            bins = len(class_ids) + 1
            totals.append(np.bincount(found[measured], values[measured], bins)[1:])
            known.append(np.bincount(found[measured], np.ones(measured.sum()), bins)[1:])
            labels += len(class_ids)
            above = strip[-1], regions[-1]
    first, second = np.concatenate(joins, axis=1)
    links = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(labels, labels))
    region_of = sparse.csgraph.connected_components(links, directed=False)[1]
    total = np.bincount(region_of, np.concatenate(totals))
    pixels = np.bincount(region_of, np.concatenate(known))
    with np.errstate(invalid="ignore"):
        return np.asarray((total / pixels)[region_of[polygon_label]])


@contextmanager
def _confidence_rows(path: Path, grid: Grid) -> Iterator[Callable[[int, int], Floats]]:
    """A reader of the confidence raster: (first row, rows) -> (rows, W), NaN where unknown."""

    def read(top: int, rows: int) -> Floats:
        window = rasterio.windows.Window(0, top, grid.width, rows)
        masked = dataset.read(1, window=window, masked=True).astype(np.float64)
        values = masked.filled(np.nan) * dataset.scales[0] + dataset.offsets[0]
        if (np.abs(values[np.isfinite(values)] - 0.5) > 0.51).any():
            raise SceneError(
                f"{path} holds values outside 0 to 1; confidence is a probability: 8-bit files "
                f"need their GDAL scale tag"
            )
        return np.asarray(values)

    try:
        with rasterio.open(path) as dataset:
            crs = None if dataset.crs is None else pyproj.CRS.from_user_input(dataset.crs)
            found = (dataset.count, dataset.shape, tuple(dataset.transform)[:6], crs)
            if found != (1, (grid.height, grid.width), grid.transform, grid.file_crs):
                raise UsageError(
                    f"{path} has (bands, shape, transform, CRS) {found}; a confidence raster has "
                    f"one band on the class raster's grid: give the one of the same run"
                )
            yield read
    except rasterio.errors.RasterioError as error:
        raise SceneError(f"{path} can't be read as a confidence raster: {error}") from error


def _write_vector(frame: geopandas.GeoDataFrame, path: Path, layer: str, **options: str) -> None:
    with warnings.catch_warnings():
        # A scene without a CRS gives polygons without one; whoever asked for them knows.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        # The geometry type is said because an empty frame has no geometry to tell it from.
        options = {"geometry_type": "Polygon", **options}
        frame.to_file(path, layer=layer, engine="pyogrio", index=False, **options)


def _write_geojson(frame: geopandas.GeoDataFrame, path: Path, layer: str) -> None:
    if frame.crs is None or not (frame.crs.is_geographic or frame.crs.is_projected):
        raise UsageError(
            f"{path}: GeoJSON is longitude and latitude on WGS 84 (RFC 7946), and these polygons "
            f"have no geographic or projected CRS; choose .gpkg"
        )
    if len(frame) and frame.crs.equals("OGC:CRS84", ignore_axis_order=True):
        # GDAL cuts at the antimeridian itself, but drops what lies beyond 360 without a word.
        frame = frame.copy()
        bounds = frame.bounds
        beyond = (bounds.minx < -180) | (bounds.maxx > 180)
        frame.loc[beyond, "geometry"] = [_cut_at_180(g) for g in frame.geometry[beyond]]
    _write_vector(frame, path, layer, driver="GeoJSON", RFC7946="YES", geometry_type="Unknown")


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


def _write_parquet(frame: geopandas.GeoDataFrame, path: Path, layer: str) -> None:
    frame.to_parquet(path, index=False, schema_version="1.1.0")


#: Suffix -> writer(frame, path, layer).
FORMATS: dict[str, Callable[[geopandas.GeoDataFrame, Path, str], None]] = {
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
            f"{path} ends in {path.suffix!r}; polygons are written as {', '.join(FORMATS)}"
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
    check_suffix(path)
    try:
        FORMATS[path.suffix.lower()](frame, path, layer)
    except (OSError, RuntimeError, ImportError) as error:  # pyogrio's are RuntimeErrors
        raise OutputError(
            f"{path} can't be written: {error}; check the folder, its permissions and free space"
        ) from error
