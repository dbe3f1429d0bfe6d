"""A STAC item as a scene of an archive: only what opening it needs, with absolute addresses.

An item of a large archive has 10 to 50 kB, and a ledger keeps every one. What
:mod:`geoseg.scene.item` understands of an asset is written in one form, that of STAC 1.1, so that
the same scene is the same job whether its item came as JSON, as a table or from an API.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from geoseg.archive.sources import SceneSource
from geoseg.core.names import public_name
from geoseg.errors import SceneError, UsageError
from geoseg.scene.assets import is_raster, sensor_of
from geoseg.scene.clouds import rule_of
from geoseg.scene.item import Asset, AssetBand, Item, address_of, parse_item
from geoseg.scene.sensors import Sensor, band_code
from geoseg.scene.sources import SCHEME, Rules, is_remote

__all__ = ["WRITTEN", "each_once", "self_link", "source_of_item", "without_state"]

#: Properties that are kept: what an item says of its time, its sensor and its numbers.
_KEPT = re.compile(
    r"datetime|start_datetime|end_datetime|updated|platform|constellation|instruments|gsd|eo:cloud_cover|"
    r"proj:(epsg|code)|landsat:(product|scene)_id|(processing|s2|sentinel|earthsearch):.*"
)
#: Of an asset: by these its file is known to be another one.
WRITTEN = ("file:checksum",)
#: Longer texts are histories and licences.
_LONGEST = 4000


def source_of_item(value: Any, place: str = "") -> SceneSource:
    """Make a scene of an item's parsed JSON.

    Args:
        value: of the item.
        place: path or address that it was read from, from where its relative addresses lead; ""
            where it came amid others: its self link's address then, if it has one.

    Raises:
        SceneError: it is no item.
    """
    item = parse_item(value, place or None)
    where = item.href if is_remote(item.href) or not item.href else os.path.abspath(item.href)
    sensor = sensor_of(item)
    assets = {
        key: _asset(asset, item) | _written(value["assets"].get(key))
        for key, asset in item.assets.items()
        if _may_be_read(asset, sensor)
    }
    properties = dict(_properties(item.properties))
    codes = {asset.get("proj:epsg") for asset in assets.values()}
    if len(codes) == 1 and None not in codes:
        # It stands once.
        properties["proj:epsg"] = codes.pop()
        for asset in assets.values():
            del asset["proj:epsg"]
    box = _box(value)
    slim: dict[str, Any] = {
        "type": "Feature",
        "id": item.id,
        "collection": item.collection,
        "properties": properties,
        "assets": assets,
        "links": [{"rel": "self", "href": link} for link in [self_link(value)] if link],
    }
    if box is not None:
        slim["bbox"] = list(box)
    return SceneSource(item.id, item=slim, footprint=box, place=where)


def each_once(sources: Iterable[SceneSource], place: str) -> Iterator[SceneSource]:
    """Leave out items that were there already.

    Args:
        sources: of items; others pass.
        place: where they are listed, for people.

    Raises:
        UsageError: an item was there already, and was another one.
    """
    seen: dict[bytes, bytes] = {}
    for source in sources:
        if source.item is None:
            yield source
            continue
        item = source.item
        key = _digest([item.get("collection"), item["id"]])
        what = _digest(without_state({k: v for k, v in item.items() if k != "links"}))
        if key not in seen:
            seen[key] = what
            yield source
        elif seen[key] != what:
            raise UsageError(
                f"{place} lists the item {item['id']} of the collection "
                f"{item.get('collection') or 'without a name'} twice, and the two differ; leave "
                f"out the one that is out of date"
            )


def without_state(item: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of an item what may change while its scene stays the same one."""
    properties = {k: v for k, v in item["properties"].items() if k != "updated"}
    assets = {
        key: {k: v for k, v in asset.items() if k not in WRITTEN}
        for key, asset in item["assets"].items()
    }
    return {**item, "properties": properties, "assets": assets}


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def self_link(value: Any) -> str | None:
    """Find an item's own address on a server, as people may see it; None where it has none.

    Args:
        value: of the item.
    """
    links = value.get("links") if isinstance(value, Mapping) else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping) and link.get("rel") == "self":
            href = link.get("href")
            return public_name(href) if isinstance(href, str) and is_remote(href) else None
    return None


def _may_be_read(asset: Asset, sensor: Sensor | None) -> bool:
    """Whether an asset may be a band or a cloud layer, or its name says what the sensor is."""
    band = asset.bands[0] if asset.bands else AssetBand()
    names = [asset.key, *(b.name for b in asset.bands if b.name)]
    return (
        is_raster(asset)
        or not asset.media  # the user may know better, and choose it
        or any(map(band_code, names))
        or rule_of(asset.key, sensor, band.classes, band.bits) is not None
    )


def _written(asset: Any) -> dict[str, Any]:
    """What an asset says of its file as it was written."""
    said = asset if isinstance(asset, Mapping) else {}
    return {k: said[k] for k in WRITTEN if isinstance(said.get(k), str) and _is_short(said[k])}


def _asset(asset: Asset, item: Item) -> dict[str, Any]:
    kept: dict[str, Any] = {"href": _resolved(asset, item)}
    if asset.media:
        kept["type"] = asset.media
    if asset.roles:
        kept["roles"] = list(asset.roles)
    if asset.epsg is not None:
        kept["proj:epsg"] = asset.epsg
    if asset.bands:
        kept["bands"] = [dict(_band(band)) for band in asset.bands]
    return kept


def _band(band: AssetBand) -> Iterator[tuple[str, Any]]:
    """What is known of a band, in the words of STAC 1.1."""
    if band.name is not None:
        yield "name", band.name
    if band.common is not None:
        yield "eo:common_name", band.common
    for key, number in (
        ("raster:scale", band.scale),
        ("raster:offset", band.offset),
        ("nodata", band.nodata),
        ("raster:spatial_resolution", band.resolution),
    ):
        if number is not None:
            # STAC writes numbers that JSON does not have as texts.
            yield key, number if math.isfinite(number) else str(number)
    if band.classes:
        yield "classification:classes", [{"value": v, "name": n} for v, n in band.classes.items()]
    if band.bits:
        fields = [{"name": n, "offset": place, "length": 1} for place, n in band.bits.items()]
        yield "classification:bitfields", fields


def _resolved(asset: Asset, item: Item) -> str:
    """Where an asset is, absolute and without what gives access.

    Whether the item may lead there is decided where it is opened, and what is no address of a file
    stays as it is: the scene's job reports it.
    """
    href = asset.href
    if SCHEME.match(href) is None and item.href and not is_remote(item.href):
        if not href or href.lstrip().startswith(("<", "{", "/vsi")):
            return public_name(href)
        return os.path.abspath(os.path.join(os.path.dirname(item.href), href))
    try:
        return address_of(asset, item, Rules(vrt="any"))
    except SceneError:
        return public_name(href)


def _properties(properties: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in properties.items():
        if not isinstance(key, str) or not _KEPT.fullmatch(key) or not _is_short(value):
            continue
        # Sentinel-2's items count each class in percent.
        if isinstance(value, float) and key.startswith(("s2:", "sentinel:")):
            continue
        yield key, value


def _is_short(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) < 20 and all(isinstance(v, str) and len(v) < _LONGEST for v in value)
    if isinstance(value, str):
        return len(value) < _LONGEST
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


def _box(value: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """The item's bounding box in degrees: of its "bbox", else of its geometry."""
    box = value.get("bbox")
    if isinstance(box, list) and len(box) in (4, 6) and all(map(_is_number, box)):
        half = len(box) // 2
        found = (float(box[0]), float(box[1]), float(box[half]), float(box[half + 1]))
        return found if found[1] <= found[3] else None
    geometry = value.get("geometry")
    if not isinstance(geometry, Mapping):
        return None
    places = list(_places(geometry.get("coordinates"), 0))
    if not places:
        return None
    xs, ys = zip(*places, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _places(coordinates: Any, depth: int) -> Iterator[tuple[float, float]]:
    if not isinstance(coordinates, list) or depth > 5:
        return
    if len(coordinates) > 1 and all(map(_is_number, coordinates[:2])):
        yield float(coordinates[0]), float(coordinates[1])
        return
    for part in coordinates:
        yield from _places(part, depth + 1)


def _is_number(value: Any) -> bool:
    kind = isinstance(value, int | float) and not isinstance(value, bool)
    return kind and abs(value) < 1e9  # NaN is not
