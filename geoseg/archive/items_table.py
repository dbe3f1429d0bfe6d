"""All items of an archive as one table: stac-geoparquet 1.1, which is GeoParquet 1.1.

Properties are columns of their own, assets and links are structs. Which columns there are is found
by looking at all items first (:class:`Layout`); then rows are written some thousand at a time, so
memory does not grow with the archive. Items without a place are left out: the specification wants
a geometry, and readers stumble over nothing. The collection links them.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import shapely.geometry

from geoseg.core.files import replace_file, sync_file
from geoseg.core.gdal import first_line
from geoseg.core.jsontext import json_text
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError

__all__ = ["ITEMS_NAME", "Layout", "write_table"]

ITEMS_NAME = "items.parquet"
#: Rows that are made at a time, and that a row group has: a few kilobytes each.
_ROWS = 2000
_TIME = pa.timestamp("us", tz="UTC")
_TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated")
_SIDES = ("xmin", "ymin", "xmax", "ymax")
#: Columns whose types are given, whatever the items have.
_FIXED = {
    "id": pa.string(),
    "stac_version": pa.string(),
    "stac_extensions": pa.list_(pa.string()),
    "collection": pa.string(),
    "geometry": pa.binary(),
    "bbox": pa.struct([(side, pa.float64()) for side in _SIDES]),
    **dict.fromkeys(_TIMES, _TIME),
}


class Layout:
    """The columns that a table of items needs: found by looking at each of them."""

    def __init__(self) -> None:
        """Begin with no item."""
        self._rows: list[dict[str, Any]] = []
        self._schema: pa.Schema | None = None
        self._kinds: set[str] = set()

    def add(self, item: Mapping[str, Any]) -> None:
        """Look at an item.

        Raises:
            OutputError: a property has the name of another part of an item; or its values are of
                two types.
        """
        if item["geometry"] is None:
            return
        self._kinds.add(item["geometry"]["type"])
        self._rows.append(_row(item))
        if len(self._rows) == _ROWS:
            self._look()

    def _look(self) -> None:
        """Find the types of the rows so far, and forget the rows."""
        try:
            found = pa.Table.from_pylist([_untyped(row) for row in self._rows]).schema
            known = [] if self._schema is None else [self._schema]
            self._schema = pa.unify_schemas([*known, found], promote_options="permissive")
        except pa.ArrowException as error:
            raise OutputError(
                f"the items can't be put into one table, as values of one name are of two types "
                f"({first_line(error)}); write the items of older versions again"
            ) from error
        self._rows = []

    def schema(self, collection: Mapping[str, Any]) -> pa.Schema:
        """Give the table's columns and what the file says of itself.

        Args:
            collection: a STAC collection, or nothing.
        """
        if self._rows:
            self._look()
        found = {} if self._schema is None else {f.name: f.type for f in self._schema}
        fields = [pa.field(name, kind) for name, kind in _FIXED.items() if name not in _TIMES]
        fields += [
            pa.field(name, _FIXED.get(name, kind))
            for name, kind in found.items()
            if name in _TIMES or name not in _FIXED
        ]
        # A column in which nobody has a value has no type.
        fields = [field for field in fields if not pa.types.is_null(field.type)]
        stac = {"version": "1.1.0", "collections": {}}
        if collection:
            stac["collections"] = {collection["id"]: collection}
        about = {
            "geo": _geo(sorted(self._kinds)),
            "stac-geoparquet": stac,
            "geoseg": version("geoseg"),
        }
        return pa.schema(fields, {key: json_text(value) for key, value in about.items()})


def _geo(kinds: list[str]) -> dict[str, Any]:
    return {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": kinds,
                "orientation": "counterclockwise",
                "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
            }
        },
    }


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    """Turn an item with a place into a row of Python's own values."""
    taken = item["properties"].keys() & item.keys()
    if taken:
        raise OutputError(
            f"the item {item['id']} has a property {sorted(taken)[0]!r}, which a table of items "
            f"can't tell from the item's own; give it another name"
        )
    shape = shapely.geometry.shape(item["geometry"])
    times = {k: v for k in _TIMES if (v := item["properties"].get(k)) is not None}
    return {
        "id": item["id"],
        "stac_version": item["stac_version"],
        "stac_extensions": item["stac_extensions"],
        "collection": item.get("collection"),
        "geometry": shapely.to_wkb(shape, byte_order=1),
        "bbox": dict(zip(_SIDES, item["bbox"], strict=True)),
        "assets": {key: _moved(asset, item["id"]) for key, asset in item["assets"].items()},
        "links": [_moved(link, item["id"]) for link in item["links"]],
        **item["properties"],
        **{key: datetime.fromisoformat(text) for key, text in times.items()},
    }


def _untyped(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a row what need not be looked at; what tells times stays, as a name."""
    return {k: None if k in _TIMES else v for k, v in row.items() if k in _TIMES or k not in _FIXED}


def _moved(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Give an asset's or a link's addresses from the archive's folder, where the table is."""
    moved = {**entry, "href": _from_archive(entry["href"], key)}
    expression = entry.get("processing:expression")
    if expression and expression["format"] == "stac-mlm":
        href = _from_archive(expression["expression"], key)
        moved["processing:expression"] = {**expression, "expression": href}
    return moved


def _from_archive(href: str, key: str) -> str:
    if not href.startswith(("./", "../")):
        return href
    return "./" + posixpath.normpath(posixpath.join(key, href))


def write_table(
    path: Path, items: Iterable[Mapping[str, Any]], layout: Layout, collection: Mapping[str, Any]
) -> None:
    """Write a table of items, whole or not at all.

    Args:
        path: replaced if it is there.
        items: a row each that has a place, in this order.
        layout: which looked at all of them.
        collection: of the items; may be empty.

    Raises:
        OutputError: the file can't be written.
    """
    schema = layout.schema(collection)
    partial = path.with_name(f".geoseg-{path.name}-{secrets.token_hex(4)}")
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for rows in _groups(_row(item) for item in items if item["geometry"] is not None):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        sync_file(partial)
        replace_file(partial, path)
    except OSError as error:
        raise explain_write_error(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(rows, _ROWS)):
        yield group
