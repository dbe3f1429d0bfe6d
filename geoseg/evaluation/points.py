"""Points that somebody looked at, read and judged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import geopandas
import numpy as np
import pyproj.exceptions
from numpy.typing import NDArray

from geoseg.core.gdal import first_line
from geoseg.errors import EvaluationError
from geoseg.evaluation import metrics
from geoseg.evaluation.area_estimates import estimate
from geoseg.evaluation.options import EvaluateOptions
from geoseg.evaluation.report import estimates, shown_bounds
from geoseg.evaluation.result import Evaluation
from geoseg.evaluation.thumbnails import Pictures
from geoseg.labels.classes import class_ids, match_classes, spelled
from geoseg.labels.vector_files import read_features
from geoseg.labels.window import Bounds, check_crs
from geoseg.rasters.class_raster import MAX_ID, ClassRaster, Survey, survey

__all__ = ["by_points", "pixels_of"]


@dataclass(frozen=True)
class _Labelled:
    """Points with a class.

    Attributes:
        frame: N points.
        column: that has their classes.
        reference: (N,) ids of these.
        found: the map's classes, and those that only points have.
        omitted: id -> name of these.
        asked: points in the file.
        ignored: of them, those whose label means no class.
    """

    frame: geopandas.GeoDataFrame
    column: str
    reference: NDArray[np.int64]
    found: Survey
    omitted: dict[int, str]
    asked: int
    ignored: int


@dataclass(frozen=True)
class _Read:
    """The map at the points.

    Attributes:
        ids: (N,) int64 the map's class; -1 where it has none.
        inside: (N,) within the map's edges.
        pixels: (N, 2) row and column.
        pictures: of the map.
        not_sure: how many points lie where the map is not sure.
    """

    ids: NDArray[np.int64]
    inside: NDArray[np.bool_]
    pixels: NDArray[np.int64]
    pictures: Pictures
    not_sure: int = 0

    @property
    def outside(self) -> int:
        """How many points lie outside the map."""
        return int((~self.inside).sum())

    @property
    def on_nodata(self) -> int:
        """How many points lie on the map's nodata."""
        return int((self.inside & (self.ids < 0)).sum()) - self.not_sure


def by_points(
    raster: ClassRaster, path: str, options: EvaluateOptions
) -> tuple[Evaluation, Pictures]:
    """Judge a map by points.

    Args:
        raster: the map.
        path: of the points.
        options: how the points are read.

    Returns:
        What was found, and pictures of the map.

    Raises:
        GeosegError: the points can't be read, or nothing can be said from them.
    """
    points = _read_points(raster, path, options)
    read = _read_map(raster, points.frame, path)
    _check_strata(points.frame, points.column, read.ids, raster.path, path)
    found, mapped = points.found, read.ids >= 0
    distinct = np.unique(np.column_stack((read.ids, read.pixels))[mapped], axis=0)
    places = {i: place for place, i in enumerate(found.ids)}
    truth, called = (np.array([places[i] for i in v[mapped]]) for v in (points.reference, read.ids))
    counts = metrics.confusion(truth, called, len(places), ignore_index=None)
    seen = (distinct[:, :1] == np.asarray(found.ids)).sum(axis=0)
    complete = seen == found.pixels
    warnings = _doubts(points, read, int(mapped.sum()) - len(distinct))
    warnings += _doubts_of_classes(found, counts, complete)
    accuracy = estimate(counts.T, found.areas, found.names, complete=complete)
    report = {
        "map": raster.path,
        "points": path,
        "column": points.column,
        "counted": {
            "points": points.asked,
            "used": int(mapped.sum()),
            "unlabelled": points.asked - len(points.frame) - points.ignored,
            "ignored": points.ignored,
            "outside": read.outside,
            "on_nodata": read.on_nodata,
            "not_sure": read.not_sure,
        },
        **estimates(found, counts, accuracy),
        "warnings": warnings,
    }
    return Evaluation(report, counts, accuracy, tuple(warnings)), read.pictures


def _read_points(raster: ClassRaster, path: str, options: EvaluateOptions) -> _Labelled:
    """Read points, and find the class of each.

    Raises:
        UsageError: the file has no such column.
        EvaluationError: no point has a class.
    """
    column = options.column or "reference"
    frame = read_features(path, column, ("Point",), "point", options.rules)
    found = survey(raster)
    classes = dict(zip(found.ids, found.names, strict=True))
    omitted = _omitted(frame[column], classes, options.ignore)
    found = _with_omitted(found, omitted)
    reference, ignored = class_ids(frame[column], classes | omitted, options.ignore, path)
    looked = reference >= 0
    if not looked.any():
        raise EvaluationError(
            f"{path}: none of its {len(frame)} points has a class in the column {column!r}; fill "
            f"it with names ({', '.join(found.names)}) or ids"
        )
    return _Labelled(frame[looked], column, reference[looked], found, omitted, len(frame), ignored)


def _doubts(points: _Labelled, read: _Read, twice: int) -> list[str]:
    """Say what of the points makes the numbers less sure; ``twice`` share a pixel with another."""
    doubts = []
    if points.omitted:
        named = ", ".join(
            f"{name} ({int((points.reference == i).sum())})" for i, name in points.omitted.items()
        )
        doubts.append(
            f"the map has no class {named}: it is wrong at these points, and they count so; "
            f"correct what is misspelt, and leave out with --ignore only what is no class (a "
            f"cloud, say)"
        )
    if read.outside or read.on_nodata:
        doubts.append(
            f"{read.outside} labelled points lie outside the map and {read.on_nodata} on its "
            f"nodata; they are left out"
        )
    if read.not_sure:
        doubts.append(
            f"the map is not sure at {read.not_sure} labelled points (--min-confidence): they are "
            f"counted apart, and accuracies and areas are those of the other ground"
        )
    if twice:
        doubts.append(
            f"{twice} labelled points lie in a pixel that holds another one; a random sample takes "
            f"each pixel once, so the intervals are too narrow"
        )
    return doubts


def _doubts_of_classes(
    found: Survey, counts: NDArray[np.int64], complete: NDArray[np.bool_]
) -> list[str]:
    """Say what of the classes makes the numbers less sure."""
    doubts = []
    single = np.flatnonzero((counts.sum(axis=0) == 1) & ~complete)
    if len(single):
        doubts.append(
            f"a single labelled point lies on {', '.join(found.names[i] for i in single)}: "
            f"standard errors that depend on it are unknown; label at least 2 points of each "
            f"mapped class"
        )
    if found.area_m2 is None:
        doubts.append("the map's CRS gives no areas on the ground; areas are pixels")
    return doubts


def _omitted(
    values: Iterable[Any], classes: Mapping[int, str], ignore: Sequence[int | str]
) -> dict[int, str]:
    """Find classes that only points have: id -> name, with ids beyond a map's.

    There are none where no point is of a class of the map: then the map's names are others.
    """
    ids, _, unknown = match_classes(values, classes, ignore)
    if not (ids >= 0).any():
        return {}
    # A name that several classes of the map share is none of these.
    taken = {spelled(name) for name in classes.values()}
    named: dict[str, str] = {}
    for text in unknown:
        if spelled(text) not in taken:
            named.setdefault(spelled(text), text)
    return dict(enumerate(named.values(), MAX_ID + 1))


def _with_omitted(found: Survey, omitted: Mapping[int, str]) -> Survey:
    """Add classes to a survey, of which the map has no pixel."""
    none = np.zeros(len(omitted))
    return replace(
        found,
        ids=[*found.ids, *omitted],
        names=[*found.names, *omitted.values()],
        pixels=np.append(found.pixels, none.astype(np.int64)),
        area_m2=None if found.area_m2 is None else np.append(found.area_m2, none),
    )


def pixels_of(
    frame: geopandas.GeoDataFrame, raster: ClassRaster, path: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], Bounds]:
    """Find columns and rows (N,) of the map's pixels under points, and the points' bounds.

    A point without a place in the map's CRS gets the pixel (-1, -1), which is outside.

    Raises:
        EvaluationError: one side has no CRS, or they can't be brought together.
    """
    check_crs(raster.grid.file_crs is not None, raster.path, frame.crs is not None, path)
    if frame.crs is not None:
        try:
            frame = frame.to_crs(raster.grid.file_crs)
        except pyproj.exceptions.ProjError as error:
            raise EvaluationError(
                f"the points of {path} can't be brought to the CRS of {raster.path} "
                f"({first_line(error)}); give both a geographic or projected CRS"
            ) from error
    xy = np.column_stack((frame.geometry.x, frame.geometry.y))
    placed = np.isfinite(xy).all(axis=1)
    a, b, c, d, e, f = tuple(~raster.dataset.transform)[:6]
    x, y = np.where(placed[:, None], xy, 0.0).T
    cols = np.where(placed, np.floor(a * x + b * y + c), -1).clip(-1, raster.grid.width)
    rows = np.where(placed, np.floor(d * x + e * y + f), -1).clip(-1, raster.grid.height)
    if not placed.any():
        return cols.astype(np.int64), rows.astype(np.int64), (math.nan,) * 4
    (west, south), (east, north) = xy[placed].min(axis=0), xy[placed].max(axis=0)
    bounds = (float(west), float(south), float(east), float(north))
    return cols.astype(np.int64), rows.astype(np.int64), bounds


def _read_map(raster: ClassRaster, frame: geopandas.GeoDataFrame, path: str) -> _Read:
    """Read the map's class at points, in one pass.

    Raises:
        EvaluationError: no point lies on a class.
    """
    cols, rows, bounds = pixels_of(frame, raster, path)
    height, width = raster.grid.height, raster.grid.width
    inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    ids = np.full(len(cols), -1, np.int64)
    pictures = Pictures(height, width)
    for strip in raster.strips():
        pictures.add(strip.top, strip.ids, strip.valid)
        here = np.flatnonzero(inside & (rows >= strip.top) & (rows < strip.bottom))
        place = rows[here] - strip.top, cols[here]
        ids[here] = np.where(strip.valid[place], strip.ids[place].astype(np.int64), -1)
    unsure = np.zeros(len(ids), bool) if raster.not_sure is None else ids == raster.not_sure
    ids[unsure] = -1
    read = _Read(ids, inside, np.column_stack((rows, cols)), pictures, int(unsure.sum()))
    if not (ids >= 0).any():
        raise EvaluationError(
            f"none of the {len(frame)} labelled points of {path} lies on a class of {raster.path}: "
            f"{read.outside} are outside, {read.on_nodata} on nodata and {read.not_sure} where it "
            f"is not sure; the map reaches over {shown_bounds(raster.bounds)}, the points over "
            f"{shown_bounds(bounds)} (west, south, east, north in the map's CRS)"
        )
    return read


def _check_strata(
    frame: geopandas.GeoDataFrame, column: str, ids: NDArray[np.int64], map_path: str, path: str
) -> None:
    """Refuse points that were drawn from another map.

    Raises:
        EvaluationError: their class_id, as it was mapped then, is another on this map.
    """
    if "class_id" not in frame.columns or column == "class_id":
        return
    drawn = np.array([spelled(value) for value in frame["class_id"]], dtype=object)
    now = np.array([str(i) for i in ids], dtype=object)
    moved = int(((drawn != "") & (ids >= 0) & (drawn != now)).sum())
    if moved:
        raise EvaluationError(
            f"{moved} of {len(frame)} labelled points of {path} were drawn on another class "
            f"(class_id) than {map_path} has there; the classes that points were drawn by must be "
            f"those of the map: give the map that the sample was drawn from, or draw a new sample"
        )
