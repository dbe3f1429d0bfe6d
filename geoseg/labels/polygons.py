"""Labels as polygons: which pixels each of them covers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyproj
import pyproj.exceptions
import shapely
from numpy.typing import NDArray

from geoseg.core.gdal import first_line
from geoseg.core.names import public_name
from geoseg.errors import LabelError
from geoseg.geo.geodesy import Floats, Ints, runs
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.labels.classes import class_ids
from geoseg.labels.vector_files import OWN_COLUMN, class_column, read_features
from geoseg.labels.window import Bounds, Labels, check_crs
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["PixelsOfFeatures", "PlacedPolygons", "PolygonFile", "read_polygons"]


#: Vertices are brought to this part of a pixel, so that edges that two polygons share are one.
SNAP = 2.0**-20


#: An edge that is straight in its own CRS may be this far from straight on the grid, px.
SAG = 0.01


MOST_PIECES = 10_000


class PixelsOfFeatures(NamedTuple):
    """Which pixels of a window lie in which features; where two overlap, a pixel is there twice.

    Attributes:
        feature: (N,) int64, place in the features' arrays.
        row: (N,) int64, from the window's top.
        col: (N,) int64, from the window's left.
    """

    feature: Ints
    row: Ints
    col: Ints


@dataclass(frozen=True)
class PolygonFile:
    """Labelled polygons, in the CRS of their file.

    Attributes:
        path: of the file.
        column: that says the class.
        ids: (F,) int64, of the features that have a class.
        shapes: (F,) polygons and multi-polygons.
        rows: (F,) int64, the features' places in the file, from 0.
        crs: of the file; None without.
        features: in the file, with and without class.
        unlabelled: features without class; they are left out.
        ignored: features whose class is one to ignore; they are left out, too.
    """

    path: str
    column: str
    ids: Ints
    shapes: NDArray[np.object_]
    rows: Ints
    crs: pyproj.CRS | None
    features: int
    unlabelled: int
    ignored: int

    def on(self, grid: PixelGrid, other: str) -> PlacedPolygons:
        """Place the polygons on a pixel grid.

        Args:
            grid: any.
            other: whose grid it is, a path, for messages.

        Raises:
            LabelError: one side has no CRS, or they can't be brought together.
        """
        check_crs(grid.crs is not None, other, self.crs is not None, self.path)
        return _place(self, grid, other)


def read_polygons(
    path: str | Path,
    column: str | None,
    legend: Mapping[int, str],
    *,
    ignore: Sequence[int | str] = (),
    owner: str = "the map",
    usual: Sequence[str] = (OWN_COLUMN,),
    rules: Rules = LOCAL,
) -> PolygonFile:
    """Read labelled polygons, once and whole.

    Args:
        path: any file that geopandas reads, with polygons and multi-polygons only.
        column: with each polygon's class by name or id, empty where it is not known; None for
            the first of the usual ones that is there.
        legend: id -> name of the classes.
        ignore: what means no class in that column: ids or names.
        owner: whose legend it is, for messages.
        usual: by default the column class_id, which ``geoseg predict`` writes.
        rules: what the file may point to.

    Raises:
        UsageError: the file can't be read, doesn't have the column, or holds other shapes.
        LabelError: the column holds what is no class, or no class at all.
    """
    path = public_name(path)
    frame = read_features(path, None, ("Polygon", "MultiPolygon"), "polygon", rules)
    column = class_column(path, frame, column, usual)
    ids, ignored = class_ids(frame[column], legend, ignore, path, owner=owner, things="polygons")
    rows = np.flatnonzero(ids >= 0)
    if not len(rows):
        known = ", ".join(legend.values())
        raise LabelError(
            f"{path}: none of its {len(frame)} polygons has a class in the column {column!r}; "
            f"fill it with names ({known}) or ids"
        )
    shapes = shapely.force_2d(np.asarray(frame.geometry.array)[rows])
    # Parts that overlap, and rings that cross themselves, would be filled twice or not at all.
    broken = ~shapely.is_valid(shapes)
    if broken.any():
        shapes[broken] = shapely.make_valid(
            shapes[broken], method="structure", keep_collapsed=False
        )
    crs = None if frame.crs is None else pyproj.CRS(frame.crs)
    unlabelled = len(frame) - len(rows) - ignored
    return PolygonFile(path, column, ids[rows], shapes, rows, crs, len(frame), unlabelled, ignored)


@dataclass(frozen=True)
class PlacedPolygons:
    """Labelled polygons on a pixel grid, as the edges of their parts.

    A pixel is in a polygon where its centre is. A centre on an edge is in the polygon to the right
    of it, or below, so that polygons that share an edge share no pixel.

    Attributes:
        source: the file.
        grid: where the pixels lie.
        bounds: of the polygons in the grid's CRS; infinite where it has no place for them.
        lost: features that have no place in the grid's CRS.
        edges: (E, 4) float64: x and y of the upper end, then of the lower one, px; ascending in y.
        parts: (E,) int64, the polygon that the edge is of; each is closed.
        features: (P,) int64, the feature that each polygon is a part of.
    """

    source: PolygonFile
    grid: PixelGrid
    bounds: Bounds
    lost: int
    edges: Floats
    parts: Ints
    features: Ints

    @property
    def path(self) -> str:
        """Of the file."""
        return self.source.path

    @property
    def legend(self) -> dict[int, str]:
        """Names that the labels give the ids; polygons give none."""
        return {}

    @cached_property
    def _tallest(self) -> float:
        return float((self.edges[:, 3] - self.edges[:, 1]).max(initial=0.0))

    def strip(self, top: int, bottom: int) -> Labels:
        """Draw labels of full-width rows; see :meth:`window`."""
        return self.window(Window(top, 0, bottom - top, self.grid.width))

    def window(self, window: Window) -> Labels:
        """Draw labels of a window of the grid.

        Where polygons of one class overlap, it is that class.

        Args:
            window: within the grid.

        Returns:
            ids of int64; nothing is known where no polygon is, or several disagree.
        """
        part, row, start, stop = self._spans(window)
        ids = self.source.ids[self.features[part]].astype(np.float64)
        shape = (window.height, window.width)
        # Sums over the polygons at a pixel of 1, id and id^2, exact in float64. All ids are the
        # same if and only if n * sum(id^2) = sum(id)^2 (Cauchy and Schwarz).
        n, first, second = (
            _fill(row, start, stop, weight, shape) for weight in (np.ones(len(ids)), ids, ids**2)
        )
        covered = n > 0
        disputed = covered & (n * second != first * first)
        mean = np.divide(first, n, out=np.zeros(shape), where=covered)
        none = np.zeros(shape, bool)
        return Labels(mean.astype(np.int64), covered & ~disputed, disputed, none)

    def members(self, window: Window) -> PixelsOfFeatures:
        """Find which pixels of a window lie in which feature."""
        part, row, start, stop = self._spans(window)
        step, span = runs(stop - start)
        return PixelsOfFeatures(self.features[part[span]], row[span], start[span] + step)

    def _spans(self, window: Window) -> tuple[Ints, Ints, Ints, Ints]:
        """Runs of pixels within polygons: part, row, first column and that after the last; (S,).

        Rows and columns are counted from the window's corner.
        """
        top, bottom = window.row, window.bottom
        y = self.edges[:, 1]
        first, last = np.searchsorted(y, [top - self._tallest, bottom])
        near = np.flatnonzero(self.edges[first:last, 3] > top) + first
        x0, y0, x1, y1 = self.edges[near].T
        # Of the rows whose centres (r + 0.5) lie at y0 <= r + 0.5 < y1.
        begin = np.ceil(y0 - 0.5).clip(top, bottom).astype(np.int64)
        end = np.ceil(y1 - 0.5).clip(top, bottom).astype(np.int64)
        step, edge = runs(end - begin)
        row = begin[edge] + step
        slope = (x1 - x0) / (y1 - y0)
        x = x0[edge] + (row + 0.5 - y0[edge]) * slope[edge]
        part = self.parts[near][edge]
        # Along a row, a polygon's crossings open and close runs in turn.
        order = np.lexsort((x, row, part))
        col = np.ceil(x[order] - 0.5).clip(window.col, window.right).astype(np.int64) - window.col
        start, stop = col[0::2], col[1::2]
        filled = stop > start
        opening = order[0::2][filled]
        return part[opening], row[opening] - top, start[filled], stop[filled]


def _fill(row: Ints, start: Ints, stop: Ints, weight: Floats, shape: tuple[int, int]) -> Floats:
    """Add up the weights of the runs over each pixel, (H, W)."""
    height, width = shape
    places = np.concatenate((row * (width + 1) + start, row * (width + 1) + stop))
    steps = np.bincount(places, np.concatenate((weight, -weight)), height * (width + 1))
    return np.asarray(steps.reshape(height, width + 1).cumsum(axis=1)[:, :-1], np.float64)


def _place(source: PolygonFile, grid: PixelGrid, other: str) -> PlacedPolygons:
    """Bring polygons to pixel coordinates.

    Raises:
        LabelError: PROJ has no way between the CRSs.
    """
    parts, features = shapely.get_parts(source.shapes, return_index=True)
    polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts, features = parts[polygon], features[polygon]
    rings, of_part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    here, part = xy[:-1][same], of_part[ring[:-1][same]]
    there = xy[1:][same]
    to_crs = _transformer(source, grid, other)
    if to_crs is not None:
        here, there, part = _bend(here, there, part, to_crs, grid)
    ends = np.stack((here, there))
    finite = np.isfinite(ends).all(axis=(0, 2))
    # A part of which a vertex has no place is left out whole: half of it would be no polygon.
    lost = np.zeros(len(parts), bool)
    lost[part[~finite]] = True
    kept = ~lost[part]
    ends, part = ends[:, kept], part[kept]
    bounds: Bounds = (math.inf,) * 4
    if ends.size:
        low, high = ends.min(axis=(0, 1)), ends.max(axis=(0, 1))
        bounds = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    a, b, c, d, e, f = tuple(~grid.transform)[:6]
    x, y = ends[..., 0], ends[..., 1]
    pixels = np.stack((a * x + b * y + c, d * x + e * y + f), axis=-1)
    pixels = np.rint(pixels / SNAP) * SNAP
    begin, end = pixels
    down = begin[:, 1] < end[:, 1]
    edges = np.where(down[:, None], np.hstack((begin, end)), np.hstack((end, begin)))
    slanted = edges[:, 1] != edges[:, 3]
    edges, part = edges[slanted], part[slanted]
    order = np.argsort(edges[:, 1], kind="stable")
    without = len(np.unique(features[lost]))
    return PlacedPolygons(source, grid, bounds, without, edges[order], part[order], features)


def _transformer(source: PolygonFile, grid: PixelGrid, other: str) -> pyproj.Transformer | None:
    """From the polygons' CRS to the grid's; None where they are the same."""
    if grid.crs is None or source.crs is None:
        return None
    try:
        target = pyproj.CRS.from_user_input(grid.crs)
        if target.equals(source.crs, ignore_axis_order=True):
            return None
        return pyproj.Transformer.from_crs(source.crs, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise LabelError(
            f"the polygons of {source.path} can't be brought to the CRS of {other} "
            f"({first_line(error)}); give both a geographic or projected CRS"
        ) from error


def _bend(
    here: Floats, there: Floats, part: Ints, to_crs: pyproj.Transformer, grid: PixelGrid
) -> tuple[Floats, Floats, Ints]:
    """Edges in the grid's CRS, cut where a straight one becomes a curve.

    A curve's middle lies off the straight line by a length that falls with the square of the
    number of pieces; they are so many that it is SAG pixels.
    """

    def change(xy: Floats) -> Floats:
        return np.column_stack(to_crs.transform(xy[:, 0], xy[:, 1]))

    middle = change((here + there) / 2) - (change(here) + change(there)) / 2
    a, b, _, d, e, _ = tuple(~grid.transform)[:6]
    off = np.hypot(a * middle[:, 0] + b * middle[:, 1], d * middle[:, 0] + e * middle[:, 1])
    off = np.where(np.isfinite(off), off, 0.0)
    pieces = np.ceil(np.sqrt(off / SAG)).clip(1, MOST_PIECES).astype(np.int64)
    step, edge = runs(pieces)
    span = (there - here)[edge]
    from_, to = ((step + k) / pieces[edge] for k in (0, 1))
    last = (to == 1.0)[:, None]
    begin = change(here[edge] + span * from_[:, None])
    end = change(np.where(last, there[edge], here[edge] + span * to[:, None]))
    return begin, end, part[edge]
