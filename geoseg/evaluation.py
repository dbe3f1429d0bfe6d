"""How right a class raster is: against labelled points, or against a raster of labels.

Points that were drawn by chance tell the accuracy of the map and the true areas of the classes,
with intervals (see :mod:`geoseg.accuracy`). A raster of labels tells how its own pixels agree with
the map (see :mod:`geoseg.metrics`), and nothing of the ground that it leaves out.
"""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj.exceptions
from numpy.typing import NDArray

from geoseg import metrics
from geoseg.accuracy import Accuracy, Estimate, estimate
from geoseg.classraster import ClassRaster, open_class_raster, survey
from geoseg.errors import EvaluationError, UsageError
from geoseg.labels import Bounds, check_crs, class_ids, open_labels, read_features, spelled
from geoseg.outputs import Staging, explain_write_error
from geoseg.scene import first_line, is_remote

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        report: as JSON has it; what is undefined is None.
        matrix: int64 (K, K), points or pixels by reference (rows) and map class (columns).
        accuracy: of labelled points; None for a raster of labels.
        warnings: what makes the numbers less sure.
    """

    report: dict[str, Any]
    matrix: NDArray[np.int64]
    accuracy: Accuracy | None
    warnings: tuple[str, ...]


def evaluate(
    raster: str | Path,
    *,
    points: str | Path | None = None,
    labels: str | Path | None = None,
    column: str | None = None,
    ignore: Sequence[int | str] = (),
    json: str | Path | None = None,
    csv: str | Path | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Compare a class raster with what is really there.

    Rasters are read strip by strip, so that memory does not depend on their height.

    Args:
        raster: class raster; its classes are those in its tags, or where it has none, those of
            its pixels.
        points: vector file of labelled points: a random sample with the map's classes as strata,
            as :func:`geoseg.sample` draws it; or
        labels: raster of labels on any grid, with the map's ids, or vector file of polygons; in
            any CRS. At the centre of each of the map's pixels the label is taken that is there.
            Where polygons of different classes overlap, there is none.
        column: of points or polygons, with the name or id of the class that is really there, empty
            where nobody looked.  [default: reference for points, class_id for polygons]
        ignore: labels that mean no class ("cloud", 0): ids, or for points and polygons names, too.
        json: file for the report.
        csv: file for a table, one measure a line.
        overwrite: replace files that exist.

    Returns:
        Accuracies and areas with 95 % intervals, or the measures of :mod:`geoseg.metrics`.

    Raises:
        UsageError: the options contradict each other, or a vector file lacks the column.
        SceneError: a raster can't be read.
        EvaluationError: map and labels don't overlap, can't be brought together, or differ in
            their classes; or the sample tells nothing.
        OutputError: a file can't be written.
    """
    if (points is None) == (labels is None):
        raise UsageError("give either points (--points) or labels (--labels)")
    truth = points if labels is None else labels
    finals = [Path(path) for path in (json, csv) if path is not None]
    inputs = {Path(p).resolve() for p in (raster, truth) if not is_remote(str(p))}  # type: ignore[arg-type]
    for final in finals:
        if final.resolve() in inputs:
            raise UsageError(f"{final} is an input of this run; give the output another name")
    with Staging(finals, overwrite=overwrite) as staging:
        with open_class_raster(raster) as opened:
            if points is not None:
                done = _by_points(opened, str(points), column or "reference", ignore)
            else:
                done = _by_labels(opened, str(labels), column, ignore)
        texts = {
            json: json_format.dumps(done.report, indent=2, ensure_ascii=False) + "\n",
            csv: _table(done.report),
        }
        for path, text in texts.items():
            if path is None:
                continue
            try:
                staging.path(Path(path)).write_text(text, encoding="utf-8", newline="")
            except OSError as error:
                raise explain_write_error(error, Path(path)) from error
        staging.publish(finals)
    return done


# Points


@dataclass(frozen=True)
class _Read:
    """The map at the points.

    Attributes:
        ids: (N,) int64 the map's class; -1 where it has none.
        inside: (N,) within the map's edges.
    """

    ids: NDArray[np.int64]
    inside: NDArray[np.bool_]


def _by_points(
    raster: ClassRaster, path: str, column: str, ignore: Sequence[int | str]
) -> Evaluation:
    frame = read_features(path, column, ("Point",), "point")
    found = survey(raster)
    classes = dict(zip(found.ids, found.names, strict=True))
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
            f"{_shown(raster.bounds)}, the points over {_shown(bounds)} (west, south, east, north "
            f"in the map's CRS)"
        )
    _check_strata(frame, column, read.ids, raster.path, path)
    warnings = []
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
    counts = metrics.confusion(reference[mapped], read.ids[mapped], found.ids, ignore_index=None)
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
                "id": found.ids[i],
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
    return Evaluation(report, counts, accuracy, tuple(warnings))


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
    for strip in raster.strips():
        here = np.flatnonzero(inside & (rows >= strip.top) & (rows < strip.bottom))
        place = rows[here] - strip.top, cols[here]
        ids[here] = np.where(strip.valid[place], strip.ids[place].astype(np.int64), -1)
    return _Read(ids, inside)


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


# A raster of labels


def _by_labels(
    raster: ClassRaster, path: str, column: str | None, ignore: Sequence[int | str]
) -> Evaluation:
    if raster.legend:
        ids, names = list(raster.legend), list(raster.legend.values())
    else:
        found = survey(raster)
        ids, names = found.ids, found.names
    counts = np.zeros((len(ids), len(ids)), np.int64)
    unmapped = np.zeros(len(ids), np.int64)
    unlabelled = ignored = disputed = 0
    stray: Counter[int] = Counter()
    strange: Counter[int] = Counter()
    classes = dict(zip(ids, names, strict=True))
    with open_labels(
        path, raster.pixels, classes, raster.path, column=column, ignore=ignore
    ) as labels:
        for strip in raster.strips():
            truth, known, contested, skipped = labels.strip(strip.top, strip.bottom)
            ignored += int(skipped.sum())
            disputed += int(contested.sum())
            unlabelled += int((strip.valid & ~(known | skipped | contested)).sum())
            for where, array, tally in (
                (known, truth, stray),
                (strip.valid, strip.ids, strange),
            ):
                unknown = array[where & ~np.isin(array, ids)]
                values, numbers = np.unique(unknown, return_counts=True)
                tally.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
            if stray or strange:
                continue  # the run fails; go on for a whole list
            both = known & strip.valid
            counts += metrics.confusion(truth[both], strip.ids[both], ids, ignore_index=None)
            lost = truth[known & ~strip.valid]
            unmapped += metrics.confusion(lost, lost, ids, ignore_index=None).diagonal()
        bounds, theirs = labels.bounds, labels.legend
    legend = ", ".join(f"{i} {name}" for i, name in zip(ids, names, strict=True))
    if strange:
        raise EvaluationError(
            f"{raster.path} holds the ids {_tally(strange)}, and the legend in its tags has only "
            f"{legend}; give the raster as it was written, or mend its tags"
        )
    if stray:
        raise EvaluationError(
            f"{path} holds the ids {_tally(stray)}, and the map's classes are {legend}; bring the "
            f"labels to the map's ids, or leave such pixels out with --ignore ID"
        )
    if not counts.sum():
        raise EvaluationError(
            f"no pixel has both a class and a label: {int(unmapped.sum())} labels lie on the map's "
            f"nodata, {ignored} are ignored; {raster.path} reaches over {_shown(raster.bounds)}, "
            f"{path} over {_shown(bounds)} (west, south, east, north in the map's CRS)"
        )
    warnings = []
    others = [
        f"{i} ({name}, {theirs[i]})"
        for i, name in zip(ids, names, strict=True)
        if i in theirs and theirs[i].casefold() != name.casefold()
    ]
    if raster.legend and others:
        warnings.append(
            f"ids are compared, and map and labels call some by other names: {', '.join(others)}"
        )
    if disputed:
        warnings.append(
            f"polygons of different classes overlap in {disputed} pixels; these don't count"
        )
    if unmapped.any():
        lost_pixels = int(unmapped.sum())
        warnings.append(f"{lost_pixels} labelled pixels have no class on the map; they don't count")
    measures = {name: _number(measure(counts)) for name, measure in metrics.MEASURES.items()}
    per_class = {name: measure(counts) for name, measure in metrics.CLASS_MEASURES.items()}
    report = {
        "map": raster.path,
        "labels": path,
        "counted": {
            "pixels": int(counts.sum()),
            "unlabelled": unlabelled,
            "ignored": ignored,
            "disputed": disputed,
            "on_nodata": int(unmapped.sum()),
        },
        "measures": measures,
        "classes": [
            {
                "id": ids[i],
                "name": names[i],
                "labelled_pixels": int(counts[i].sum()),
                "mapped_pixels": int(counts[:, i].sum()),
                "labels_on_nodata": int(unmapped[i]),
                **{name: _number(values[i]) for name, values in per_class.items()},
            }
            for i in range(len(ids))
        ],
        "counts": {"rows": "labels", "columns": "map", "pixels": counts.tolist()},
        "warnings": warnings,
    }
    return Evaluation(report, counts, None, tuple(warnings))


def _tally(counts: Counter[int]) -> str:
    """Ids and pixels for a message."""
    shown = ", ".join(f"{i} ({n} px)" for i, n in sorted(counts.items())[:8])
    return shown + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")


def _shown(bounds: Bounds) -> str:
    """Bounds for a message."""
    return ", ".join(f"{v:.7g}" for v in bounds)


def _number(value: Any) -> float | None:
    """None for what is undefined: JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


def _numbers(found: Estimate, place: Any = ()) -> dict[str, float | None]:
    return {
        "value": _number(found.value[place]),
        "standard_error": _number(found.standard_error[place]),
        "low": _number(found.low[place]),
        "high": _number(found.high[place]),
    }


def _table(report: dict[str, Any]) -> str:
    """The report as CSV: one measure a line, without class where it is of the whole map."""
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    writer.writerow(("class_id", "class_name", "measure", "value", "standard_error", "low", "high"))
    whole = report.get("measures") or {"overall_accuracy": report["overall_accuracy"]}
    for (class_id, name), values in [
        (("", ""), whole),
        *(((c["id"], c["name"]), c) for c in report["classes"]),
    ]:
        for measure, value in values.items():
            if measure in ("id", "name"):
                continue
            if measure in ("area", "mapped_area"):
                measure = f"{measure}_{report['area_unit']}"
            row = list(value.values()) if isinstance(value, dict) else [value, None, None, None]
            writer.writerow((class_id, name, measure, *row))  # csv writes None as nothing
    return text.getvalue()
