"""Whether a vector file is a table of polygons, or of items, as geoseg writes it, and nothing else.

An output that is replaced without having been named must be one that geoseg made. No mark is needed
for that, so files of earlier versions are known, too: the columns, in their order, are geoseg's
own; and a file that holds anything beside them (another layer, a column, a style, a project that
was saved in it) is somebody's work.

The first bytes say what a file is, not its name, and no library opens what it has to guess.
"""

from __future__ import annotations

import json
import sqlite3
import stat
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

__all__ = ["COLUMNS", "SHORT_NAMES", "STYLE", "is_our_layer", "is_ours"]

#: Of a table of polygons, without the geometry.
COLUMNS = (
    "class_id",
    "class_name",
    "area_m2",
    "perimeter_m",
    "pixels",
    "confidence",
    "confidence_min",
    "runner_up",
    "runner_up_probability",
)
#: Names of columns where a name has ten letters at most (dBASE).
SHORT_NAMES = {
    "perimeter_m": "perim_m",
    "confidence": "prob_mean",
    "confidence_min": "prob_min",
    "runner_up_probability": "next_prob",
    "runner_up": "next_class",
}
#: Name and description of the style that a GeoPackage has.
STYLE = ("land cover", "class colours")

#: Bytes that are read of a header at most; geoseg's are of a few thousand, or of a few hundred for
#: each group of rows (Parquet).
_HEADER, _FOOTER = 1 << 20, 64 << 20
#: Steps of SQLite's machine for all questions together; these take some thousand.
_STEPS = 1_000_000
#: What GDAL, SQLite and QGIS keep in any GeoPackage of one layer.
_SYSTEM_TABLES = {
    "gpkg_contents",
    "gpkg_extensions",
    "gpkg_geometry_columns",
    "gpkg_ogr_contents",
    "gpkg_spatial_ref_sys",
    "gpkg_tile_matrix",
    "gpkg_tile_matrix_set",
    "layer_styles",
    "sqlite_sequence",
    "sqlite_stat1",
}


def is_ours(path: Path) -> bool:
    """Whether a vector file holds polygons of geoseg's and nothing else, or an archive's items.

    Quick, whatever the size of the file; nothing is written, and a damaged or hostile file is not
    ours, and no error.

    Args:
        path: of a file in one of the formats of ``geoseg vectorize``. Of a shapefile's parts, each
            is ours if the table beside it is.

    Returns:
        False too where there is no such file.
    """
    suffix = path.suffix.lower()
    if suffix in _SHAPEFILE:
        path = path.with_suffix(".dbf")
        suffix = ".dbf"
    check = _CHECKS.get(suffix)
    try:
        # A pipe or a device could keep who opens it waiting.
        return check is not None and stat.S_ISREG(path.stat().st_mode) and check(path)
    except (OSError, ValueError, LookupError, RecursionError, struct.error, zlib.error):
        return False
    except sqlite3.Error:
        return False


def is_our_layer(path: Path, layer: str) -> bool:
    """Whether a layer of a GeoPackage, which may hold others, has the columns of geoseg's.

    Args:
        path: of a GeoPackage.
        layer: its name.

    Returns:
        False too where there is no such layer.
    """
    try:
        return _asked(path, lambda database: _has_our_columns(database, layer))
    except (OSError, ValueError, sqlite3.Error):
        return False


def _is_geopackage(path: Path) -> bool:
    return _asked(path, _has_one_layer)


def _asked(path: Path, question: Callable[[sqlite3.Connection], bool]) -> bool:
    """Ask a GeoPackage something that is quick; False where the file is no such thing."""
    with open(path, "rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return False
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        return False  # what is in there is not seen below
    steps = iter(range(_STEPS // 1000))
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 16 * _HEADER)
        database.set_progress_handler(lambda: next(steps, None) is None, 1000)
        database.execute("PRAGMA trusted_schema = OFF")
        return question(database)


def _has_our_columns(database: sqlite3.Connection, layer: str) -> bool:
    """Whether a layer has geoseg's columns, in their order."""
    found = database.execute(
        "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
    ).fetchone()
    if found is None:
        return False
    quoted = layer.replace('"', '""')
    columns = tuple(row[1] for row in database.execute(f'PRAGMA table_info("{quoted}")'))
    return columns == ("fid", found[0], *COLUMNS)


def _has_one_layer(database: sqlite3.Connection) -> bool:
    """Whether a GeoPackage has a layer of polygons, the classes' style, and nothing else."""
    contents = database.execute("SELECT table_name, data_type FROM gpkg_contents LIMIT 3")
    kinds: dict[str, str] = dict(contents.fetchall())
    layers = [name for name, kind in kinds.items() if kind == "features"]
    if len(layers) != 1 or kinds.keys() - {layers[0], "layer_styles"}:
        return False
    layer = layers[0]
    found = database.execute(
        "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
    ).fetchone()
    if found is None:
        return False
    index = f"rtree_{layer}_{found[0]}"
    known = _SYSTEM_TABLES | {layer, index, *(f"{index}_{s}" for s in ("rowid", "node", "parent"))}
    tables = database.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') LIMIT ?", (len(known) + 1,)
    )
    if not {name for (name,) in tables} <= known:
        return False
    if not _has_our_columns(database, layer):
        return False
    if "layer_styles" not in kinds:
        # No class, no style: then there is no polygon, either.
        quoted = layer.replace('"', '""')
        return database.execute(f'SELECT 1 FROM "{quoted}" LIMIT 1').fetchone() is None
    styles = database.execute(
        "SELECT f_table_name, styleName, description FROM layer_styles LIMIT 2"
    )
    return styles.fetchall() == [(layer, *STYLE)]


def _is_flatgeobuf(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.read(8)[:7] != b"fgb\x03fgb":
            return False
        (size,) = struct.unpack("<I", file.read(4))
        header = file.read(min(size, _HEADER))

    def field(table: int, number: int) -> int:
        """Where a field of a FlatBuffers table points to."""
        (back,) = struct.unpack_from("<i", header, table)
        (offset,) = struct.unpack_from("<H", header, table - back + 4 + 2 * number)
        return follow(table + offset)

    def follow(at: int) -> int:
        (offset,) = struct.unpack_from("<I", header, at)
        return at + int(offset)

    def text(at: int) -> str:
        (length,) = struct.unpack_from("<I", header, at)
        return header[at + 4 : at + 4 + length].decode()

    columns = field(follow(0), 7)
    (count,) = struct.unpack_from("<I", header, columns)
    if count != len(COLUMNS):
        return False
    names = [text(field(follow(columns + 4 + 4 * i), 0)) for i in range(count)]
    return names == list(COLUMNS)


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.read(4) != b"PAR1":
            return False
        size = file.seek(-8, 2) + 8
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic != b"PAR1" or length > min(size - 12, _FOOTER):
            return False
    import pyarrow
    import pyarrow.parquet

    try:
        about = pyarrow.parquet.read_metadata(path)
    except pyarrow.ArrowException:
        return False
    # A table that pandas or geopandas wrote has its mark.
    keys = about.metadata or {}
    if b"geoseg" in keys and b"stac-geoparquet" in keys and b"pandas" not in keys:
        return True  # an archive's table of items
    names = [about.schema.column(i).path for i in range(min(about.num_columns, 11))]
    return b"geo" in keys and b"pandas" not in keys and names == [*COLUMNS, "geometry"]


def _is_geojson(path: Path) -> bool:
    with open(path, "rb") as file:
        text = file.read(_HEADER).decode(errors="replace")
    if not text.lstrip().startswith("{"):
        return False
    before, found, features = text.partition('"features"')
    if not found or '"FeatureCollection"' not in before:
        return False
    if not features.lstrip(" \n:[").startswith("{"):
        # No feature: then it must be a whole, small collection of nothing.
        return bool(json.loads(text)["features"] == [])
    _, found, properties = features.partition('"properties":')
    values, _ = json.JSONDecoder().raw_decode(properties.lstrip())
    return isinstance(values, dict) and tuple(values) == COLUMNS


def _is_pmtiles(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.read(127)
        if header[:8] != b"PMTiles\x03":
            return False
        at, length = struct.unpack_from("<QQ", header, 24)
        file.seek(at)
        packed = file.read(min(length, _HEADER))
    # As GDAL packs it; what a bomb would unpack to is cut off.
    text = zlib.decompressobj(31).decompress(packed, 16 * _HEADER)
    layers = json.loads(text)["vector_layers"]
    return len(layers) == 1 and tuple(layers[0]["fields"]) == COLUMNS


def _is_shapefile(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.read(32)
        (length,) = struct.unpack_from("<H", header, 8)
        # A field for each column, and a byte that ends them.
        fields = file.read(min(length, _HEADER) - len(header) - 1)
    each = (fields[i : i + 11] for i in range(0, len(fields), 32))
    names = [name.split(b"\0")[0].decode() for name in each]
    return names == [SHORT_NAMES.get(name, name) for name in COLUMNS]


_SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg")
_CHECKS: dict[str, Callable[[Path], bool]] = {
    ".gpkg": _is_geopackage,
    ".fgb": _is_flatgeobuf,
    ".parquet": _is_parquet,
    ".geojson": _is_geojson,
    ".json": _is_geojson,
    ".pmtiles": _is_pmtiles,
    ".dbf": _is_shapefile,
}
