"""An archive's STAC collection: what its items have in common, and where they are.

Up to :data:`MOST_LINKS` items are linked one by one. The table ``items.parquet`` is an asset of the
collection in any case, so that a large archive is read from there. Items of maps without a place on
Earth, which are not in the table, are always linked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from geoseg.archive.acquired import as_text
from geoseg.archive.items_table import ITEMS_NAME, Layout, write_table
from geoseg.archive.model_item import FILE_SCHEMA, multihash
from geoseg.archive.stac_item import COLLECTION, ITEM_NAME
from geoseg.archive.writing import check_replaceable, write_text
from geoseg.core.jsontext import json_text
from geoseg.core.wording import counted
from geoseg.errors import OutputError

__all__ = ["COLLECTION_NAME", "MOST_LINKS", "write_collection", "write_items_parquet"]

COLLECTION_NAME = "collection.json"
#: Items that are linked one by one at most: with a hundred bytes each, a file of a megabyte.
MOST_LINKS = 10_000
#: Values of a summary that are listed at most.
_MOST_VALUES = 200
#: Of an asset, what differs from item to item.
_OF_ONE_FILE = ("href", "file:size", "file:checksum", "processing:expression")
_TABLE_TYPE = "application/vnd.apache.parquet"


class _Summary:
    """Gathers what items have in common, one by one, in little memory."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.count = 0
        self.collection: str | None = None
        self.keys: list[str] = []
        self.placeless: list[str] = []
        self.spans: set[tuple[float, float]] = set()
        self.south, self.north = 90.0, -90.0
        self.taken: list[datetime] = []
        self.made: list[datetime] = []
        self.values: dict[str, dict[str, Any]] = {}
        self.assets: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.extensions: set[str] = set()

    def add(self, item: Mapping[str, Any]) -> None:
        """Take in an item."""
        self.layout.add(item)
        self.count += 1
        if self.count <= MOST_LINKS:
            self.keys.append(item["id"])
        if self.collection not in (None, item["collection"]):
            raise OutputError(
                f"the items are of two collections, {self.collection!r} and "
                f"{item['collection']!r}; an archive holds one: give each a folder of its own"
            )
        self.collection = item["collection"]
        if item["geometry"] is None:
            self.placeless.append(item["id"])
        else:
            west, south, east, north = item["bbox"]
            self.spans.add((west, east))
            self.south, self.north = min(south, self.south), max(north, self.north)
        self._add_properties(item["properties"])
        for key, asset in item["assets"].items():
            common = {k: v for k, v in asset.items() if k not in _OF_ONE_FILE}
            known = self.assets.setdefault(key, common)
            # What all files of an asset have in common is what is said of it.
            self.assets[key] = {k: v for k, v in known.items() if common.get(k) == v}
            for entry in asset.get("classification:classes", ()):
                self._add_value("classification:classes", entry)
        for link in item["links"]:
            if "mlm:name" in link:
                self.models[link["href"]] = link
        self.extensions.update(item["stac_extensions"])

    def _add_properties(self, properties: Mapping[str, Any]) -> None:
        keys = ("datetime", "start_datetime", "end_datetime")
        times = [datetime.fromisoformat(properties[key]) for key in keys if properties.get(key)]
        ends = self.made if properties.get("geoseg:datetime_is_of_processing") else self.taken
        if times:
            ends[:] = [min([*ends[:1], *times]), max([*ends[1:], *times])]
        for key in ("gsd", "proj:code", "processing:level", "processing:version"):
            if properties.get(key) is not None:
                self._add_value(key, properties[key])

    def _add_value(self, key: str, value: Any) -> None:
        values = self.values.setdefault(key, {})
        if len(values) < _MOST_VALUES:
            values.setdefault(json_text(value), value)

    def extent(self) -> dict[str, Any]:
        """Give the box and the span of time around all items."""
        box = [-180.0, -90.0, 180.0, 90.0]  # where no item has a place: STAC wants one
        if self.spans:
            west, east = around(self.spans)
            box = [west, self.south, east, self.north]
        return {
            "spatial": {"bbox": [box]},
            # Times of processing say little of the ground: they count where no other is known.
            "temporal": {"interval": [list(map(as_text, self.taken or self.made)) or [None, None]]},
        }

    def summaries(self) -> dict[str, Any]:
        """Give the values that items have, each once."""
        found = {key: _in_order(values) for key, values in self.values.items()}
        return {key: values for key, values in sorted(found.items()) if values}


def around(spans: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Find the narrowest span of longitudes that holds all of some.

    Args:
        spans: west and east of each, -180 to 180; west is larger where it crosses 180 degrees.

    Returns:
        West and east, in the same way.

    Examples:
        >>> around([(170.0, 175.0), (-179.0, -170.0)]), around([(10.0, 20.0), (-5.0, 11.0)])
        ((170.0, -170.0), (-5.0, 20.0))
    """
    merged: list[list[float]] = []
    for west, east in sorted((w, e if e >= w else e + 360) for w, e in spans):
        if merged and west <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], east)
        else:
            merged.append([west, east])
    # What reaches around may hold the first ones, too.
    last = merged[-1]
    while len(merged) > 1 and merged[0][0] + 360 <= last[1]:
        last[1] = max(last[1], merged.pop(0)[1] + 360)
    if last[1] - merged[0][0] >= 360:
        return -180.0, 180.0
    ring = [*merged, [merged[0][0] + 360, merged[0][1] + 360]]
    _, west, east = max(
        (after[0] - before[1], after[0], before[1] + 360) for before, after in pairwise(ring)
    )
    west = west if west < 180 else west - 360
    east -= 360 * max(0, -(-(east - 180) // 360))
    return round(west, 7), round(east, 7)


def _in_order(values: Mapping[str, Any]) -> list[Any]:
    """Sort values: numbers by size, classes by their ids, texts by letters."""
    found = list(values.values())
    if all(isinstance(value, Mapping) for value in found):
        return sorted(found, key=lambda entry: (entry["value"], json_text(entry)))
    return sorted(found)


def write_collection(
    out: Path,
    items: Iterable[Mapping[str, Any]],
    *,
    title: str = "Land cover",
    description: str = "",
    license: str = "other",
    providers: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write an archive's collection, and its table of items.

    Args:
        out: the archive's folder.
        items: in the order of their keys; they are gone through twice, so a list or
            :class:`geoseg.archive.items.Items`. None may be missing.
        title: for people.
        description: one sentence or more; by default what and how many.
        license: SPDX identifier, or ``other``; that of the model's card.
        providers: as STAC has them.

    Returns:
        The path of ``collection.json``.

    Raises:
        OutputError: there is no item; one can't be read; or files can't be written, or there are
            some that geoseg did not make.
    """
    path = out / COLLECTION_NAME
    check_replaceable(path)
    about = _Summary()
    for item in items:
        about.add(item)
    if not about.count:
        raise OutputError(f"{out} holds no finished map, so there is no collection to write")
    collection = _collection(about, title, description, license, providers)
    table = write_items_parquet(out, items, layout=about.layout, collection=collection)
    collection["assets"]["items"] |= _of_file(table)
    collection["links"] += [
        {"rel": "item", "href": f"./{key}/{ITEM_NAME}", "type": "application/geo+json"}
        for key in (about.keys if about.count <= MOST_LINKS else about.placeless)
    ]
    write_text(path, json_text(collection, indent=1) + "\n")
    return path


def write_items_parquet(
    out: Path,
    items: Iterable[Mapping[str, Any]],
    *,
    layout: Layout | None = None,
    collection: Mapping[str, Any] | None = None,
) -> Path:
    """Write the table of items (stac-geoparquet 1.1), in the order in which they are given.

    Those without a place on Earth are left out.

    Its addresses are from the archive's folder, not from the items' own.

    Args:
        out: the archive's folder.
        items: they are gone through once, or twice without a layout.
        layout: of the columns, if the items were looked at already.
        collection: stands in the file, too.

    Returns:
        The path of ``items.parquet``.

    Raises:
        OutputError: an item can't be read; values of one column are of two types; or the file
            can't be written, or geoseg did not make the one that is there.
    """
    path = out / ITEMS_NAME
    check_replaceable(path)
    if layout is None:
        layout = Layout()
        for item in items:
            layout.add(item)
    write_table(path, items, layout, collection or {})
    return path


def _collection(
    about: _Summary,
    title: str,
    description: str,
    license: str,
    providers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Write all of a collection but the links to its items."""
    models = [
        {**link, "href": "./" + link["href"].removeprefix("../")}
        for _, link in sorted(about.models.items())
    ]
    text = description or f"{title}: {counted(about.count, 'map')} made by geoseg."
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": sorted(about.extensions | {FILE_SCHEMA}),
        "id": about.collection or COLLECTION,
        "title": title,
        "description": text,
        "license": license,
        **({"providers": list(providers)} if providers else {}),
        "extent": about.extent(),
        "summaries": about.summaries(),
        "item_assets": about.assets,
        "assets": {
            "items": {
                "href": f"./{ITEMS_NAME}",
                "type": _TABLE_TYPE,
                "title": "table of items",
                "description": "a row an item that has a place, by id (stac-geoparquet 1.1)",
                # The first is the specification's word, the other what many archives have.
                "roles": ["collection-mirror", "stac-items"],
            }
        },
        "links": [
            {"rel": "root", "href": f"./{COLLECTION_NAME}", "type": "application/json"},
            *models,
        ],
        "geoseg:items": about.count,
    }


def _of_file(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file:size": path.stat().st_size, "file:checksum": multihash(sha256)}
