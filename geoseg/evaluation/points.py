"""Points that somebody looked at, read and judged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pyproj.exceptions
from numpy.typing import NDArray

from geoseg.errors import EvaluationError
from geoseg.evaluation import metrics
from geoseg.evaluation.area_estimates import Estimate, estimate
from geoseg.evaluation.by_labels import number, shown
from geoseg.evaluation.thumbnails import Pictures
from geoseg.labels.classes import class_ids, match_classes, spelled
from geoseg.labels.vector_files import read_features
from geoseg.labels.window import Bounds, check_crs
from geoseg.rasters.class_raster import MAX_ID, ClassRaster, Survey, survey
from geoseg.scene.scene import first_line
from geoseg.scene.sources import Rules

if TYPE_CHECKING:
    pass
from geoseg.evaluation.result import Evaluation

__all__ = ["by_points"]


@dataclass(frozen=True)
class _Read:
    """The map at the points.

    Attributes:
        ids: (N,) int64 the map's class; -1 where it has none.
        inside: (N,) within the map's edges.
        pictures: of the map.
    """

    ids: NDArray[np.int64]
    inside: NDArray[np.bool_]
    pictures: Pictures


def by_points(
    raster: ClassRaster, path: str, column: str, ignore: Sequence[int | str], rules: Rules
) -> tuple[Evaluation, Pictures]:
    """Judge a map by points.

    Args:
        raster: the map.
        path: of the points.
        column: that has their classes.
        ignore: names or ids that mean no class.
        rules: what the file may point to.

    Returns:
        What was found, and pictures of the map.

    Raises:
        GeosegError: the points can't be read, or say nothing of the map.
    """
    frame = read_features(path, column, ("Point",), "point", rules)
    found = survey(raster)
    classes = dict(zip(found.ids, found.names, strict=True))
    omitted = _omitted(frame[column], classes, ignore)
    found = _with_omitted(found, omitted)
    classes |= omitted
    reference, ignored = class_ids(frame[column], classes, ignore, path)
    asked = len(frame)
    looked = reference >= 0
    frame, reference = frame[looked], reference[looked]
    if not len(frame):
        raise EvaluationError(
            f"{path}: none of its {asked} points has a class in the column {column!r}; fill it "
            f"with names ({', '.join(found.names)}) or ids"
        )
    cols, rows, bounds = _pixels_of(frame, raster, path)
    read = _read_map(raster, cols, rows)
    mapped = read.ids >= 0
    outside, on_nodata = int((~read.inside).sum()), int((read.inside & ~mapped).sum())
    if not mapped.any():
        raise EvaluationError(
            f"none of the {len(frame)} labelled points of {path} lies on a class of {raster.path}: "
            f"{outside} are outside and {on_nodata} on nodata; the map reaches over "
            f"{shown(raster.bounds)}, the points over {shown(bounds)} (west, south, east, north "
            f"in the map's CRS)"
        )
    _check_strata(frame, column, read.ids, raster.path, path)
    warnings = []
    if omitted:
        named = ", ".join(f"{name} ({int((reference == i).sum())})" for i, name in omitted.items())
        warnings.append(
            f"the map has no class {named}: it is wrong at these points, and they count so; mend "
            f"what is misspelt, and leave out with --ignore only what is no class (a cloud, say)"
        )
    if outside or on_nodata:
        warnings.append(
            f"{outside} labelled points lie outside the map and {on_nodata} on its nodata; they "
            f"are left out"
        )
    pairs = np.column_stack((read.ids, rows, cols))[mapped]
    distinct = np.unique(pairs, axis=0)
    twice = len(pairs) - len(distinct)
    if twice:
        warnings.append(
            f"{twice} labelled points lie in a pixel that holds another one; a random sample takes "
            f"each pixel once, so the intervals are too narrow"
        )
    places = {i: place for place, i in enumerate(found.ids)}
    truth, called = (np.array([places[i] for i in v[mapped]]) for v in (reference, read.ids))
    counts = metrics.confusion(truth, called, len(places), ignore_index=None)
    seen = (distinct[:, :1] == np.asarray(found.ids)).sum(axis=0)
    complete = seen == found.pixels
    single = np.flatnonzero((counts.sum(axis=0) == 1) & ~complete)
    if len(single):
        warnings.append(
            f"a single labelled point lies on {', '.join(found.names[i] for i in single)}: "
            f"standard errors that depend on it are unknown; label at least 2 points of each "
            f"mapped class"
        )
    if found.area_m2 is None:
        warnings.append("the map's CRS gives no areas on the ground; areas are pixels")
    accuracy = estimate(counts.T, found.areas, found.names, complete=complete)
    report = {
        "map": raster.path,
        "points": path,
        "column": column,
        "counted": {
            "points": asked,
            "used": int(mapped.sum()),
            "unlabelled": asked - len(frame) - ignored,
            "ignored": ignored,
            "outside": outside,
            "on_nodata": on_nodata,
        },
        "area_unit": "px" if found.area_m2 is None else "m2",
        "confidence_level": 0.95,
        "overall_accuracy": _numbers(accuracy.overall),
        "classes": [
            {
                "id": None if found.ids[i] > MAX_ID else found.ids[i],
                "name": found.names[i],
                "points": int(counts[:, i].sum()),
                "reference_points": int(counts[i].sum()),
                "mapped_pixels": int(found.pixels[i]),
                "mapped_area": float(found.areas[i]),
                "area": _numbers(accuracy.areas, i),
                "users_accuracy": _numbers(accuracy.users, i),
                "producers_accuracy": _numbers(accuracy.producers, i),
            }
            for i in range(len(found.ids))
        ],
        "counts": {"rows": "reference", "columns": "map", "points": counts.tolist()},
        "area_shares": {"rows": "map", "columns": "reference", "shares": accuracy.matrix.tolist()},
        "warnings": warnings,
    }
    return Evaluation(report, counts, accuracy, tuple(warnings)), read.pictures


def _omitted(
    values: Iterable[Any], classes: Mapping[int, str], ignore: Sequence[int | str]
) -> dict[int, str]:
    """Classes of the reference that the map has not, as id -> name with ids beyond a map's.

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
    """A survey with further classes, of which the map has no pixel."""
    none = np.zeros(len(omitted))
    return replace(
        found,
        ids=[*found.ids, *omitted],
        names=[*found.names, *omitted.values()],
        pixels=np.append(found.pixels, none.astype(np.int64)),
        area_m2=None if found.area_m2 is None else np.append(found.area_m2, none),
    )


def _pixels_of(
    frame: geopandas.GeoDataFrame, raster: ClassRaster, path: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], Bounds]:
    """Columns and rows (N,) of the map's pixels under the points, and the points' bounds.

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


def _read_map(raster: ClassRaster, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> _Read:
    """The map's class at pixels, in one pass."""
    height, width = raster.grid.height, raster.grid.width
    inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    ids = np.full(len(cols), -1, np.int64)
    pictures = Pictures(height, width)
    for strip in raster.strips():
        pictures.add(strip.top, strip.ids, strip.valid)
        here = np.flatnonzero(inside & (rows >= strip.top) & (rows < strip.bottom))
        place = rows[here] - strip.top, cols[here]
        ids[here] = np.where(strip.valid[place], strip.ids[place].astype(np.int64), -1)
    return _Read(ids, inside, pictures)


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


def _numbers(found: Estimate, place: Any = ()) -> dict[str, float | None]:
    return {
        "value": number(found.value[place]),
        "standard_error": number(found.standard_error[place]),
        "low": number(found.low[place]),
        "high": number(found.high[place]),
    }
