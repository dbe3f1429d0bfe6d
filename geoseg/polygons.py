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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from geoseg.errors import SceneError, UsageError
from geoseg.geodesy import CHUNK, Floats, Ints, MapGrid, Rings, runs

__all__ = ["polygonize"]

NODATA = 255


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
            A region surrounded by nodata has no neighbour and stays, whatever its size. Measured
            before ``simplify``, after which a polygon may be somewhat smaller.
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
        grid = MapGrid.of(dataset)
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
    grid: MapGrid
    pixels: NDArray[np.uint8] | None = None

    def rows(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """(bottom - top, W) class ids."""
        if self.pixels is not None:
            return self.pixels[top:bottom]
        window = rasterio.windows.Window(0, top, self.grid.width, bottom - top)
        return np.asarray(self.dataset.read(1, window=window))

    def strips(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(first row, class ids) of strips of about CHUNK pixels."""
        for top, bottom in self.grid.strips():
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


def _label(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The region image (H, W), 0 for nodata and 1..P, and the class id of each region (P,)."""
    regions = np.zeros(pixels.shape, dtype=np.int32)
    class_ids: list[int] = []
    for class_id in np.unique(pixels[pixels != NODATA]).tolist():
        found, count = ndimage.label(pixels == class_id)
        np.add(found, len(class_ids), out=regions, where=found > 0)
        class_ids += [class_id] * count
    return regions, np.array(class_ids, dtype=np.int32)


def _region_areas(regions: NDArray[np.int32], count: int, grid: MapGrid) -> Floats:
    """Areas of the regions 1..count from their pixels' geodesic areas, square metres (count,)."""
    total = np.zeros(count + 1)
    for top, bottom in grid.strips():
        areas = grid.pixel_areas(top, bottom)
        total += np.bincount(regions[top:bottom].ravel(), areas.ravel(), count + 1)
    return total[1:]


def _borders(
    regions: NDArray[np.int32], wanted: NDArray[np.bool_], grid: MapGrid
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


def _merge_small(pixels: NDArray[np.uint8], grid: MapGrid, min_area: float) -> NDArray[np.uint8]:
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
    place, edge = runs(steps)
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
def _confidence_rows(path: Path, grid: MapGrid) -> Iterator[Callable[[int, int], Floats]]:
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
