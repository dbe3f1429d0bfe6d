"""A class raster against labels, in one pass: all that is said of their agreement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import EvaluationError, UsageError
from geoseg.evaluation import metrics
from geoseg.evaluation.boundary_f1 import Boundaries
from geoseg.evaluation.calibration import Calibration, Reliability
from geoseg.evaluation.options import EvaluateOptions
from geoseg.evaluation.polygon_scores import Objects
from geoseg.evaluation.probabilities import Probabilities, open_probs
from geoseg.evaluation.report import (
    add_boundaries,
    add_calibration,
    add_objects,
    class_entries,
    number,
    shown_bounds,
    shown_ids,
)
from geoseg.evaluation.result import Evaluation
from geoseg.evaluation.thumbnails import Pictures
from geoseg.geo.window import Window
from geoseg.labels.colours import open_color_labels, parse_colors
from geoseg.labels.labels import RasterLabels, open_labels
from geoseg.labels.polygons import PlacedPolygons
from geoseg.labels.window import Bounds
from geoseg.rasters.class_raster import ClassRaster, MapStrip, survey

__all__ = ["by_labels"]

#: The tolerance of borders where the user says none, px.
TOLERANCE_PIXELS = 2
#: Numbers of probabilities that are looked at at a time.
PROBS_CHUNK = 1 << 22


def by_labels(
    raster: ClassRaster, path: str, options: EvaluateOptions, probs: str | Path | None
) -> tuple[Evaluation, Pictures]:
    """Judge a map by labels.

    Args:
        raster: the map, open.
        path: of the labels, raster or polygons.
        options: how the labels are read, and the tolerance of borders.
        probs: raster of the map's probabilities, or None.

    Returns:
        What was found, and pictures of map and labels.

    Raises:
        UsageError: an option does not fit.
        SceneError: a raster can't be read.
        EvaluationError: the two can't be compared.
    """
    classes = {i: name for i, name in raster.legend.items() if i != raster.not_sure}
    if not classes:
        found = survey(raster)
        classes = dict(zip(found.ids, found.names, strict=True))
    with ExitStack() as stack:
        labels = stack.enter_context(_open(raster, path, classes, options))
        reach = _tolerance(options.boundary_tolerance, raster)
        opened = None
        if probs is not None:
            opened = stack.enter_context(open_probs(probs, raster, classes, options.rules))
        done = _Pass(raster, classes, labels, reach, opened)
        for strip in raster.strips():
            done.add(strip)
        _check(done, raster, classes, path, labels.bounds)
    report = _counted(done, raster, classes, path)
    warnings = _doubts(done, raster, classes)
    if done.boundaries is not None and reach is not None:
        add_boundaries(report, done.boundaries.finish(), reach)
    if done.objects is not None and isinstance(labels, PlacedPolygons):
        add_objects(report, done.objects.finish(), labels)
    if done.reliability is not None:
        calibration = done.reliability.finish()
        add_calibration(report, calibration, str(probs))
        warnings += _doubts_of_probs(calibration, int(done.counts.sum()))
    report["warnings"] = warnings
    return Evaluation(report, done.counts, None, tuple(warnings)), done.pictures


def _open(
    raster: ClassRaster, path: str, classes: dict[int, str], options: EvaluateOptions
) -> AbstractContextManager[RasterLabels | PlacedPolygons]:
    """Open the labels on the map's pixels."""
    if options.colors:
        colors = parse_colors(options.colors, classes)
        return open_color_labels(path, raster.pixels, colors, raster.path, options.rules)
    return open_labels(
        path,
        raster.pixels,
        classes,
        raster.path,
        column=options.column,
        ignore=options.ignore,
        rules=options.rules,
    )


class _Pass:
    """Adds up, strip by strip, how map and labels agree."""

    def __init__(
        self,
        raster: ClassRaster,
        classes: dict[int, str],
        labels: RasterLabels | PlacedPolygons,
        reach: float | None,
        probs: Probabilities | None,
    ) -> None:
        self.ids = list(classes)
        size = len(self.ids)
        self.table = np.full(65537, -1, np.int16)  # the last entry: what is no id at all
        self.table[self.ids] = np.arange(size)
        self.labels = labels
        self.counts = np.zeros((size, size), np.int64)
        self.unmapped = np.zeros(size, np.int64)
        self.unlabelled = self.ignored = self.disputed = self.doubtful = 0
        self.not_sure = raster.not_sure
        self.stray: Counter[int] = Counter()
        self.strange: Counter[int] = Counter()
        self.pictures = Pictures(raster.grid.height, raster.grid.width)
        gsd = raster.pixels.gsd
        self.boundaries = None
        if gsd is not None and reach is not None:
            self.boundaries = Boundaries(size, gsd, reach)
        self.objects = None
        if isinstance(labels, PlacedPolygons):
            own = self.table[labels.source.ids].astype(np.int64)
            self.objects = Objects(own, size)
        self.probs = probs
        self.reliability = None if probs is None else Reliability(size, probs.least)

    def add(self, strip: MapStrip) -> None:
        """Take the next strip of the map."""
        truth, known, disputed, ignored = self.labels.strip(strip.top, strip.bottom)
        self.ignored += int(ignored.sum())
        self.disputed += int(disputed.sum())
        self.unlabelled += int((strip.valid & ~(known | ignored | disputed)).sum())
        labelled = self._places(truth, known, self.stray)
        if self.not_sure is not None:
            # No class, so neither right nor wrong; and no nodata.
            unsure = strip.valid & (strip.ids == self.not_sure)
            self.doubtful += int((known & unsure).sum())
            known = known & ~unsure
            strip = replace(strip, valid=strip.valid & ~unsure)
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
        """Look up the places of the classes, (H, W), -1 elsewhere; tally ids that are no class."""
        inside = where & (ids >= 0) & (ids <= 65535)
        places = self.table[np.where(inside, ids.astype(np.int64), 65536)]
        values, numbers = np.unique(ids[where & (places < 0)], return_counts=True)
        unknown.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        return places


def _thin(shape: tuple[int, ...], classes: int) -> Iterator[tuple[int, int]]:
    """Yield top and bottom of parts of a strip that hold not too many probabilities."""
    rows = max(1, PROBS_CHUNK // (shape[1] * classes))
    for top in range(0, shape[0], rows):
        yield top, min(top + rows, shape[0])


def _tolerance(asked: float | None, raster: ClassRaster) -> float | None:
    """Find the tolerance of borders, metres; None where the map has no metres.

    Raises:
        UsageError: one is asked for and the map has no metres; or all of the map would be within
            it, and rows wait in memory for as long as it is.
    """
    gsd = raster.pixels.gsd
    if gsd is None:
        if asked is None:
            return None
        raise UsageError(
            f"{raster.path} has no CRS that gives metres, so that a tolerance of {asked:g} "
            f"m means nothing; leave --boundary-tolerance out, or give the map its CRS"
        )
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
            f"{raster.path} holds the ids {shown_ids(done.strange)}, and the legend in its tags "
            f"has only {legend}; give the raster as it was written, or correct its tags"
        )
    if done.stray:
        raise EvaluationError(
            f"{path} holds the ids {shown_ids(done.stray)}, and the map's classes are {legend}; "
            f"bring the labels to the map's ids, or leave such pixels out with --ignore ID"
        )
    if not done.counts.sum():
        raise EvaluationError(
            f"no pixel has both a class and a label: {int(done.unmapped.sum())} labels lie on the "
            f"map's nodata, {done.ignored} are ignored; {raster.path} reaches over "
            f"{shown_bounds(raster.bounds)}, {path} over {shown_bounds(bounds)} (west, south, "
            f"east, north in the map's CRS)"
        )


def _counted(
    done: _Pass, raster: ClassRaster, classes: dict[int, str], path: str
) -> dict[str, Any]:
    """Report what the confusion matrix says."""
    return {
        "map": raster.path,
        "labels": path,
        "counted": {
            "pixels": int(done.counts.sum()),
            "unlabelled": done.unlabelled,
            "ignored": done.ignored,
            "disputed": done.disputed,
            "on_nodata": int(done.unmapped.sum()),
            "not_sure": done.doubtful,
        },
        "measures": {name: number(f(done.counts)) for name, f in metrics.MEASURES.items()},
        "classes": class_entries(done.counts, done.unmapped, classes),
        "counts": {"rows": "labels", "columns": "map", "pixels": done.counts.tolist()},
    }


def _doubts(done: _Pass, raster: ClassRaster, classes: dict[int, str]) -> list[str]:
    """Say what makes the counts less sure."""
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
    if done.doubtful:
        share = done.doubtful / (done.doubtful + int(done.counts.sum()))
        doubts.append(
            f"the map is not sure of {done.doubtful} labelled pixels, {share:.1%} of them "
            f"(--min-confidence): they are counted apart, and the scores are those of the others"
        )
    return doubts


def _doubts_of_probs(found: Calibration, pixels: int) -> list[str]:
    """Say what makes the calibration less sure."""
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
            "no temperature of 0.02 to 50 fits: all pixels are right, or probabilities say nothing"
        )
    return doubts
