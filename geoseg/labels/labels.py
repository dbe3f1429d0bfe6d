"""Labels on a pixel grid: from a raster on any grid, or from polygons in a vector file.

Rasters come through a virtual warp (nearest neighbour), polygons are filled where a pixel's centre
lies inside. Both are read a window at a time, and what a window holds does not depend on how the
grid is cut into windows.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pyogrio
import pyogrio.errors
import pyproj
import pyproj.exceptions
import shapely
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error
from geoseg.core.names import full_address, public_name
from geoseg.errors import LabelError, UsageError
from geoseg.geo.geodesy import Floats, GroundGrid, Ints, runs
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.rasters.class_raster import ClassRaster, open_class_raster, read_class_window
from geoseg.scene.scene import RASTER_SUFFIXES, first_line, gdal_options, opened
from geoseg.scene.sources import LOCAL, Rules, check_vector, holds_shapes

__all__ = [
    "Bounds",
    "ColorLabels",
    "Labels",
    "PixelsOfFeatures",
    "PlacedPolygons",
    "PolygonFile",
    "RasterLabels",
    "bounds_in",
    "check_crs",
    "class_column",
    "class_ids",
    "is_vector",
    "match_classes",
    "on_grid",
    "open_color_labels",
    "open_labels",
    "parse_colors",
    "read_features",
    "read_polygons",
    "spelled",
]

Bounds = tuple[float, float, float, float]

#: The column of polygons that ``geoseg predict`` writes.
OWN_COLUMN = "class_id"
#: Vertices are brought to this part of a pixel, so that edges that two polygons share are one.
SNAP = 2.0**-20
#: An edge that is straight in its own CRS may be this far from straight on the grid, px.
SAG = 0.01
MOST_PIECES = 10_000


class Labels(NamedTuple):
    """What is known of the pixels of a window.

    Attributes:
        ids: (H, W) whole numbers; where nothing is known they mean nothing.
        known: (H, W), True where there is a label.
        disputed: (H, W), True where polygons of different classes overlap: nothing is known there.
        ignored: (H, W), True where the label is one that means no class; not known either.
    """

    ids: NDArray[Any]
    known: NDArray[np.bool_]
    disputed: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


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


# Classes by name or id


def spelled(value: Any) -> str:
    """What was written into a table, in one spelling; empty where nothing was.

    Examples:
        >>> spelled(" Water "), spelled(3.0), spelled(None), spelled(float("nan"))
        ('water', '3', '', '')
    """
    if value is None or value != value or str(value) == "<NA>":  # NaN is not itself
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip().casefold()


def class_ids(
    values: Iterable[Any],
    legend: Mapping[int, str],
    ignore: Sequence[int | str],
    path: str,
    *,
    owner: str = "the map",
    things: str = "points",
) -> tuple[NDArray[np.int64], int]:
    """Ids of what was written into a column.

    Numbers are ids. Text is a name, in capitals or not, and if no class is called so, an id.

    Args:
        values: (N,) as read.
        legend: id -> name of the classes.
        ignore: what means no class: ids or names.
        path: of the file, for messages.
        owner: whose classes they are, for messages.
        things: what the rows are, for messages.

    Returns:
        (N,) int64, -1 where nothing was written or it is ignored; and how many are ignored.

    Raises:
        LabelError: something is written that is no class.
    """
    ids, ignored, unknown = match_classes(values, legend, ignore)
    if unknown:
        shown = ", ".join(f"{value!r} ({n})" for value, n in unknown.most_common(8))
        known = ", ".join(f"{i} {name}" for i, name in legend.items())
        raise LabelError(
            f"{path}: {shown} is no class of {owner} ({known}); mend the column, or leave such "
            f"{things} out with --ignore"
        )
    return ids, ignored


def match_classes(
    values: Iterable[Any], legend: Mapping[int, str], ignore: Sequence[int | str]
) -> tuple[NDArray[np.int64], int, Counter[str]]:
    """As :func:`class_ids`, and how often what is written that is no class, instead of an error."""
    by_text = {str(i): i for i in legend}
    folded = Counter(name.casefold() for name in legend.values())
    by_text.update(
        (name.casefold(), i) for i, name in legend.items() if folded[name.casefold()] == 1
    )
    left_out = {spelled(value) for value in ignore}
    ids, ignored, unknown = [], 0, Counter[str]()
    for value in values:
        text = spelled(value)
        ids.append(-1)
        if text in left_out and text:
            ignored += 1
        elif text in by_text:
            ids[-1] = by_text[text]
        elif text:
            unknown[text if text.isdecimal() else str(value).strip()] += 1
    return np.array(ids, np.int64), ignored, unknown


# Vector files


def is_vector(path: str | Path) -> bool:
    """Whether a file is one of shapes; what can't be opened is taken for a raster."""
    suffix = Path(str(path)).suffix.lower()
    if suffix == ".parquet":
        return True
    if suffix in RASTER_SUFFIXES:
        return False
    found = holds_shapes(path)
    if found is not None:
        return found
    try:  # a GeoPackage may hold pictures
        return len(pyogrio.list_layers(path)) > 0
    except (pyogrio.errors.DataSourceError, OSError, ValueError):
        return False


@contextmanager
def vector_file(path: str | Path, rules: Rules) -> Iterator[str]:
    """What GDAL opens a vector file by, for the length of a ``with`` in which it fetches nothing.

    Args:
        path: as the user gives it.
        rules: what the file may point to.

    Raises:
        UsageError: it isn't there, leads elsewhere, or is of a kind that is not read.
    """
    check_vector(path, rules)
    # What a GML says of itself may lie on a server.
    option = "GML_DOWNLOAD_SCHEMA"
    before = pyogrio.get_gdal_config_option(option)
    pyogrio.set_gdal_config_options({option: before if rules.vrt == "any" else False})
    try:
        yield full_address(public_name(path))
    finally:
        pyogrio.set_gdal_config_options({option: before})


def read_vector(path: str | Path, rules: Rules, layer: str | None = None) -> Any:
    """A vector file as geopandas gives it.

    Args:
        path: as the user gives it.
        rules: what the file may point to.
        layer: of the file; the first one by default.

    Raises:
        UsageError: it can't be read.
    """
    try:
        with vector_file(path, rules) as full:
            if public_name(path).split("?")[0].lower().endswith(".parquet"):
                return geopandas.read_parquet(full)
            return geopandas.read_file(full, engine="pyogrio", layer=layer)
    except (pyogrio.errors.DataSourceError, OSError, ValueError) as error:
        raise UsageError(
            f"{public_name(path)} can't be read as a vector file ({first_line(error)})"
        ) from error


def read_features(
    path: str, column: str | None, kinds: Sequence[str], what: str, rules: Rules = LOCAL
) -> geopandas.GeoDataFrame:
    """A vector file as a frame.

    Args:
        path: of the file; its only layer of shapes is read.
        column: that it must have; None for none.
        kinds: the geometry types that it may hold.
        what: what these are, in the singular, for messages.
        rules: what the file may point to.

    Raises:
        UsageError: it can't be read, has no such column, or holds other shapes.
    """
    path = public_name(path)
    frame = read_vector(path, rules, _layer(path, what, rules))
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise UsageError(f"{path} is a table without geometry; give a file of {what}s")
    if column is not None and (column not in frame.columns or column == frame.geometry.name):
        others = [str(name) for name in frame.columns if name != frame.geometry.name]
        raise UsageError(
            f"{path} has no column {column!r}; it has {', '.join(others)}: choose with --column"
        )
    empty = int((frame.geometry.isna() | frame.geometry.is_empty).sum())
    if empty:
        raise UsageError(
            f"{path}: {empty} of its {len(frame)} rows have no geometry; remove them, or draw them"
        )
    wrong = int((~frame.geom_type.isin(list(kinds))).sum())
    if wrong:
        single, hint = "", ""
        if not any(kind.startswith("Multi") for kind in kinds):
            single, hint = "single ", " (in QGIS: multipart to singleparts)"
        raise UsageError(
            f"{path} holds {wrong} rows that are no {single}{what}; give one {what} a row{hint}"
        )
    return frame.reset_index(drop=True)


def _layer(path: str, what: str, rules: Rules) -> str | None:
    """The file's only layer of shapes; None for the first one, where no layer has any.

    Raises:
        UsageError: there are several, or it can't be read.
    """
    try:
        with vector_file(path, rules) as full:
            if path.lower().endswith(".parquet"):
                return None
            shapes = [str(name) for name, kind in pyogrio.list_layers(full) if kind is not None]
    except (pyogrio.errors.DataSourceError, OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read as a vector file ({first_line(error)})") from error
    if len(shapes) > 1:
        raise UsageError(
            f"{path} holds the layers {', '.join(shapes)}; give a file with one layer of {what}s "
            f"(ogr2ogr one.gpkg {Path(path).name} {shapes[0]})"
        )
    return shapes[0] if shapes else None


def class_column(
    path: str, frame: geopandas.GeoDataFrame, column: str | None, usual: Sequence[str]
) -> str:
    """The column that says the class.

    Args:
        path: of the file, for messages.
        frame: as read.
        column: the user's word, or None for the first of the usual ones that is there.
        usual: columns that say it where the user doesn't.

    Raises:
        UsageError: there is no such column.
    """
    names = [str(name) for name in frame.columns if name != frame.geometry.name]
    there = ", ".join(names) or "no column at all"
    if column is not None:
        if column not in names:
            raise UsageError(
                f"{path} has no column {column!r}; it has {there}: choose with --column"
            )
        return column
    found = next((name for name in usual if name in names), None)
    if found is None:
        raise UsageError(
            f"{path} has no column {' or '.join(map(repr, usual))}; say with --column which of "
            f"{there} tells the class"
        )
    return found


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
        """The polygons on a pixel grid.

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
        UsageError: the file can't be read, lacks the column, or holds other shapes.
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
        """Labels of full-width rows; see :meth:`window`."""
        return self.window(Window(top, 0, bottom - top, self.grid.width))

    def window(self, window: Window) -> Labels:
        """Labels of a window of the grid.

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
        """Which pixels of a window lie in which feature."""
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
    """(H, W) sums of the weights of the runs over each pixel."""
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


# Rasters


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
        """Labels of full-width rows; see :meth:`window`."""
        return self.window(Window(top, 0, bottom - top, self.dataset.width))

    def window(self, window: Window) -> Labels:
        """Labels of a window of the grid.

        Args:
            window: within the grid.

        Raises:
            SceneError: a block is damaged.
        """
        ids, known = read_class_window(self.dataset, self.path, window)
        ignored = known & np.isin(ids, self.ignore)
        return Labels(ids, known & ~ignored, np.zeros(ids.shape, bool), ignored)


@dataclass(frozen=True)
class ColorLabels(RasterLabels):
    """A mask in class colours on a pixel grid; any other colour (an edge, say) is ignored.

    Attributes:
        colors: 0xRRGGBB -> id.
        table: (256,) 0xRRGGBB of each number, of a mask with a colour table; None of one in bands.
    """

    colors: Mapping[int, int] = field(default_factory=dict)
    table: Ints | None = None

    def window(self, window: Window) -> Labels:
        """Labels of a window of the grid; see :meth:`RasterLabels.window`."""
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            bands = self.dataset.read([1] if self.table is not None else [1, 2, 3], window=area)
            there = self.dataset.dataset_mask(window=area) != 0
        except GDAL_ERRORS as error:
            raise LabelError(
                f"{self.path}: rows {window.row} to {window.bottom - 1} can't be read: "
                f"{explain_read_error(error, self.path)}"
            ) from error
        if self.table is not None:
            found = self.table[bands[0]]
        else:
            red, green, blue = bands.astype(np.int64)
            found = (red << 16) + (green << 8) + blue
        ids = np.full(found.shape, -1, np.int64)
        for color, class_id in self.colors.items():
            ids[found == color] = class_id
        known = there & (ids >= 0)
        return Labels(ids, known, np.zeros(ids.shape, bool), there & ~known)


def parse_colors(classes: Sequence[str], legend: Mapping[int, str]) -> dict[int, int]:
    """Which colour is which class: 0xRRGGBB -> id.

    Args:
        classes: ``NAME=#RRGGBB``, where the name may be an id.
        legend: id -> name of the map's classes.

    Raises:
        UsageError: one is not written so, or a colour stands for two classes.
        LabelError: a name is no class.

    Examples:
        >>> parse_colors(["Water=#0000FF"], {3: "water"})
        {255: 3}
    """
    colors: dict[int, int] = {}
    for text in classes:
        name, _, color = text.rpartition("=")
        if not name or not re.fullmatch("#[0-9A-Fa-f]{6}", color):
            raise UsageError(f"--class {text}: give NAME=#RRGGBB, a class and its colour in a mask")
        ids, _, unknown = match_classes([name], legend, ())
        if unknown:
            known = ", ".join(f"{i} {name}" for i, name in legend.items())
            raise LabelError(f"--class {text}: the map has no class {name!r}; it has {known}")
        if colors.setdefault(int(color[1:], 16), int(ids[0])) != ids[0]:
            raise UsageError(f"--class {text}: this colour is another class already; give each one")
    return colors


@contextmanager
def open_color_labels(
    path: str | Path,
    grid: PixelGrid,
    colors: Mapping[int, int],
    other: str,
    rules: Rules = LOCAL,
) -> Iterator[ColorLabels]:
    """A mask in class colours on a pixel grid.

    Args:
        path: a raster of red, green and blue, or of one band with a colour table.
        grid: any.
        colors: 0xRRGGBB -> class id.
        other: whose grid it is, a path, for messages.
        rules: what the file may point to.

    Raises:
        UsageError: the file holds no colours.
        SceneError: it can't be read.
        LabelError: labels and grid can't be brought together.
    """
    path = public_name(path)
    if is_vector(path):
        raise UsageError(f"--class gives colours of a mask, and {path} is a vector file")
    with gdal_options(path), opened(path, rules) as dataset:
        bands = dataset.count - (ColorInterp.alpha in dataset.colorinterp)
        palette = bands == 1 and dataset.colorinterp[0] == ColorInterp.palette
        if dataset.dtypes[0] != "uint8" or not (bands == 3 or palette):
            raise UsageError(
                f"--class gives colours of a mask, and {path} has {bands} bands of "
                f"{dataset.dtypes[0]}; it must have red, green and blue in uint8, or a colour table"
            )
        table = None
        if palette:  # a virtual warp has none
            table = np.full(256, -1, np.int64)
            for number, (red, green, blue, _) in dataset.colormap(1).items():
                table[number] = (red << 16) + (green << 8) + blue
        labels = ClassRaster(path, dataset, GroundGrid.of(dataset), {})
        check_crs(grid.crs is not None, other, dataset.crs is not None, path)
        with on_grid(labels, grid, other) as placed:
            yield ColorLabels(
                labels, placed, bounds_in(grid.crs, labels), colors=colors, table=table
            )


@contextmanager
def on_grid(labels: ClassRaster, grid: PixelGrid, other: str) -> Iterator[Any]:
    """A class raster's dataset on another grid: itself, or a virtual warp (nearest neighbour).

    Args:
        labels: open.
        grid: any.
        other: whose grid it is, a path, for messages.

    Raises:
        LabelError: they can't be brought together.
    """
    theirs = labels.dataset
    relative = ~theirs.transform @ grid.transform
    corners = [(0, 0), (grid.width, 0), (0, grid.height)]
    apart = max(abs(v - w) for at in corners for v, w in zip(relative @ at, at, strict=True))
    # A thousandth of a pixel is what rounding in headers leaves.
    if grid.crs == theirs.crs and (grid.height, grid.width) == theirs.shape and apart < 1e-3:
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


# Both


def check_crs(has: bool, path: str, other_has: bool, other: str) -> None:
    """Refuse a CRS on one side only.

    Raises:
        LabelError: it is so.
    """
    if has != other_has:
        bare, bound = (other, path) if has else (path, other)
        raise LabelError(
            f"{bare} has no CRS and {bound} has one, so they can't be brought together; give it "
            f"its CRS (gdal_edit.py -a_srs or ogr2ogr -a_srs)"
        )


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
    """Labels of either kind on a pixel grid.

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
