"""Vector files of labels: their features and classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import pyogrio.errors

from geoseg.core.gdal import first_line
from geoseg.core.names import full_address, public_name
from geoseg.errors import UsageError
from geoseg.scene.opening import RASTER_SUFFIXES
from geoseg.scene.sources import LOCAL, Rules
from geoseg.scene.vector_sources import check_vector, holds_shapes

__all__ = ["OWN_COLUMN", "class_column", "is_vector", "read_features"]


#: The column of polygons that ``geoseg predict`` writes.
OWN_COLUMN = "class_id"


def is_vector(path: str | Path) -> bool:
    """Whether a file is one of shapes; what can't be opened is taken for a raster."""
    suffix = Path(str(path)).suffix.lower()
    if suffix == ".parquet":
        return True
    if suffix in RASTER_SUFFIXES:
        return False
    found = holds_shapes(path)
    if found is not None:
        return found
    try:  # a GeoPackage may hold pictures
        return len(pyogrio.list_layers(path)) > 0
    except (pyogrio.errors.DataSourceError, OSError, ValueError):
        return False


@contextmanager
def vector_file(path: str | Path, rules: Rules) -> Iterator[str]:
    """Give what GDAL opens a vector file by, in a ``with`` in which it fetches nothing.

    Args:
        path: as the user gives it.
        rules: what the file may point to.

    Raises:
        UsageError: it isn't there, leads elsewhere, or is of a kind that is not read.
    """
    check_vector(path, rules)
    # What a GML says of itself may lie on a server.
    option = "GML_DOWNLOAD_SCHEMA"
    before = pyogrio.get_gdal_config_option(option)
    pyogrio.set_gdal_config_options({option: before if rules.vrt == "any" else False})
    try:
        yield full_address(public_name(path))
    finally:
        pyogrio.set_gdal_config_options({option: before})


def read_vector(path: str | Path, rules: Rules, layer: str | None = None) -> Any:
    """Read a vector file as geopandas gives it.

    Args:
        path: as the user gives it.
        rules: what the file may point to.
        layer: of the file; the first one by default.

    Raises:
        UsageError: it can't be read.
    """
    try:
        with vector_file(path, rules) as full:
            if public_name(path).split("?")[0].lower().endswith(".parquet"):
                return geopandas.read_parquet(full)
            return geopandas.read_file(full, engine="pyogrio", layer=layer)
    except (pyogrio.errors.DataSourceError, OSError, ValueError) as error:
        raise UsageError(
            f"{public_name(path)} can't be read as a vector file ({first_line(error)})"
        ) from error


def read_features(
    path: str, column: str | None, kinds: Sequence[str], what: str, rules: Rules = LOCAL
) -> geopandas.GeoDataFrame:
    """Read a vector file as a frame.

    Args:
        path: of the file; its only layer of shapes is read.
        column: that it must have; None for none.
        kinds: the geometry types that it may hold.
        what: what these are, in the singular, for messages.
        rules: what the file may point to.

    Raises:
        UsageError: it can't be read, has no such column, or holds other shapes.
    """
    path = public_name(path)
    frame = read_vector(path, rules, _layer(path, what, rules))
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise UsageError(f"{path} is a table without geometry; give a file of {what}s")
    if column is not None and (column not in frame.columns or column == frame.geometry.name):
        others = [str(name) for name in frame.columns if name != frame.geometry.name]
        raise UsageError(
            f"{path} has no column {column!r}; it has {', '.join(others)}: choose with --column"
        )
    empty = int((frame.geometry.isna() | frame.geometry.is_empty).sum())
    if empty:
        raise UsageError(
            f"{path}: {empty} of its {len(frame)} rows have no geometry; remove them, or draw them"
        )
    wrong = int((~frame.geom_type.isin(list(kinds))).sum())
    if wrong:
        single, hint = "", ""
        if not any(kind.startswith("Multi") for kind in kinds):
            single, hint = "single ", " (in QGIS: multipart to singleparts)"
        raise UsageError(
            f"{path} holds {wrong} rows that are no {single}{what}; give one {what} a row{hint}"
        )
    return frame.reset_index(drop=True)


def _layer(path: str, what: str, rules: Rules) -> str | None:
    """Find the file's only layer of shapes; None for the first one, where no layer has any.

    Raises:
        UsageError: there are several, or it can't be read.
    """
    try:
        with vector_file(path, rules) as full:
            if path.lower().endswith(".parquet"):
                return None
            shapes = [str(name) for name, kind in pyogrio.list_layers(full) if kind is not None]
    except (pyogrio.errors.DataSourceError, OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read as a vector file ({first_line(error)})") from error
    if len(shapes) > 1:
        raise UsageError(
            f"{path} holds the layers {', '.join(shapes)}; give a file with one layer of {what}s "
            f"(ogr2ogr one.gpkg {Path(path).name} {shapes[0]})"
        )
    return shapes[0] if shapes else None


def class_column(
    path: str, frame: geopandas.GeoDataFrame, column: str | None, usual: Sequence[str]
) -> str:
    """Find the column that holds the class.

    Args:
        path: of the file, for messages.
        frame: as read.
        column: the user's word, or None for the first of the usual ones that is there.
        usual: columns that say it where the user doesn't.

    Raises:
        UsageError: there is no such column.
    """
    names = [str(name) for name in frame.columns if name != frame.geometry.name]
    there = ", ".join(names) or "no column at all"
    if column is not None:
        if column not in names:
            raise UsageError(
                f"{path} has no column {column!r}; it has {there}: choose with --column"
            )
        return column
    found = next((name for name in usual if name in names), None)
    if found is None:
        raise UsageError(
            f"{path} has no column {' or '.join(map(repr, usual))}; say with --column which of "
            f"{there} holds the class"
        )
    return found
