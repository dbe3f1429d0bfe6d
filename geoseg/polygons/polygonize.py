"""Land-cover polygons of a class raster.

The straight line: class raster, strip by strip -> small regions merged into neighbours -> arcs
between regions, traced once -> simplified, smoothed -> polygons of closed regions -> areas on the
ellipsoid -> a frame or a file, some thousand rows at a time.

Laws, for any map: every valid pixel lies in exactly one polygon and no polygon lies on nodata;
nothing is cut; geometries are valid, and together they are a valid coverage (neighbours share
their borders vertex by vertex) before and after simplification and smoothing; with none of these
and no minimum, rasterising the polygons on the same grid gives the class raster back. Neither the
height of the strips nor the number of threads changes a polygon.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import shapely
from numpy.typing import NDArray

from geoseg.cards.legend import ClassInfo
from geoseg.core.workers import Stop, Workers, stoppable
from geoseg.errors import SceneError, TooManyPolygonsError, UsageError
from geoseg.geo.geodesy import GroundGrid
from geoseg.geo.window import Window
from geoseg.polygons import arcs as kernels
from geoseg.polygons.coverage import Closed, CodeRows, Shape, count_regions, polygons
from geoseg.polygons.formats import check_layer, write_frames
from geoseg.polygons.inputs import MapRows, legend_of, open_shares, outside
from geoseg.polygons.measure import Measure
from geoseg.polygons.merging import Limits, merge
from geoseg.polygons.options import MOST_THREADS, PolygonOptions, by_id
from geoseg.rasters.class_raster import MAX_ID, open_class_raster, read_class_window
from geoseg.rasters.writing import NODATA, POLYGON_STRIP
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["polygonize", "write_polygons", "write_rows"]

#: Codes are 1 to this one.
MOST_CLASSES = 254
#: Degrees of latitude at which Web Mercator ends.
MERCATOR_ENDS = 85.051128


def polygonize(
    class_path: str | Path,
    confidence_path: str | Path | None = None,
    classes: Sequence[ClassInfo] | None = None,
    *,
    probs_path: str | Path | None = None,
    **options: Any,
) -> geopandas.GeoDataFrame:
    """Turn a class raster into polygons, one for each region of one class.

    Args:
        class_path: raster of one band of whole numbers, class ids. Any CRS or none, any affine
            transform. Nodata is what the file declares or masks; 255 in a file of uint8, too.
        confidence_path: winning probability on the same grid, float32 with NaN as nodata or uint8
            with a GDAL scale tag and 255 as nodata; or None.
        classes: the legend; by default what the raster's tags say.
        probs_path: probabilities of all classes, one band each in the legend's order, likewise.
        **options: the fields of :class:`PolygonOptions`.

    Returns:
        A frame in the raster's CRS with the columns ``class_id`` (int32), ``class_name`` (str),
        ``area_m2`` and ``perimeter_m`` (float64, geodesic on the CRS's own ellipsoid; null without
        a geographic or projected CRS), ``pixels`` (int64), ``confidence`` and ``confidence_min``
        (float64, mean and least winning probability of the polygon's pixels; null without a raster
        of them), ``runner_up`` (str, the class with the highest mean probability but for the
        polygon's own) and ``runner_up_probability`` (float64; both null without ``probs_path``)
        and ``geometry``. Without a CRS the coordinates are what the raster's transform gives. A
        raster of nodata only gives no rows. Rows are in the order of the first pixels.

    Raises:
        SceneError: a raster can't be read, or is not what is described above.
        UsageError: an id is not in the legend, the grids differ, an option is outside its range
            or needs metres and the raster has no CRS, or there would be too many polygons.
    """
    with (
        _Source.opened(class_path, confidence_path, probs_path, classes, options, Stop()) as source,
        Workers(source.threads) as workers,
    ):
        frames = [source.frame(None), *source.frames(workers)]
    frames = [frame for frame in frames[1:] if len(frame)] or frames[:1]
    frame = pandas.concat(frames, ignore_index=True)
    frame.attrs.clear()
    order = frame.pop("first").argsort(kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def write_polygons(
    path: Path,
    class_path: str | Path,
    confidence_path: str | Path | None = None,
    classes: Sequence[ClassInfo] | None = None,
    *,
    probs_path: str | Path | None = None,
    layer: str = "landcover",
    rules: Rules = LOCAL,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
    **options: Any,
) -> dict[str, int]:
    """Turn a class raster into a file of polygons; rows are written as regions are closed.

    Memory grows with the strip and the regions that are open at a time, not with the raster.
    Ctrl-C and ``stopped`` end it within a second or two, whatever is being done.

    Args:
        path: ends in one of :data:`geoseg.polygons.formats.FORMATS`'s suffixes; it is there whole
            or not at all. What was stopped may leave files of other names beside it for a moment.
        class_path: as for :func:`polygonize`.
        confidence_path: likewise.
        classes: likewise.
        probs_path: likewise.
        layer: the layer's name, where the format has layers.
        rules: what the rasters may point to.
        progress: called with rows of the raster done, and all, in the caller's thread.
        stopped: asked, in the caller's thread, whether to stop.
        **options: the fields of :class:`PolygonOptions`.

    Returns:
        How many polygons there are of each class, by name.

    Raises:
        SceneError: as :func:`polygonize`.
        UsageError: likewise; or the suffix is unknown, or GeoJSON is asked for without a CRS.
        OutputError: the file can't be written.
        StoppedError: ``stopped`` said so.
    """
    check_layer(path, layer)

    def work(stop: Stop) -> dict[str, int]:
        rasters = class_path, confidence_path, probs_path
        with _Source.opened(*rasters, classes, options, stop, rules) as source:
            return source.write(path, layer, progress)

    return stoppable(work, stopped)


def write_rows(
    path: Path,
    rows: MapRows,
    classes: Sequence[ClassInfo],
    *,
    layer: str = "landcover",
    progress: Callable[[int, int], None] = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
    **options: Any,
) -> dict[str, int]:
    """The same of a map that need not be finished yet: its readers wait for rows that are missing.

    Args:
        path: as for :func:`write_polygons`.
        rows: the map; read from above to below, and once more from above where something small is
            merged. In a thread of its own, which goes on for a while where it was stopped: what
            the readers have open must not be closed by anyone else.
        classes: its legend.
        layer: as for :func:`write_polygons`.
        progress: likewise.
        stopped: likewise.
        **options: likewise.

    Returns:
        As :func:`write_polygons`, and the same file.

    Raises:
        GeosegError: likewise; and whatever the readers raise.
    """
    check_layer(path, layer)
    chosen = PolygonOptions(**options)

    def work(stop: Stop) -> dict[str, int]:
        return _Source.of(rows, classes, chosen, stop).write(path, layer, progress)

    return stoppable(work, stopped)


@dataclass
class _Source:
    """A map and how polygons are made of it.

    Attributes:
        rows: of the map.
        classes: the legend, in the order of codes 1, 2, ...
        code: id -> code by place; 0 is nodata, MOST_CLASSES + 1 unknown.
        options: how polygons are made; classes by their ids.
        measure: of areas.
        stop: asked before each strip.
    """

    rows: MapRows
    classes: list[ClassInfo]
    code: NDArray[np.uint8]
    options: PolygonOptions
    measure: Measure
    stop: Stop

    @classmethod
    def of(
        cls, rows: MapRows, legend: Sequence[ClassInfo], options: PolygonOptions, stop: Stop
    ) -> _Source:
        """See that the map, its legend and the options fit."""
        name, grid = rows.name, rows.grid
        if grid.crs is None and options.metric:
            raise UsageError(
                f"{name} has no geographic or projected CRS, so metres on its ground are unknown; "
                f"leave {' and '.join(options.metric)} at 0 (simplify can be in pixels), or give "
                f"the raster a CRS (gdal_edit.py)"
            )
        if options.metric and not grid.is_on_ground:
            raise UsageError(
                f"{name} lies where its CRS has no ground, so metres there are unknown: its CRS or "
                f"its transform is wrong (correct it with gdal_edit.py), or leave "
                f"{' and '.join(options.metric)} at 0 (simplify can be in pixels)"
            )
        if len(legend) > MOST_CLASSES:
            raise SceneError(
                f"{name} has {len(legend)} classes; polygons are made of up to {MOST_CLASSES}: is "
                f"it a class raster?"
            )
        code = np.full(MAX_ID + 1, MOST_CLASSES + 1, np.uint8)
        ids = {c.id: number for number, c in enumerate(legend, start=1)}
        options = by_id(options, legend, name)
        for id_, number in ids.items():
            code[id_] = ids[int(options.merge[id_])] if id_ in options.merge else number
        return cls(rows, list(legend), code, options, Measure.of(grid), stop)

    @classmethod
    @contextmanager
    def opened(
        cls,
        class_path: str | Path,
        confidence_path: str | Path | None,
        probs_path: str | Path | None,
        classes: Sequence[ClassInfo] | None,
        options: Mapping[str, Any],
        stop: Stop,
        rules: Rules = LOCAL,
    ) -> Iterator[_Source]:
        """Open rasters."""
        chosen = PolygonOptions(**options)
        with ExitStack() as stack:
            raster = stack.enter_context(open_class_raster(class_path, rules=rules))
            grid = raster.grid
            legend = list(classes) if classes is not None else legend_of(raster, stop)
            confidence = probs = None
            if confidence_path is not None:
                confidence = stack.enter_context(
                    open_shares(confidence_path, grid, 1, "confidence", rules)
                )
            if probs_path is not None:
                bands = len(legend)
                probs = stack.enter_context(
                    open_shares(probs_path, grid, bands, "probability", rules)
                )

            def ids(top: int, bottom: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
                window = Window(top, 0, bottom - top, grid.width)
                return read_class_window(raster.dataset, raster.path, window)

            source = cls.of(
                MapRows(raster.path, grid, ids, confidence, probs), legend, chosen, stop
            )
            source.guard()
            yield source

    def write(self, path: Path, layer: str, progress: Callable[[int, int], None]) -> dict[str, int]:
        """Make the file; see :func:`write_polygons`."""
        counts = {c.name: 0 for c in self.classes}

        def tell(done: int, total: int) -> None:
            self.stop.tell(lambda: progress(done, total))

        def frames() -> Iterator[geopandas.GeoDataFrame]:
            for frame in self.frames(workers, tell):
                for name, count in frame["class_name"].value_counts().items():
                    counts[name] += int(count)
                yield frame.drop(columns="first")

        many = "MultiPolygon" if self.options.connectivity == 8 else "Polygon"
        empty = self.frame(None).drop(columns="first")
        with Workers(self.threads, self.stop) as workers:
            write_frames(
                frames(),
                empty,
                path,
                layer,
                many,
                self.classes,
                workers,
                self._tiled_pixel,
            )
        return counts

    @property
    def grid(self) -> GroundGrid:
        return self.rows.grid

    @property
    def _tiled_pixel(self) -> float | None:
        """Side of a pixel for tiles in Web Mercator, m on the ground; None where they can't be."""
        grid = self.grid
        if grid.crs is None:
            return None
        across, down = np.meshgrid(np.linspace(0, grid.width, 9), np.linspace(0, grid.height, 9))
        places = grid.to_crs(np.column_stack((across.ravel(), down.ravel())))
        latitudes = np.abs(grid.to_lonlat(places)[:, 1])
        inside = grid.is_on_ground and (latitudes < MERCATOR_ENDS).all()
        return min(grid.pixel_size()) if inside else None

    @property
    def threads(self) -> int:
        return self.options.threads or min(MOST_THREADS, os.cpu_count() or 1)

    def codes(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """(bottom - top, W), 0 is nodata.

        Raises:
            UsageError: the legend lacks an id.
            StoppedError: as asked.
        """
        self.stop.check()
        ids, valid = self.rows.ids(top, bottom)
        table = self.code
        if ids.dtype == np.uint8:
            # 255 is nodata where the file does not say so, too.
            table = self.code[:256].copy()
            if table[NODATA] > MOST_CLASSES:
                table[NODATA] = 0
        else:
            ids = np.where(valid, ids, 0)
            if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
                raise SceneError(outside(self.rows.name, ids))
        codes, most = kernels.recode(ids, valid, table)
        if most > MOST_CLASSES:
            unknown = np.unique(ids[codes > MOST_CLASSES]).tolist()
            raise UsageError(
                f"{self.rows.name} holds the class ids {unknown}, and the legend has only "
                f"{sorted(c.id for c in self.classes)}; pass the classes of the model that made "
                f"the raster"
            )
        return codes

    def strips(self) -> Iterator[tuple[int, int]]:
        """Top and bottom rows."""
        rows = self.options.strip_rows or max(8, POLYGON_STRIP // self.grid.width)
        for top in range(0, self.grid.height, rows):
            yield top, min(top + rows, self.grid.height)

    def bands(
        self, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[CodeRows]:
        """All pixels, from above to below."""
        none = np.zeros((0, self.grid.width), np.float32)
        for top, bottom in self.strips():
            probs = none[None][:0] if self.rows.probs is None else self.rows.probs(top, bottom)
            confidence = none
            if self.rows.confidence is not None:
                confidence = self.rows.confidence(top, bottom)[0]
            elif self.rows.probs is not None:
                confidence = probs.max(axis=0)
            yield CodeRows(self.codes(top, bottom), confidence, probs)
            progress(bottom, self.grid.height)

    def guard(self) -> None:
        """Count regions before any are made.

        Raises:
            TooManyPolygonsError: there are too many. Where small ones are merged that is not known
                before they are; then :meth:`frames` counts what it makes.
        """
        most = self.options.most
        if math.isinf(most) or self.limits() is not None:
            return
        regions, corners = count_regions(
            lambda: (self.codes(*strip) for strip in self.strips()), self.grid.width, most
        )
        if regions:
            # A corner is a vertex of two rings or more.
            self.refuse(f"would give {_million(regions)} polygons", regions, 2 * corners)

    def refuse(self, found: str, polygons: float, vertices: float) -> None:
        """Say what was found, how large the file would be, and what to do.

        Raises:
            TooManyPolygonsError: always.
        """
        name = self.rows.name
        size = vertices * 16 + polygons * 150
        raise TooManyPolygonsError(
            f"{name} {found} and a file of about {size / 1e9:.2g} GB; more than "
            f"{_million(self.options.most)} are not made unasked: leave out the noise with "
            f"geoseg vectorize {name} --sieve 10 (pixels) or --min-area (m2), or make them all "
            f"with --force"
        )

    def frames(
        self, workers: Workers, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[geopandas.GeoDataFrame]:
        """Closed features, some for each strip, in the order of their last rows."""
        options, grid = self.options, self.grid
        tolerance = options.simplify
        if tolerance > 0 and options.units == "m":
            width, height = grid.pixel_size()
            tolerance /= math.sqrt(width * height)
        a, b, _, d, e, _ = grid.transform
        # Exterior rings run anticlockwise in the CRS.
        shape = Shape(
            options.connectivity, tolerance, options.algorithm, options.smooth, a * e - b * d < 0
        )
        bands: Iterable[CodeRows] = self.bands(progress)
        limits = self.limits()
        if limits is not None:
            bands = merge(lambda: self.bands(), grid, limits, options.connectivity)
        wanted = np.ones(len(self.classes) + 1, bool)
        if options.only is not None:
            wanted[1:] = [c.id in options.only for c in self.classes]

        def chosen() -> Iterator[Closed]:
            made = vertices = 0
            for closed in polygons(bands, grid.width, grid.height, shape, workers):
                made += len(closed.rings.polygons) - 1
                vertices += len(closed.rings.xy)
                if made > options.most:
                    row = int(closed.first.max()) // grid.width + 1
                    more = grid.height / row
                    self.refuse(
                        f"gives {_million(made)} polygons in its first {row} of {grid.height} "
                        f"rows: in all, if the others are like these, {_million(made * more)}",
                        made * more,
                        vertices * more,
                    )
                some = closed if wanted[closed.codes].all() else closed.take(wanted[closed.codes])
                if len(some.codes):
                    yield some

        return workers.map(self.frame, chosen(), 2)

    def limits(self) -> Limits | None:
        """What is small, by code; None where nothing is."""

        def each(option: float | Mapping[int | str, float]) -> NDArray[np.float64]:
            values = np.zeros(len(self.classes) + 1)
            for number, c in enumerate(self.classes, start=1):
                values[number] = option.get(c.id, 0) if isinstance(option, Mapping) else option
            return values

        found = Limits(each(self.options.min_area), each(self.options.min_hole), self.options.sieve)
        return found if found.metric or found.pixels > 1 else None

    def frame(self, closed: Closed | None) -> geopandas.GeoDataFrame:
        """The table of some features; None gives one without rows."""
        if closed is None:
            closed = Closed.none(len(self.classes) + 1 if self.rows.probs is not None else 0)
        rings = closed.rings
        area, perimeter = self.measure(rings)
        starts = closed.features[:-1]
        if len(area) != len(starts):
            area, perimeter = (np.add.reduceat(values, starts) for values in (area, perimeter))
        total, known, least = closed.confidence.T
        ids = np.array([0, *(c.id for c in self.classes)], np.int32)
        names = np.array([None, *(c.name for c in self.classes)], object)
        runner_up, runner_up_probability = (
            np.zeros(len(total), np.int64),
            np.full(len(total), np.nan),
        )
        if closed.probs.shape[1] > 2 and len(total):
            means = closed.probs / closed.pixels[:, None]
            means[:, 0] = -1
            means[np.arange(len(means)), closed.codes] = -1
            runner_up = means.argmax(axis=1)
            runner_up_probability = means.max(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            confidence = np.where(known > 0, total / known, np.nan)
        frame = geopandas.GeoDataFrame(
            {
                "class_id": ids[closed.codes],
                "class_name": pandas.Series(names[closed.codes], dtype=str),
                "area_m2": area,
                "perimeter_m": perimeter,
                "pixels": closed.pixels,
                "confidence": confidence,
                "confidence_min": np.where(known > 0, least, np.nan),
                "runner_up": pandas.Series(names[runner_up], dtype=str),
                "runner_up_probability": runner_up_probability,
                "first": closed.first,
            },
            geometry=self.geometries(closed),
            crs=self.grid.file_crs,
        )
        frame.attrs["strip"] = closed.strip
        return frame

    def geometries(self, closed: Closed) -> NDArray[np.object_]:
        """(F,) in the raster's CRS."""
        xy, rings, polygons_ = closed.rings
        xy = self.grid.to_crs(xy)
        kind = shapely.GeometryType.POLYGON
        offsets: tuple[NDArray[np.int64], ...] = (rings, polygons_)
        if self.options.connectivity == 8:
            kind = shapely.GeometryType.MULTIPOLYGON
            offsets = (rings, polygons_, closed.features)
        return np.asarray(shapely.from_ragged_array(kind, xy, offsets))


def _million(number: float) -> str:
    return f"{number / 1e6:.3g} million"
