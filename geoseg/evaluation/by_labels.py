"""A class raster against labels, in one pass: all that is said of their agreement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import EvaluationError, UsageError
from geoseg.evaluation import metrics
from geoseg.evaluation.boundary_f1 import Boundaries, BoundaryScores
from geoseg.evaluation.calibration import BINS, Calibration, Probabilities, Reliability, open_probs
from geoseg.evaluation.polygon_scores import Objects, ObjectScores
from geoseg.evaluation.thumbnails import Pictures
from geoseg.geo.window import Window
from geoseg.labels.colours import open_color_labels, parse_colors
from geoseg.labels.labels import RasterLabels, open_labels
from geoseg.labels.polygons import PlacedPolygons
from geoseg.labels.window import Bounds
from geoseg.rasters.class_raster import ClassRaster, MapStrip, survey
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["Comparison", "compare", "number", "shown"]

#: The tolerance of borders where the user says none, px.
TOLERANCE_PIXELS = 2
#: Numbers of probabilities that are looked at at a time.
PROBS_CHUNK = 1 << 22


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        report: as JSON has it; what is undefined is None.
        matrix: int64 (K, K), pixels by label (rows) and map class (columns).
        warnings: what makes the numbers less sure.
        pictures: of map and labels.
    """

    report: dict[str, Any]
    matrix: NDArray[np.int64]
    warnings: tuple[str, ...]
    pictures: Pictures


class _Pass:
    """What is added up strip by strip."""

    def __init__(
        self, raster: ClassRaster, classes: dict[int, str], labels: RasterLabels | PlacedPolygons
    ) -> None:
        self.ids = list(classes)
        size = len(self.ids)
        self.table = np.full(65537, -1, np.int16)  # the last entry: what is no id at all
        self.table[self.ids] = np.arange(size)
        self.labels = labels
        self.counts = np.zeros((size, size), np.int64)
        self.unmapped = np.zeros(size, np.int64)
        self.unlabelled = self.ignored = self.disputed = 0
        self.stray: Counter[int] = Counter()
        self.strange: Counter[int] = Counter()
        self.pictures = Pictures(raster.grid.height, raster.grid.width)
        self.boundaries: Boundaries | None = None
        self.objects: Objects | None = None
        self.probs: Probabilities | None = None
        self.reliability: Reliability | None = None

    def add(self, strip: MapStrip) -> None:
        truth, known, disputed, ignored = self.labels.strip(strip.top, strip.bottom)
        self.ignored += int(ignored.sum())
        self.disputed += int(disputed.sum())
        self.unlabelled += int((strip.valid & ~(known | ignored | disputed)).sum())
        labelled = self._places(truth, known, self.stray)
        mapped = self._places(strip.ids, strip.valid, self.strange)
        if self.stray or self.strange:
            return  # the run fails; go on for a whole list
        both = known & strip.valid
        size = len(self.ids)
        self.counts += metrics.confusion(labelled[both], mapped[both], size, ignore_index=None)
        self.unmapped += np.bincount(labelled[known & ~strip.valid], minlength=size)
        self.pictures.add(strip.top, strip.ids, strip.valid, truth, known)
        labelled[~both] = -1
        mapped[~both] = -1
        if self.boundaries is not None:
            self.boundaries.add(labelled, mapped)
        if self.objects is not None and isinstance(self.labels, PlacedPolygons):
            window = Window(strip.top, 0, len(both), both.shape[1])
            self.objects.add(self.labels.members(window), mapped)
        if self.probs is not None and self.reliability is not None:
            for top, bottom in _thin(both.shape, size):
                rows = slice(top, bottom)
                probs, there = self.probs.rows(strip.top + top, strip.top + bottom)
                used = both[rows] & there
                index = np.flatnonzero(used) + (strip.top + top) * both.shape[1]
                self.reliability.add(
                    probs[:, used].T,
                    labelled[rows][used].astype(np.int64),
                    mapped[rows][used].astype(np.int64),
                    index,
                )

    def _places(
        self, ids: NDArray[Any], where: NDArray[np.bool_], unknown: Counter[int]
    ) -> NDArray[np.int16]:
        """(H, W) places of the classes, -1 elsewhere; ids that are no class are tallied."""
        inside = where & (ids >= 0) & (ids <= 65535)
        places = self.table[np.where(inside, ids.astype(np.int64), 65536)]
        values, numbers = np.unique(ids[where & (places < 0)], return_counts=True)
        unknown.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        return places


def _thin(shape: tuple[int, ...], classes: int) -> Iterator[tuple[int, int]]:
    """Top and bottom of parts of a strip that hold not too many probabilities."""
    rows = max(1, PROBS_CHUNK // (shape[1] * classes))
    for top in range(0, shape[0], rows):
        yield top, min(top + rows, shape[0])


def compare(
    raster: ClassRaster,
    path: str,
    *,
    column: str | None = None,
    ignore: Sequence[int | str] = (),
    colors: Sequence[str] = (),
    probs: str | Path | None = None,
    tolerance: float | None = None,
    rules: Rules = LOCAL,
) -> Comparison:
    """Compare a class raster with labels.

    Args:
        raster: open.
        path: of the labels, raster or polygons.
        column: of polygons, with the class.
        ignore: labels that mean no class.
        colors: of a mask in class colours, each as NAME=#RRGGBB.
        probs: raster of the map's probabilities.
        tolerance: of borders, metres; None for two of the map's pixels.
        rules: what the files may point to.

    Raises:
        UsageError: an option does not fit.
        SceneError: a raster can't be read.
        EvaluationError: the two can't be compared.
    """
    if raster.legend:
        classes = raster.legend
    else:
        found = survey(raster)
        classes = dict(zip(found.ids, found.names, strict=True))
    warnings: list[str] = []
    with ExitStack() as stack:
        labels = stack.enter_context(
            open_color_labels(
                path, raster.pixels, parse_colors(colors, classes), raster.path, rules
            )
            if colors
            else open_labels(
                path,
                raster.pixels,
                classes,
                raster.path,
                column=column,
                ignore=ignore,
                rules=rules,
            )
        )
        done = _Pass(raster, classes, labels)
        gsd = raster.pixels.gsd
        if gsd is not None:
            reach = _tolerance(tolerance, gsd, raster)
            done.boundaries = Boundaries(len(classes), gsd, reach)
        elif tolerance is not None:
            raise UsageError(
                f"{raster.path} has no CRS that gives metres, so that a tolerance of {tolerance:g} "
                f"m means nothing; leave --boundary-tolerance out, or give the map its CRS"
            )
        if isinstance(labels, PlacedPolygons):
            own = done.table[labels.source.ids].astype(np.int64)
            done.objects = Objects(own, len(classes))
        if probs is not None:
            done.probs = stack.enter_context(open_probs(probs, raster, classes, rules))
            done.reliability = Reliability(len(classes), done.probs.least)
        for strip in raster.strips():
            done.add(strip)
        _check(done, raster, classes, path, labels.bounds)
    warnings += _doubts(done, raster, classes)
    report: dict[str, Any] = {
        "map": raster.path,
        "labels": path,
        "counted": {
            "pixels": int(done.counts.sum()),
            "unlabelled": done.unlabelled,
            "ignored": done.ignored,
            "disputed": done.disputed,
            "on_nodata": int(done.unmapped.sum()),
        },
        "measures": {name: number(f(done.counts)) for name, f in metrics.MEASURES.items()},
        "classes": _classes(done, classes),
        "counts": {"rows": "labels", "columns": "map", "pixels": done.counts.tolist()},
    }
    if done.boundaries is not None:
        _add_boundaries(report, done.boundaries.finish(), reach)
    if done.objects is not None and isinstance(labels, PlacedPolygons):
        _add_objects(report, done.objects.finish(), labels)
    if done.reliability is not None:
        calibration = done.reliability.finish()
        _add_calibration(report, calibration, str(probs))
        warnings += _doubts_of_probs(calibration, int(done.counts.sum()))
    report["warnings"] = warnings
    return Comparison(report, done.counts, tuple(warnings), done.pictures)


def _tolerance(asked: float | None, gsd: tuple[float, float], raster: ClassRaster) -> float:
    """The tolerance of borders, metres.

    Raises:
        UsageError: all of the map would be within it, and rows wait in memory for as long as it is.
    """
    usual = TOLERANCE_PIXELS * max(gsd)
    if asked is None:
        return usual
    farthest = math.hypot(raster.grid.width * gsd[0], raster.grid.height * gsd[1])
    if asked > farthest:
        raise UsageError(
            f"the boundary tolerance is {asked:g} m and {raster.path} measures {farthest:.6g} m "
            f"from corner to corner; a tolerance is some pixels wide: give --boundary-tolerance "
            f"{usual:.3g}, say"
        )
    return asked


def _check(
    done: _Pass, raster: ClassRaster, classes: dict[int, str], path: str, bounds: Bounds
) -> None:
    """Refuse what can't be compared.

    Raises:
        EvaluationError: ids are no class, or no pixel has both a class and a label.
    """
    legend = ", ".join(f"{i} {name}" for i, name in classes.items())
    if done.strange:
        raise EvaluationError(
            f"{raster.path} holds the ids {_tally(done.strange)}, and the legend in its tags has "
            f"only {legend}; give the raster as it was written, or mend its tags"
        )
    if done.stray:
        raise EvaluationError(
            f"{path} holds the ids {_tally(done.stray)}, and the map's classes are {legend}; bring "
            f"the labels to the map's ids, or leave such pixels out with --ignore ID"
        )
    if not done.counts.sum():
        raise EvaluationError(
            f"no pixel has both a class and a label: {int(done.unmapped.sum())} labels lie on the "
            f"map's nodata, {done.ignored} are ignored; {raster.path} reaches over "
            f"{shown(raster.bounds)}, {path} over {shown(bounds)} (west, south, east, north in the "
            f"map's CRS)"
        )


def _doubts(done: _Pass, raster: ClassRaster, classes: dict[int, str]) -> list[str]:
    """What makes the counts less sure."""
    doubts, theirs = [], done.labels.legend
    others = [
        f"{i} ({name}, {theirs[i]})"
        for i, name in classes.items()
        if i in theirs and theirs[i].casefold() != name.casefold()
    ]
    if raster.legend and others:
        doubts.append(
            f"ids are compared, and map and labels call some by other names: {', '.join(others)}"
        )
    if isinstance(done.labels, PlacedPolygons) and done.labels.lost:
        doubts.append(f"{done.labels.lost} polygons have no place in the map's CRS")
    if done.disputed:
        doubts.append(
            f"polygons of different classes overlap in {done.disputed} pixels; these don't count"
        )
    if done.unmapped.any():
        lost = int(done.unmapped.sum())
        doubts.append(f"{lost} labelled pixels have no class on the map; they don't count")
    return doubts


def _doubts_of_probs(found: Calibration, pixels: int) -> list[str]:
    doubts = []
    if found.unlikely:
        doubts.append(
            f"in {found.unlikely} pixels the map's class is not the most probable one; are the "
            f"probabilities those of this map?"
        )
    if found.pixels.sum() < pixels:
        doubts.append(f"{pixels - int(found.pixels.sum())} compared pixels have no probabilities")
    if not math.isfinite(found.temperature):
        doubts.append(
            "no temperature of 0.02 to 50 fits: all pixels are right, or probabilities tell nothing"
        )
    return doubts


def _classes(done: _Pass, classes: dict[int, str]) -> list[dict[str, Any]]:
    per_class = {name: measure(done.counts) for name, measure in metrics.CLASS_MEASURES.items()}
    return [
        {
            "id": i,
            "name": name,
            "labelled_pixels": int(done.counts[k].sum()),
            "mapped_pixels": int(done.counts[:, k].sum()),
            "labels_on_nodata": int(done.unmapped[k]),
            **{measure: number(values[k]) for measure, values in per_class.items()},
        }
        for k, (i, name) in enumerate(classes.items())
    ]


def _add_boundaries(report: dict[str, Any], found: BoundaryScores, tolerance: float) -> None:
    report["boundaries"] = {"tolerance_m": tolerance}
    report["measures"]["mean_boundary_f1"] = number(found.mean_f1)
    for k, entry in enumerate(report["classes"]):
        entry["labelled_border_pixels"] = int(found.labelled[k])
        entry["mapped_border_pixels"] = int(found.mapped[k])
        entry["boundary_precision"] = number(found.precision[k])
        entry["boundary_recall"] = number(found.recall[k])
        entry["boundary_f1"] = number(found.f1[k])


def _add_objects(report: dict[str, Any], found: ObjectScores, labels: PlacedPolygons) -> None:
    def values(k: int) -> dict[str, Any]:
        return {
            "polygons": int(found.polygons[k]),
            "polygons_right": number(found.right[k]),
            "polygons_mean_share": number(found.mean_share[k]),
            "polygons_median_share": number(found.median_share[k]),
        }

    source = labels.source
    report["column"] = source.column
    report["objects"] = {
        "features": source.features,
        "unlabelled": source.unlabelled,
        "ignored": source.ignored,
        "without_pixel": int(found.empty[-1]),
        **values(-1),
    }
    report["measures"].update({k: v for k, v in values(-1).items() if k != "polygons"})
    for k, entry in enumerate(report["classes"]):
        entry.update(values(k))


def _add_calibration(report: dict[str, Any], found: Calibration, probs: str) -> None:
    report["calibration"] = {
        "probs": probs,
        "pixels": int(found.pixels.sum()),
        "ece": number(found.ece),
        "mce": number(found.mce),
        "brier": number(found.brier),
        "nll": number(found.nll),
        "bins": [
            {
                "low": k / BINS,
                "high": (k + 1) / BINS,
                "pixels": int(found.pixels[k]),
                "confidence": number(found.confidence[k]),
                "accuracy": number(found.accuracy[k]),
            }
            for k in range(BINS)
        ],
        "temperature": {
            "value": number(found.temperature),
            "sampled_pixels": found.sampled,
            "ece_before": number(found.ece_sampled),
            "ece_after": number(found.ece_after),
            "nll_after": number(found.nll_after),
        },
    }
    for name in ("ece", "mce", "brier", "nll"):
        report["measures"][name] = report["calibration"][name]
    report["measures"]["temperature"] = report["calibration"]["temperature"]["value"]


def _tally(counts: Counter[int]) -> str:
    """Ids and pixels for a message."""
    listed = ", ".join(f"{i} ({n} px)" for i, n in sorted(counts.items())[:8])
    return listed + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")


def shown(bounds: Bounds) -> str:
    """Bounds for a message."""
    return ", ".join(f"{v:.7g}" for v in bounds)


def number(value: Any) -> float | None:
    """None for what is undefined: JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
