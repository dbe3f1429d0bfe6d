"""A map, its legend and the options, seen to fit together; and the features that they give."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.legend import ClassInfo
from geoseg.core.workers import Stop, Workers
from geoseg.errors import SceneError, TooManyPolygonsError, UsageError
from geoseg.geo.geodesy import GroundGrid
from geoseg.geo.window import Window
from geoseg.polygons.counting import count_regions
from geoseg.polygons.coverage import polygons
from geoseg.polygons.features import Features
from geoseg.polygons.inputs import MapRows, legend_of, open_shares, with_not_sure
from geoseg.polygons.kernels.regions import recode
from geoseg.polygons.merging import Limits, merge
from geoseg.polygons.options import MOST_THREADS, PolygonOptions, RingOptions, by_id
from geoseg.polygons.strips import CodeRows
from geoseg.rasters.class_raster import (
    MAX_ID,
    open_class_raster,
    outside,
    read_class_window,
)
from geoseg.rasters.writing import NODATA, POLYGON_STRIP
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["Source"]

#: Codes are 1 to this one.
MOST_CLASSES = 254


@dataclass
class Source:
    """A map and how polygons are made of it.

    Attributes:
        rows: of the map.
        classes: the legend, in the order of codes 1, 2, ...
        code: id -> code by place; 0 is nodata, MOST_CLASSES + 1 unknown.
        options: how polygons are made; classes by their ids.
        stop: asked before each strip.
    """

    rows: MapRows
    classes: list[ClassInfo]
    code: NDArray[np.uint8]
    options: PolygonOptions
    stop: Stop

    @classmethod
    def of(
        cls, rows: MapRows, legend: Sequence[ClassInfo], options: PolygonOptions, stop: Stop
    ) -> Source:
        """See that the map, its legend and the options fit.

        Raises:
            UsageError: an option is in metres, and the map has none; or a class isn't in the
                legend.
            SceneError: the legend has too many classes.
        """
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
        return cls(rows, list(legend), code, options, stop)

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
    ) -> Iterator[Source]:
        """Open rasters, as :func:`~geoseg.polygons.polygonize.polygonize` takes them."""
        chosen = PolygonOptions(**options)
        with ExitStack() as stack:
            raster = stack.enter_context(open_class_raster(class_path, rules=rules))
            grid = raster.grid
            legend = (
                legend_of(raster, stop) if classes is None or raster.not_sure is not None else []
            )
            unsure = [c for c in legend if c.id == raster.not_sure]
            if classes is not None:
                legend = [*(c for c in classes if c not in unsure), *unsure]
            confidence = probs = None
            if confidence_path is not None:
                confidence = stack.enter_context(
                    open_shares(confidence_path, grid, 1, "confidence", rules)
                )
            if probs_path is not None:
                bands = len(legend) - len(unsure)
                probs = stack.enter_context(
                    open_shares(probs_path, grid, bands, "probability", rules)
                )
                for one in unsure:
                    probs = with_not_sure(probs, legend.index(one))

            def ids(top: int, bottom: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
                window = Window(top, 0, bottom - top, grid.width)
                return read_class_window(raster.dataset, raster.path, window)

            source = cls.of(
                MapRows(raster.path, grid, ids, confidence, probs), legend, chosen, stop
            )
            source.guard()
            yield source

    @property
    def grid(self) -> GroundGrid:
        """Where the map's pixels lie."""
        return self.rows.grid

    @property
    def threads(self) -> int:
        """In all, the caller's included."""
        return self.options.threads or min(MOST_THREADS, os.cpu_count() or 1)

    @property
    def limits(self) -> Limits | None:
        """What is small, by code; None where nothing is."""

        def each(option: float | Mapping[int | str, float]) -> NDArray[np.float64]:
            values = np.zeros(len(self.classes) + 1)
            for number, c in enumerate(self.classes, start=1):
                values[number] = option.get(c.id, 0) if isinstance(option, Mapping) else option
            return values

        found = Limits(each(self.options.min_area), each(self.options.min_hole), self.options.sieve)
        return found if found.metric or found.pixels > 1 else None

    @property
    def ring_options(self) -> RingOptions:
        """The options in pixels."""
        options, grid = self.options, self.grid
        tolerance = options.simplify
        if tolerance > 0 and options.units == "m":
            width, height = grid.pixel_size()
            tolerance /= math.sqrt(width * height)
        a, b, _, d, e, _ = grid.transform
        # Exterior rings run anticlockwise in the CRS.
        return RingOptions(
            options.connectivity, tolerance, options.algorithm, options.smooth, a * e - b * d < 0
        )

    def codes(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Read rows: (bottom - top, W), 0 is nodata.

        Raises:
            UsageError: an id is not in the legend.
            StoppedError: as asked.
        """
        self.stop.check()
        ids, valid = self.rows.ids(top, bottom)
        table = self.code
        if ids.dtype == np.uint8:
            # Where the legend has no 255, that is nodata, although the file does not say so.
            table = self.code[:256].copy()
            if table[NODATA] > MOST_CLASSES:
                table[NODATA] = 0
        else:
            ids = np.where(valid, ids, 0)
            if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
                raise SceneError(outside(self.rows.name, ids))
        codes, most = recode(ids, valid, table)
        if most > MOST_CLASSES:
            unknown = np.unique(ids[codes > MOST_CLASSES]).tolist()
            raise UsageError(
                f"{self.rows.name} holds the class ids {unknown}, and the legend has only "
                f"{sorted(c.id for c in self.classes)}; pass the classes of the model that made "
                f"the raster"
            )
        return codes

    def strips(self) -> Iterator[tuple[int, int]]:
        """Top and bottom rows of each strip."""
        rows = self.options.strip_rows or max(8, POLYGON_STRIP // self.grid.width)
        for top in range(0, self.grid.height, rows):
            yield top, min(top + rows, self.grid.height)

    def code_rows(
        self, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[CodeRows]:
        """Read all pixels, strip by strip from above to below."""
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
                before they are; then :meth:`features` counts what it makes.
        """
        most = self.options.most
        if math.isinf(most) or self.limits is not None:
            return
        regions, corners = count_regions(
            lambda: (self.codes(*strip) for strip in self.strips()), self.grid.width, most
        )
        if regions:
            # A corner is a vertex of two rings or more.
            self._refuse(f"would give {_million(regions)} polygons", regions, 2 * corners)

    def _refuse(self, found: str, many: float, vertices: float) -> None:
        """Say what was found, how large the file would be, and what to do.

        Raises:
            TooManyPolygonsError: always.
        """
        name = self.rows.name
        size = vertices * 16 + many * 150
        raise TooManyPolygonsError(
            f"{name} {found} and a file of about {size / 1e9:.2g} GB; more than "
            f"{_million(self.options.most)} are not made unasked: leave out the noise with "
            f"geoseg vectorize {name} --sieve 10 (pixels) or --min-area (m2), or make them all "
            f"with --force"
        )

    def features(
        self, workers: Workers, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[Features]:
        """Make the features in the order of their last rows, a strip in one part or several.

        Raises:
            TooManyPolygonsError: there are too many.
        """
        grid, limits = self.grid, self.limits
        strips: Iterable[CodeRows] = self.code_rows(progress)
        if limits is not None:
            strips = merge(lambda: self.code_rows(), grid, limits, self.options.connectivity)
        wanted = np.ones(len(self.classes) + 1, bool)
        if self.options.only is not None:
            wanted[1:] = [c.id in self.options.only for c in self.classes]
        made = vertices = 0
        for found in polygons(strips, grid.width, grid.height, self.ring_options, workers):
            made += len(found.rings.polygons) - 1
            vertices += len(found.rings.xy)
            if made > self.options.most:
                row = int(found.first.max()) // grid.width + 1
                more = grid.height / row
                self._refuse(
                    f"gives {_million(made)} polygons in its first {row} of {grid.height} "
                    f"rows: in all, if the others are like these, {_million(made * more)}",
                    made * more,
                    vertices * more,
                )
            some = found if wanted[found.codes].all() else found.take(wanted[found.codes])
            yield from some.parts()


def _million(number: float) -> str:
    return f"{number / 1e6:.3g} million"
