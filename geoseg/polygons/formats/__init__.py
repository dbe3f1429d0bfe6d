"""Vector files: one table in each format, written some rows at a time."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import geopandas
import numpy as np
import pyarrow
import pyarrow.parquet
import pyogrio
import shapely

from geoseg.cards.legend import ClassInfo
from geoseg.core.files import NAME_BYTES
from geoseg.core.ours import SHORT_NAMES, STYLE, is_ours
from geoseg.core.staging import explain_write_error
from geoseg.core.workers import Workers
from geoseg.errors import OutputError, UsageError

__all__ = [
    "FORMATS",
    "SHORT_NAMES",
    "VECTORIZE_FORMATS",
    "check_layer",
    "check_suffix",
    "files_of",
    "is_ours",
    "write_frames",
    "write_points",
]

#: Length of the equator in Web Mercator (EPSG:3857), m: the side of the tile of zoom 0.
EQUATOR = 2 * math.pi * 6378137.0
#: Coordinates along a tile, as in most vector tiles (Mapbox Vector Tile 2.1).
TILE_EXTENT = 4096
#: Zooms that a file of tiles has, and the last one that GDAL's driver takes.
ZOOMS, MOST_ZOOM = 4, 22


#: Names of a GeoPackage's own tables.
_RESERVED = re.compile(r"gpkg|sqlite_|layer_styles$", re.IGNORECASE)
#: What a path holds that GDAL and pyogrio are given as it is.
_PLAIN = re.compile(r"[^;\\\x00-\x1f\x7f\udc80-\udcff]*")


@dataclass(frozen=True)
class _Job:
    """What is written.

    Attributes:
        frames: rows, some at a time; all like ``empty``.
        empty: the table without rows.
        path: of the file, in plain letters.
        name: what it will be called, for messages and for formats that hold it.
        layer: its name, where the format has layers.
        geometry: ``Polygon``, ``MultiPolygon`` or ``Point``.
        classes: the legend, for formats that hold a style.
        workers: that turn frames into what is written.
        pixel: side of the map's pixels, m; None where it can't be in Web Mercator.
    """

    frames: Iterable[geopandas.GeoDataFrame]
    empty: geopandas.GeoDataFrame
    path: Path
    name: Path
    layer: str
    geometry: str
    classes: Sequence[ClassInfo]
    workers: Workers
    pixel: float | None

    @property
    def schema(self) -> pyarrow.Schema:
        return _arrow(self.empty).schema

    def tables(self) -> Iterator[pyarrow.Table]:
        """The rows as Arrow's, geometry as WKB."""
        schema = self.schema
        return self.workers.map(lambda frame: _arrow(frame).cast(schema), self.frames, 1)

    def batches(self) -> pyarrow.RecordBatchReader:
        """Likewise, as a stream."""
        each = (batch for table in self.tables() for batch in table.to_batches())
        return pyarrow.RecordBatchReader.from_batches(self.schema, each)


def _arrow(frame: geopandas.GeoDataFrame) -> pyarrow.Table:
    return pyarrow.table(frame.to_arrow(index=False, geometry_encoding="WKB"))


@dataclass(frozen=True)
class _Gdal:
    """A writer of GDAL's.

    Attributes:
        driver: its name.
        geometry: the layer's geometry type, where it isn't that of the job.
        options: of the layer.
        dataset: options of the file.
        names: of columns that are called something else.
    """

    driver: str
    geometry: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __call__(self, job: _Job) -> None:
        """Write the file."""
        batches = job.batches()
        if self.names:
            schema = batches.schema
            renamed = pyarrow.schema(
                [f.with_name(self.names.get(f.name, f.name)) for f in schema], schema.metadata
            )
            rows = (pyarrow.RecordBatch.from_arrays(b.columns, schema=renamed) for b in batches)
            batches = pyarrow.RecordBatchReader.from_batches(renamed, rows)
        crs = job.empty.crs
        with ExitStack() as stack:
            if crs is None:  # catching warnings is no thread's own, so no more than needed
                stack.enter_context(warnings.catch_warnings())
                # A scene without a CRS gives shapes without one; whoever asked for them knows.
                warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.write_arrow(
                batches,
                job.path,
                layer=job.layer,
                driver=self.driver,
                geometry_name=job.empty.geometry.name,
                geometry_type=self.geometry or job.geometry,
                crs=None if crs is None else crs.to_wkt(),
                layer_options=self.options,
                dataset_options=self.dataset,
            )


def _write_geopackage(job: _Job) -> None:
    # GDAL's newest GeoPackage version (1.4) makes older QGIS and GDAL warn.
    _Gdal("GPKG", dataset={"VERSION": "1.3"})(job)
    if job.classes:
        _add_style(job)


def _add_style(job: _Job) -> None:
    """The table of styles that QGIS reads: polygons in the classes' colours."""
    categories = "".join(
        f'<category symbol="{i}" value="{c.id}" label={quoteattr(c.name)} render="true"/>'
        for i, c in enumerate(job.classes)
    )
    symbols = "".join(
        f'<symbol type="fill" name="{i}" alpha="1"><layer class="SimpleFill" enabled="1" pass="0" '
        f'locked="0"><prop k="color" v="{",".join(map(str, c.rgb))},255"/>'
        f'<prop k="outline_style" v="no"/><prop k="style" v="solid"/></layer></symbol>'
        for i, c in enumerate(job.classes)
    )
    qml = (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        '<qgis version="3.22" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="class_id" symbollevels="0" enableorderby="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )
    with sqlite3.connect(job.path) as database:
        database.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,"
            " f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),"
            " f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,"
            " useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),"
            " update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
        )
        row = database.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (job.layer,)
        )
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name,"
            " f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner)"
            " VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '')",
            (job.layer, row.fetchone()[0], STYLE[0], qml, STYLE[1]),
        )
        # As QGIS does it: what is no feature is listed as attributes.
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, srs_id)"
            " VALUES ('layer_styles', 'attributes', 'layer_styles', '', 0)"
        )
    database.close()


def _write_geojson(job: _Job) -> None:
    crs = job.empty.crs
    if crs is None or not (crs.is_geographic or crs.is_projected):
        raise UsageError(
            f"{job.name}: GeoJSON is longitude and latitude on WGS 84 (RFC 7946), and these shapes "
            f"have no geographic or projected CRS; choose .gpkg"
        )
    if crs.equals("OGC:CRS84", ignore_axis_order=True):
        job = replace(job, frames=map(_within_180, job.frames))
    # Cutting makes multi-polygons of some polygons.
    _Gdal("GeoJSON", geometry="Unknown", options={"RFC7946": "YES"})(job)


def _within_180(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    # GDAL cuts at the antimeridian itself, but drops what lies beyond 360 without a word.
    bounds = frame.bounds
    beyond = (bounds.minx < -180) | (bounds.maxx > 180)
    if not beyond.any():
        return frame
    frame = frame.copy()
    cut = _turn if (frame.geom_type == "Point").all() else _cut_at_180
    frame.loc[beyond, "geometry"] = [cut(g) for g in frame.geometry[beyond]]
    return frame


def _turn(point: shapely.Point) -> shapely.Point:
    """A point with a longitude beyond 180, where it is after full turns."""
    return shapely.Point((point.x + 180) % 360 - 180, point.y)


def _cut_at_180(polygon: shapely.Polygon) -> shapely.Polygon | shapely.MultiPolygon:
    """A polygon with longitudes beyond 180, cut at the antimeridian as RFC 7946 asks."""
    west, _, east, _ = polygon.bounds
    parts: list[shapely.Polygon] = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        inside = polygon & shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        moved = shapely.transform(inside, lambda xy, turn=turn: xy - [360 * turn, 0])
        # Where the polygon only touches the meridian, there are points and lines too.
        parts += [p for p in shapely.get_parts(shapely.get_parts(moved)) if p.area > 0]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _write_pmtiles(job: _Job) -> None:
    """Vector tiles (MVT) in Web Mercator: all polygons in each of a few zooms.

    GDAL's own limits on a tile would drop polygons without a word. Further out, where a tile holds
    more than some thousand pixels a side, polygons are no way to look at a map.
    """
    if job.pixel is None:
        raise UsageError(
            f"{job.name}: PMTiles are in Web Mercator, and these shapes have no geographic or "
            f"projected CRS, or lie beyond 85 degrees of latitude; choose .gpkg"
        )
    # A step of the first zoom's coordinates is a pixel at most, on the equator as elsewhere, so
    # that no polygon collapses; in the last zoom it is an eighth, and no corner moves visibly.
    finest = math.ceil(math.log2(2 ** (ZOOMS - 1) * EQUATOR / (TILE_EXTENT * job.pixel)))
    finest = min(max(finest, 0), MOST_ZOOM)
    zooms = {"MINZOOM": max(finest - ZOOMS + 1, 0), "MAXZOOM": finest}
    limits = {"MAX_SIZE": 2**31 - 1, "MAX_FEATURES": 2**31 - 1, "EXTENT": TILE_EXTENT}
    options = {name: str(value) for name, value in (zooms | limits).items()}
    rows = iter(job.frames)
    first = next(rows, None)
    if first is None:
        raise UsageError(
            f"{job.name}: there is no polygon, and PMTiles hold one at least; choose .gpkg"
        )
    job = replace(job, frames=chain([first], rows))
    name = os.fsencode(job.name.stem).decode(errors="replace")
    _Gdal("PMTiles", dataset={"NAME": name} | options)(job)


def _write_parquet(job: _Job) -> None:
    """GeoParquet 1.1."""
    geometry = job.empty.geometry.name
    crs = job.empty.crs
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    types: set[str] = set()
    plain = pyarrow.schema([f.remove_metadata() for f in job.schema])

    def noticed() -> Iterator[geopandas.GeoDataFrame]:
        for frame in job.frames:
            if not len(frame):
                continue
            own = frame.total_bounds
            bounds[:2] = np.minimum(bounds[:2], own[:2])
            bounds[2:] = np.maximum(bounds[2:], own[2:])
            types.update(frame.geom_type.unique())
            yield frame

    def table(frame: geopandas.GeoDataFrame) -> tuple[int, pyarrow.Table]:
        return frame.attrs.get("strip", 0), _arrow(frame).cast(job.schema).cast(plain)

    with pyarrow.parquet.ParquetWriter(job.path, plain, compression="zstd") as writer:
        each = job.workers.map(table, noticed(), 1)
        # A group of rows is of a strip, in however many parts it comes.
        for _, group in groupby(each, key=lambda found: found[0]):
            rows = pyarrow.concat_tables(part for _, part in group)
            writer.write_table(rows.combine_chunks())
            del rows  # the next strip needs the memory
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(types),
            "crs": None if crs is None else crs.to_json_dict(),
        }
        if types:
            column["bbox"] = bounds.tolist()
        if types <= {"Polygon", "MultiPolygon"}:
            column["orientation"] = "counterclockwise"
        geo = {"version": "1.1.0", "primary_column": geometry, "columns": {geometry: column}}
        writer.add_key_value_metadata({"geo": json.dumps(geo)})


#: Suffix -> writer.
FORMATS: dict[str, Callable[[_Job], None]] = {
    ".gpkg": _write_geopackage,
    ".fgb": _Gdal("FlatGeobuf"),
    ".parquet": _write_parquet,
    ".geojson": _write_geojson,
    ".json": _write_geojson,
}
#: Likewise, with those that make several files or another table.
VECTORIZE_FORMATS: dict[str, Callable[[_Job], None]] = {
    **FORMATS,
    ".pmtiles": _write_pmtiles,
    ".shp": _Gdal("ESRI Shapefile", options={"ENCODING": "UTF-8"}, names=SHORT_NAMES),
}


def check_suffix(path: Path, formats: Iterable[str] = FORMATS) -> None:
    """Refuse a path that no writer is for, before any work is done.

    Args:
        path: of an output.
        formats: suffixes that are allowed.

    Raises:
        UsageError: the suffix is none of them, or the name is too long.

    >>> check_suffix(Path("landcover.GPKG"))
    """
    if path.suffix.lower() not in formats:
        raise UsageError(
            f"{path} ends in {path.suffix!r}; vector files are written as {', '.join(formats)}"
        )
    length = len(os.fsencode(path.name))
    if length > NAME_BYTES:
        raise UsageError(
            f"{path.name[:20]}...{path.suffix} is a name of {length} bytes, and {NAME_BYTES} are "
            f"the most for an output; give a shorter one"
        )


def check_layer(path: Path, layer: str) -> None:
    """Refuse a layer's name that the format can't hold, before any work is done.

    Args:
        path: of the file.
        layer: the name.

    Raises:
        UsageError: it can't be.

    >>> check_layer(Path("map.gpkg"), "land cover; 2024")
    """
    rule = None
    if not layer.strip():
        rule = "is empty"
    elif re.search(r"[\0\ud800-\udfff]", layer):
        rule = "holds what is no text"
    elif path.suffix.lower() == ".gpkg" and _RESERVED.match(layer):
        rule = "is one that GeoPackages keep for themselves (gpkg..., sqlite_..., layer_styles)"
    if rule is not None:
        raise UsageError(f"the layer's name {layer[:60]!r} {rule}; give another one (--layer)")


def files_of(path: Path) -> list[Path]:
    """The files that an output is made of; of a shapefile, not all need be there."""
    if path.suffix.lower() != ".shp":
        return [path]
    return [path, *(path.with_suffix(s) for s in (".shx", ".dbf", ".prj", ".cpg"))]


def write_frames(
    frames: Iterable[geopandas.GeoDataFrame],
    empty: geopandas.GeoDataFrame,
    path: Path,
    layer: str,
    geometry: str,
    classes: Sequence[ClassInfo] = (),
    workers: Workers | None = None,
    pixel: float | None = None,
) -> None:
    """Write a table in the format that the path's suffix names, to that very path.

    GeoJSON follows RFC 7946: WGS 84, longitude first, right-hand rule, 7 decimals. A GeoPackage
    has the classes' colours as QGIS keeps them (layer_styles).

    Args:
        frames: the rows, some at a time.
        empty: the table without rows; all frames have its columns, types and CRS.
        path: ends in one of VECTORIZE_FORMATS' suffixes. A failed write may leave a part of a file
            there.
        layer: the layer's name, where the format has layers.
        geometry: ``Polygon``, ``MultiPolygon`` or ``Point``.
        classes: the legend, for a style.
        workers: that turn frames into what is written; without them it is done here.
        pixel: side of the map's pixels, m, from which the zooms of PMTiles follow; None where it
            can't be in Web Mercator.

    Raises:
        UsageError: the suffix is unknown, or GeoJSON or PMTiles are asked for without a CRS.
        OutputError: the file can't be written.
    """
    check_suffix(path, VECTORIZE_FORMATS)
    failed: list[BaseException] = []

    def watched() -> Iterator[geopandas.GeoDataFrame]:
        # What fails while rows are made comes back from Arrow in a guise of its own.
        try:
            yield from frames
        except BaseException as error:
            failed.append(error)
            raise

    # Nothing is written before the first rows are there, so that what is refused leaves no file.
    rows = watched()
    first = next(rows, None)
    rows = chain([] if first is None else [first], rows)
    workers = workers or Workers()
    try:
        with _whole(path) as partial:
            job = _Job(rows, empty, partial, path, layer, geometry, classes, workers, pixel)
            VECTORIZE_FORMATS[path.suffix.lower()](job)
            workers.stop.check()
    except (OSError, RuntimeError, ImportError, ValueError, sqlite3.Error) as error:
        if failed:
            raise failed[0] from error
        raise _explained(error, path) from error


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Another path to write a file to, which gets its name when it is whole.

    It is of plain letters, whatever the name is: a semicolon or a newline is cut off by pyogrio and
    GDAL without a word. And no other run's, which may still be about to leave (see
    :func:`geoseg.core.workers.stoppable`).
    """
    stem = f"polygons-{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        folder = path.absolute().parent
        if not _PLAIN.fullmatch(folder.as_posix()):
            link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geoseg-"))) / "to"
            link.symlink_to(folder, target_is_directory=True)
            folder = link
        try:
            yield folder / f"{stem}{path.suffix}"
            for made in folder.glob(f"{stem}.*"):
                os.replace(made, path.with_suffix(made.suffix))
        finally:
            for made in folder.glob(f"{stem}.*"):
                with suppress(OSError):
                    made.unlink()


def _explained(error: BaseException, path: Path) -> OutputError:
    """What a library says of a file that it can't write, and what to do."""
    known = explain_write_error(error, path)
    if "can't be written (" not in str(known):
        return known
    cause = " ".join(re.sub(r"\S*polygons-[0-9a-f]{12}[\w.]*", path.name, str(error)).split())
    advice = "choose another folder or format"
    if not os.access(path.absolute().parent, os.W_OK):
        advice = "the folder can't be written; choose another"
    elif re.search("project", cause, re.IGNORECASE):
        advice = (
            "its CRS gives some of the shapes no place on Earth; correct the map's CRS or "
            "transform (gdal_edit.py), or choose .gpkg, which keeps coordinates as they are"
        )
    return OutputError(f"{path} can't be written: {cause}; {advice}")


def write_points(frame: geopandas.GeoDataFrame, path: Path, *, layer: str = "points") -> None:
    """Write points as :func:`write_frames` writes its table.

    Args:
        frame: of points only.
        path: ends in one of FORMATS' suffixes. A failed write may leave a part of a file there.
        layer: the layer's name, where the format has layers.

    Raises:
        UsageError: the suffix is unknown, or GeoJSON is asked for without a CRS.
        OutputError: the file can't be written.
    """
    write_frames([frame], frame.iloc[:0], path, layer, "Point")
