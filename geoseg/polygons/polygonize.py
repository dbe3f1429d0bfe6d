"""Land-cover polygons of a class raster.

The straight line: class raster, strip by strip -> small regions merged into neighbours -> arcs
between regions, traced once -> simplified, smoothed -> polygons of closed regions -> areas on the
ellipsoid -> a frame or a file, some thousand rows at a time.

Laws, for any map: every valid pixel lies in exactly one polygon and no polygon lies on nodata;
nothing is cut; geometries are valid, and together they are a valid coverage (neighbours share
their borders vertex by vertex) before and after simplification and smoothing; with none of these
and no minimum, rasterising the polygons on the same grid gives the class raster back. Neither the
height of the strips nor the number of threads changes a polygon.

How it works:

- Everything is traced with 4-connectivity. An edge lies between unlike classes, a node where three
  or four edges meet, an arc between two nodes (or is a loop); it has one region on its left, one on
  its right. With 8-connectivity, regions that meet at a corner are one feature of several parts:
  GDAL's one ring that crosses itself there is no valid polygon.
- One thread reads, joins and writes; those beside it (``core/workers.py``) trace strips, simplify
  arcs and make tables, a few ahead and in order. With one thread there are none beside it.
- A strip is labelled and traced for itself, on any thread, with the row above it as its first row.
  Labels of that row are united with those of the strip before; pieces of arcs that end at the same
  column are one piece. Arcs and loops then get a direction and a start that do not depend on
  strips, so that results do not, either.
- A region without a pixel in the strip's last row is closed: its arcs make rings and leave, unless
  another region still needs them. Where a region meets itself at a corner, rings turn away, so that
  outside and hole only touch. Open regions get new, small numbers after each strip.
- Simplifying takes a vertex when its triangle holds no vertex of another arc, as that was at first,
  nor one of its own, as it is. So arcs can be done in any order, on any thread, and none cross.
  What can still happen is that two arcs between the same nodes both become straight: all but one of
  them keep a vertex, and an arc waits while another one might still end at both its nodes. The
  corners are kept as bits as far up as open arcs reach.
- Smoothing cuts within half a pixel of a vertex; vertices are a pixel apart, so cuts never meet.
- The work is done in a thread of its own: who waits leaves it within a second (Ctrl-C), and it ends
  at its next strip or table. Tables are made a quarter of a million vertices at a time.
- Areas are integrals round the ring of a polynomial, fitted to the ground to 1e-8
  (``polygons/measure.py``); for pixels above a kilometre and where no polynomial fits, edges are
  projected one by one (``geo/geodesy.py``). Per polygon, both cost less than the tracing.
- Merging comes before and gives a class raster again; its two passes label the same strips. Which
  region takes another is known when the whole map is.
- Too many: every region begins with a run of pixels below nothing of its class. Runs like that are
  counted over the whole map, and regions only where there are more than 10 million of these.
- Kernels are compiled by numba on the first run of all and kept beside the package or in the user's
  cache folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas

from geoseg.cards.legend import ClassInfo
from geoseg.core.workers import Stop, Workers, stoppable
from geoseg.geo.geodesy import GroundGrid
from geoseg.polygons.formats import check_layer, write_frames
from geoseg.polygons.inputs import MapRows
from geoseg.polygons.measure import Measure
from geoseg.polygons.options import PolygonOptions
from geoseg.polygons.source import Source
from geoseg.polygons.table import PolygonTable
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["polygonize", "write_polygons", "write_rows"]

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
            transform. Whole numbers may be written as floats. Nodata is what the file declares or
            masks; 255 in a file of uint8, too, where the legend has no such class.
        confidence_path: winning probability on the same grid, float32 with NaN as nodata or uint8
            with a GDAL scale tag and 255 as nodata; or None.
        classes: the legend; by default what the raster's tags say.
        probs_path: probabilities of all classes, one band each in the legend's order, float32 or
            uint8 as the winning one; or None.
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
        Source.opened(class_path, confidence_path, probs_path, classes, options, Stop()) as source,
        Workers(source.threads) as workers,
    ):
        table = _table(source)
        frames = [table.frame(None), *_frames(source, table, workers)]
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
        confidence_path: as for :func:`polygonize`.
        classes: as for :func:`polygonize`.
        probs_path: as for :func:`polygonize`.
        layer: the layer's name, where the format has layers.
        rules: what the rasters may point to.
        progress: called with rows of the raster done, and all, in the caller's thread.
        stopped: asked, in the caller's thread, whether to stop.
        **options: the fields of :class:`PolygonOptions`.

    Returns:
        How many polygons there are of each class, by name.

    Raises:
        SceneError: as :func:`polygonize`.
        UsageError: as :func:`polygonize`; or the suffix is unknown, or GeoJSON is asked for
            without a CRS.
        OutputError: the file can't be written.
        StoppedError: ``stopped`` said so.
    """
    check_layer(path, layer)

    def work(stop: Stop) -> dict[str, int]:
        rasters = class_path, confidence_path, probs_path
        with Source.opened(*rasters, classes, options, stop, rules) as source:
            return _write(source, path, layer, progress)

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
    """Turn a map that need not be finished yet into a file: its readers wait for missing rows.

    Args:
        path: as for :func:`write_polygons`.
        rows: the map; read from above to below, and once more from above where something small is
            merged. In a thread of its own, which goes on for a while where it was stopped: what
            the readers have open must not be closed by anyone else.
        classes: its legend.
        layer: as for :func:`write_polygons`.
        progress: as for :func:`write_polygons`.
        stopped: as for :func:`write_polygons`.
        **options: the fields of :class:`PolygonOptions`.

    Returns:
        As :func:`write_polygons`, and the same file.

    Raises:
        GeosegError: as :func:`write_polygons`; and whatever the readers raise.
    """
    check_layer(path, layer)
    chosen = PolygonOptions(**options)

    def work(stop: Stop) -> dict[str, int]:
        return _write(Source.of(rows, classes, chosen, stop), path, layer, progress)

    return stoppable(work, stopped)


def _table(source: Source) -> PolygonTable:
    return PolygonTable(
        source.grid,
        source.classes,
        Measure.of(source.grid),
        source.options.connectivity,
        source.rows.probs is not None,
    )


def _frames(
    source: Source,
    table: PolygonTable,
    workers: Workers,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[geopandas.GeoDataFrame]:
    """Make the rows of all features, on the workers' threads."""
    return workers.map(table.frame, source.features(workers, progress), 2)


def _write(
    source: Source, path: Path, layer: str, progress: Callable[[int, int], None]
) -> dict[str, int]:
    """Make the file; see :func:`write_polygons`."""
    counts = {c.name: 0 for c in source.classes}
    table = _table(source)

    def report(done: int, total: int) -> None:
        source.stop.report(lambda: progress(done, total))

    def counted(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
        for name, count in frame["class_name"].value_counts().items():
            counts[name] += int(count)
        return frame.drop(columns="first")

    with Workers(source.threads, source.stop) as workers:
        write_frames(
            map(counted, _frames(source, table, workers, report)),
            table.frame(None).drop(columns="first"),
            path,
            layer,
            "MultiPolygon" if source.options.connectivity == 8 else "Polygon",
            source.classes,
            workers,
            _tiled_pixel(source.grid),
        )
    return counts


def _tiled_pixel(grid: GroundGrid) -> float | None:
    """Side of a pixel for tiles in Web Mercator, m on the ground; None where they can't be."""
    if grid.crs is None:
        return None
    across, down = np.meshgrid(np.linspace(0, grid.width, 9), np.linspace(0, grid.height, 9))
    places = grid.to_crs(np.column_stack((across.ravel(), down.ravel())))
    latitudes = np.abs(grid.to_lonlat(places)[:, 1])
    inside = grid.is_on_ground and (latitudes < MERCATOR_ENDS).all()
    return min(grid.pixel_size()) if inside else None
