"""Where to look: a stratified random sample of a class raster's pixels.

Each class is a stratum, after Olofsson et al. 2014, https://doi.org/10.1016/j.rse.2014.02.015,
section 5.1. Within a class every pixel has the same chance, and none is drawn twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
from numpy.typing import NDArray

from geoseg.core.jsontext import builtin_fields
from geoseg.core.staging import Staging
from geoseg.errors import SceneError, UsageError
from geoseg.evaluation.area_estimates import sample_size
from geoseg.polygons.formats import check_suffix, write_points
from geoseg.rasters.class_raster import ClassRaster, Survey, open_class_raster, survey
from geoseg.scene.sources import Rules, is_remote

__all__ = ["ALLOCATIONS", "Sample", "SampleOptions", "Stratum", "allocate", "sample"]

#: Below this, a stratum's variance is unknown.
LEAST = 2
#: How much larger the largest pixel may be than the smallest before equal chances for pixels are
#: no longer equal chances for the ground.
AREA_TOLERANCE = 1.05

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Name -> (weights of the classes (K,) from their areas, least number of points of a class from
#: the option min_per_class).
ALLOCATIONS: dict[str, tuple[Callable[[Floats], Floats], Callable[[int], int]]] = {
    "proportional": (lambda areas: areas, lambda least: LEAST),
    "equal": (lambda areas: np.ones(len(areas)), lambda least: LEAST),
    "olofsson": (lambda areas: areas, lambda least: max(LEAST, least)),
}


@dataclass(frozen=True)
class Stratum:
    """A class of the map and its share of the sample.

    Attributes:
        id: of the class.
        name: of the class.
        pixels: of it on the map.
        share: of the map's area.
        points: that were drawn.
    """

    id: int
    name: str
    pixels: int
    share: float
    points: int


@dataclass(frozen=True)
class Sample:
    """Points to be labelled.

    Attributes:
        points: in random order and in the map's CRS; columns id (1, 2, ...), class_id and
            class_name as mapped (not in a blind sample), reference (empty), geometry.
        strata: one a class that is on the map.
        warnings: what to know before the work starts.
    """

    points: geopandas.GeoDataFrame
    strata: tuple[Stratum, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SampleOptions:
    """The options of :func:`geoseg.sample`, most of them under the command line's names.

    Attributes:
        count: points in all; None takes ``target_se``.
        target_se: standard error of the overall accuracy that is aimed at, which gives the count
            by Cochran's formula for a proportional allocation, and at least what the classes need.
        expected: user's accuracy expected for ``target_se``: one for all classes, or a mapping from
            the name or id of each class on the map.
        allocation: ``proportional`` to mapped areas, ``equal``, or ``olofsson``: at least
            ``min_per_class`` points a class and the rest proportional. Each gives every class on
            the map at least 2 points, or all its pixels where there are fewer.
        min_per_class: the least number of points of a class, for ``olofsson``.
        seed: of the random numbers; the same seed gives the same sample.
        blind: leave the mapped class out of the points; ``geoseg evaluate`` reads it off the map.
        input_root: folders into which files may point, besides their own.
        allow_vrt: ``any`` lets files point anywhere.
        overwrite: replace the output.
    """

    count: int | None = None
    target_se: float | None = None
    expected: float | Mapping[str, float] = 0.8
    allocation: str = "proportional"
    min_per_class: int = 50
    seed: int = 0
    blind: bool = False
    input_root: str | Path | Sequence[str | Path] = ()
    allow_vrt: str = "local"
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a map.

        Raises:
            UsageError: the options contradict each other, or one is out of range.
        """
        builtin_fields(self)
        if (self.count is None) == (self.target_se is None):
            raise UsageError("give either count (-n) or a target standard error (--target-se)")
        if self.allocation not in ALLOCATIONS:
            raise UsageError(
                f"allocation {self.allocation!r} is unknown; it is {', '.join(ALLOCATIONS)}"
            )
        if self.seed < 0 or self.min_per_class < 0:
            raise UsageError(
                f"seed is {self.seed} and min_per_class {self.min_per_class}; both are whole "
                f"numbers from 0"
            )
        Rules.of(self.input_root, self.allow_vrt)

    @property
    def rules(self) -> Rules:
        """What the raster may point to."""
        return Rules.of(self.input_root, self.allow_vrt)


def sample(raster: str | Path, output: str | Path | None = None, **options: Any) -> Sample:
    """Draw a stratified random sample of pixels for someone to label.

    The raster is read twice, strip by strip: once to count, once to find the pixels that were
    drawn. Points lie at the centres of distinct pixels with a class. They come in random order,
    so that neither order nor id gives the class away to the one who labels.

    Args:
        raster: class raster.
        output: vector file (.gpkg, .fgb, .parquet, .geojson), or None to write nothing.
        **options: the fields of :class:`SampleOptions`: ``count`` or ``target_se``, and more.

    Returns:
        The points and how they were shared out.

    Raises:
        UsageError: the options contradict each other or the map.
        SceneError: the raster is no class raster, or is damaged.
        OutputError: the output can't be written.

    Example:
        >>> import geoseg
        >>> drawn = geoseg.sample("map.tif", "points.gpkg", count=500)  # doctest: +SKIP
        >>> drawn.strata[0].points  # doctest: +SKIP
    """
    asked = SampleOptions(**options)
    final = None if output is None else Path(output)
    if final is not None:
        check_suffix(final)
        if not is_remote(str(raster)) and final.resolve() == Path(raster).resolve():
            raise UsageError(f"{final} is an input of this run; give the output another name")
    with Staging([] if final is None else [final], overwrite=asked.overwrite) as staging:
        with open_class_raster(raster, rules=asked.rules) as opened:
            drawn = _draw(opened, asked)
        if final is not None:
            with staging.speaking_of_finals():
                write_points(drawn.points, staging.path(final))
            staging.publish([final])
    return drawn


def _draw(raster: ClassRaster, asked: SampleOptions) -> Sample:
    """Draw the sample of an open raster."""
    found = survey(raster)
    mapped = np.flatnonzero(found.pixels)
    ids, pixels, areas = np.asarray(found.ids)[mapped], found.pixels[mapped], found.areas[mapped]
    names = [found.names[i] for i in mapped]
    weigh, least = ALLOCATIONS[asked.allocation]
    each, count = least(asked.min_per_class), asked.count
    if asked.target_se is not None:
        expected = _expected(asked.expected, ids.tolist(), names)
        wanted = sample_size(areas, expected, asked.target_se)
        # The classes' minimum may ask for more, and a small map may have less.
        count = min(max(wanted, int(np.minimum(each, pixels).sum())), int(pixels.sum()))
    assert count is not None
    points = allocate(pixels, count, weigh(areas), each)
    rng = np.random.default_rng(asked.seed)
    # Ranks among the pixels of a class, row by row: they do not depend on how the raster is cut.
    # Generator.choice holds no more than 50 numbers for each that it draws.
    ranks = [np.sort(rng.choice(n, k, replace=False)) for n, k in zip(pixels, points, strict=True)]
    places = _find(raster, ids, ranks)
    order = rng.permutation(len(places))
    stratum = np.repeat(np.arange(len(ids)), points)[order]
    x, y = raster.grid.to_crs(places[order].astype(np.float64) + 0.5).T
    columns: dict[str, object] = {"id": np.arange(1, len(order) + 1, dtype=np.int32)}
    if not asked.blind:
        columns["class_id"] = ids[stratum].astype(np.int32)
        columns["class_name"] = pandas.Series([names[i] for i in stratum], dtype=str)
    columns["reference"] = pandas.Series([None] * len(order), dtype=str)
    frame = geopandas.GeoDataFrame(
        columns, geometry=geopandas.points_from_xy(x, y), crs=raster.grid.file_crs
    )
    strata = tuple(
        Stratum(int(i), name, int(n), float(area / areas.sum()), int(k))
        for i, name, n, area, k in zip(ids, names, pixels, areas, points, strict=True)
    )
    return Sample(frame, strata, tuple(_warnings(found)))


def allocate(pixels: Ints, total: int, weights: Floats, least: int) -> Ints:
    """Share points out over classes.

    Args:
        pixels: (K,) of each class, at least 1.
        total: points in all.
        weights: (K,) above 0; points are proportional to them as far as the bounds let them.
        least: points that every class gets, if it has so many pixels.

    Returns:
        (K,) int64, between ``min(least, pixels)`` and ``pixels``; adds up to ``total``.

    Raises:
        UsageError: there are more points than pixels, or fewer than the classes need.

    Examples:
        >>> allocate(np.array([200, 150, 3200, 6450]), 641, np.array([2, 1.5, 32, 64.5]), 75)
        array([ 75,  75, 163, 328])
    """
    low, high = np.minimum(least, pixels), pixels
    if total > high.sum():
        raise UsageError(f"{total} points are more than the map's {high.sum()} pixels; lower -n")
    if total < low.sum():
        raise UsageError(
            f"{total} points are too few: {len(pixels)} classes on the map need at least {least} "
            f"each, {low.sum()} in all; raise -n, or lower --min-per-class where it is given"
        )
    # clip(t * weights, low, high) grows with t; halve until its sum is the total.
    below, above = 0.0, float((high / weights).max())
    for _ in range(200):
        middle = (below + above) / 2
        fits = np.clip(middle * weights, low, high).sum() <= total
        below, above = (middle, above) if fits else (below, middle)
    share = np.clip(below * weights, low, high)
    points = np.floor(share).astype(np.int64)
    # The largest remainders get what rounding down left.
    for i in np.argsort(points - share, kind="stable"):
        if points.sum() < total and points[i] < high[i]:
            points[i] += 1
    return points


def _expected(expected: float | Mapping[str, float], ids: list[int], names: list[str]) -> Floats:
    """Bring the expected user's accuracies into the order of the classes, (K,).

    Raises:
        UsageError: a class has none, or one is named that is not on the map.
    """
    if not isinstance(expected, Mapping):
        return np.full(len(ids), float(expected))
    given = {str(key): value for key, value in expected.items()}
    keys = [name if name in given else str(i) for i, name in zip(ids, names, strict=True)]
    if set(keys) != set(given):
        raise UsageError(
            f"expected accuracies are given for {', '.join(given)}, and the map's classes are "
            f"{', '.join(names)}; give one number for all, or one for each class on the map"
        )
    return np.array([given[key] for key in keys], np.float64)


def _find(raster: ClassRaster, ids: Ints, ranks: list[Ints]) -> Ints:
    """Find the pixels of the given ranks among those of their class, in one pass.

    Args:
        raster: open.
        ids: (K,) of the classes.
        ranks: of each class, ascending.

    Returns:
        (N, 2) column and row; class by class.

    Raises:
        SceneError: the raster has changed since it was counted.
    """
    places: list[list[Ints]] = [[] for _ in ids]
    seen = [0] * len(ids)
    for strip in raster.strips():
        width = strip.ids.shape[1]
        for k, wanted in enumerate(ranks):
            if not len(wanted) or wanted[-1] < seen[k]:
                continue  # this class is done
            here = np.flatnonzero(strip.valid & (strip.ids == ids[k]))
            first, last = np.searchsorted(wanted, (seen[k], seen[k] + len(here)))
            row, col = np.divmod(here[wanted[first:last] - seen[k]], width)
            places[k].append(np.column_stack((col, row + strip.top)))
            seen[k] += len(here)
    found = [place for parts in places for place in parts]
    result = np.concatenate(found)
    if len(result) != sum(map(len, ranks)):
        raise SceneError(f"{raster.path} changed while it was read; draw the sample again")
    return result


def _warnings(found: Survey) -> list[str]:
    """Say what to know before the work starts."""
    warnings = []
    if found.area_m2 is None:
        warnings.append("the map's CRS gives no areas on the ground; shares are those of pixels")
    elif found.area_range is not None:
        low, high = found.area_range
        if high > AREA_TOLERANCE * low:
            warnings.append(
                f"pixels are {low:.4g} to {high:.4g} m2 large and have equal chances, so ground "
                f"where they are small is looked at more often; for exact areas, make the map in "
                f"an equal-area projection"
            )
    return warnings
