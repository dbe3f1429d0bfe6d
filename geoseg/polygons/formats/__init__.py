"""Vector files: one table in each format, written some rows at a time.

One file a format, and the table of them here: :mod:`~geoseg.polygons.formats.geopackage`,
:mod:`~geoseg.polygons.formats.geoparquet`, :mod:`~geoseg.polygons.formats.geojson`,
:mod:`~geoseg.polygons.formats.pmtiles`; what GDAL does alone needs none. Rows come in as frames,
some at a time; the file is there whole or not at all. Start with :func:`write_frames`.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

import geopandas

from geoseg.cards.legend import ClassInfo
from geoseg.core.files import NAME_BYTES
from geoseg.core.ours import SHORT_NAMES
from geoseg.core.workers import Workers
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError, UsageError
from geoseg.polygons.formats.geojson import write_geojson
from geoseg.polygons.formats.geopackage import write_geopackage
from geoseg.polygons.formats.geoparquet import write_geoparquet
from geoseg.polygons.formats.job import GdalWriter, Job
from geoseg.polygons.formats.pmtiles import write_pmtiles

__all__ = [
    "FORMATS",
    "VECTORIZE_FORMATS",
    "check_layer",
    "check_suffix",
    "files_of",
    "write_frames",
    "write_points",
]

#: Names of a GeoPackage's own tables.
_RESERVED = re.compile(r"gpkg|sqlite_|layer_styles$", re.IGNORECASE)
#: What a path holds that GDAL and pyogrio are given as it is.
_PLAIN = re.compile(r"[^;\\\x00-\x1f\x7f\udc80-\udcff]*")

#: Suffix -> writer.
FORMATS: dict[str, Callable[[Job], None]] = {
    ".gpkg": write_geopackage,
    ".fgb": GdalWriter("FlatGeobuf"),
    ".parquet": write_geoparquet,
    ".geojson": write_geojson,
    ".json": write_geojson,
}
#: The same, with those that make several files or another table.
VECTORIZE_FORMATS: dict[str, Callable[[Job], None]] = {
    **FORMATS,
    ".pmtiles": write_pmtiles,
    ".shp": GdalWriter("ESRI Shapefile", options={"ENCODING": "UTF-8"}, names=SHORT_NAMES),
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
    """List the files that an output is made of; of a shapefile, not all need be there."""
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
    rows = chain([*islice(rows, 1)], rows)
    workers = workers or Workers()
    try:
        with _whole(path) as partial:
            job = Job(rows, empty, partial, path, layer, geometry, classes, workers, pixel)
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
    """Explain what a library says of a file that it can't write, and what to do."""
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
