"""A STAC item, read and looked at: what it says of itself, and its assets.

An item is JSON that names a scene's files and describes them (https://stacspec.org). It comes from
strangers, so every field may be missing, or be of another type than it should be; what can't be
understood counts as not said. What its assets mean for a scene is decided in ``assets.py``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from geoseg.core.download import download
from geoseg.core.names import full_address, public_name
from geoseg.core.wording import counted
from geoseg.errors import SceneError
from geoseg.scene.sources import SCHEME, Rules, is_remote, lies_in

__all__ = [
    "Asset",
    "AssetBand",
    "Item",
    "address_of",
    "file_name",
    "is_item",
    "parse_item",
    "read_item",
]

#: Of an item; those of large archives have 10 to 50 kB.
MAX_BYTES = 10_000_000
#: What GDAL reads an asset from, where it does not lie on this machine.
SCHEMES = ("https", "http", "s3", "gs", "az")
#: Addresses of a STAC API's items, which have no suffix.
_OF_AN_API = re.compile(r"/items/[^/]+/?$")
#: Control characters, ends of lines, and what can't be written as UTF-8.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SUFFIXES = (".json", ".geojson")
_RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".nc", ".zip")


@dataclass(frozen=True)
class AssetBand:
    """What an item says of one band of an asset; None is not said.

    Attributes:
        name: its own, such as ``B04``.
        common: STAC's common name, such as ``red`` or ``nir08``.
        scale: quantity per number.
        offset: quantity at number 0.
        nodata: the number that stands for "not measured".
        resolution: metres per pixel.
        classes: of ``classification:classes``: value -> name.
        bits: of ``classification:bitfields`` of one bit: place of the bit -> name.
    """

    name: str | None = None
    common: str | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    resolution: float | None = None
    classes: Mapping[int, str] = field(default_factory=dict)
    bits: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asset:
    """A file that an item names.

    Attributes:
        key: its name in the item.
        href: where it is, as it stands there; see :func:`address_of`.
        media: its media type in lower case; "" where there is none.
        roles: in lower case.
        epsg: of its CRS; None where it isn't said.
        bands: as far as they are described; may be empty.
    """

    key: str
    href: str
    media: str
    roles: tuple[str, ...]
    epsg: int | None
    bands: tuple[AssetBand, ...]


@dataclass(frozen=True)
class Item:
    """A STAC item.

    Attributes:
        id: its identifier.
        collection: of which it is a part, or None.
        href: where it was read from, else its self link's address; public, "" where unknown.
        datetime: when the scene was acquired, or None.
        properties: all of them.
        assets: by key, in the item's order.
    """

    id: str
    collection: str | None
    href: str
    datetime: str | None
    properties: Mapping[str, Any]
    assets: Mapping[str, Asset]

    def said(self, *keys: str) -> str | None:
        """The first of these properties that is a text."""
        return next(filter(None, (text(self.properties.get(key)) for key in keys)), None)


def is_item(source: str) -> bool:
    """Whether what the user names is a file of JSON, or has the address of a STAC item.

    Args:
        source: as :func:`geoseg.core.names.public_name` gives it.
    """
    if is_remote(source):
        path = urlsplit(full_address(source)).path.lower()
        if source.startswith("s3://"):
            return path.endswith(_SUFFIXES)
        if not source.startswith(("http://", "https://")) or path.endswith(_RASTERS):
            return False
        return path.endswith(_SUFFIXES) or _OF_AN_API.search(path) is not None
    return source.lower().endswith(_SUFFIXES) and os.path.isfile(source)


def read_item(source: str) -> Item:
    """Read an item from a file, over http(s), or out of a bucket.

    Args:
        source: as :func:`geoseg.core.names.public_name` gives it.

    Raises:
        SceneError: it can't be read, is too large, or is no item.
    """
    if is_remote(source):
        data = download(source, MAX_BYTES + 1)
    else:
        try:
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SceneError(f"{source} can't be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise SceneError(
            f"{source} has more than {MAX_BYTES // 1_000_000} MB, and a STAC item has some "
            f"kilobytes; give the item of one scene"
        )
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SceneError(
            f"{source} is no JSON ({why[:100]}); a STAC item is a JSON object: give one, or the "
            f"raster itself"
        ) from error
    return parse_item(value, source)


def parse_item(value: Any, href: str | None = None) -> Item:
    """Look at parsed JSON as an item.

    Args:
        value: of an item, which is a dict.
        href: path or address that it was read from; None for its self link, if that is an address:
            by a path an item could say that it lies in any folder, whose files it may name.

    Raises:
        SceneError: it is no item.
    """
    known = href or (_self_link(value) if isinstance(value, Mapping) else None) or ""
    public = public_name(known)
    shown = public or "the item"
    if not isinstance(value, Mapping):
        raise SceneError(f"{shown} holds a JSON {type(value).__name__}; a STAC item is an object")
    kind, assets = value.get("type"), value.get("assets")
    if kind == "FeatureCollection":
        features = value.get("features")
        count = len(features) if isinstance(features, list) else 0
        raise SceneError(
            f"{shown} is an ItemCollection with {counted(count, 'item')}, and a scene is one item: "
            f"give one of them, as a file or by its address"
        )
    if kind in ("Catalog", "Collection"):
        raise SceneError(
            f"{shown} is a STAC {kind}, which lists items, and a scene is one item: give that"
        )
    if kind != "Feature":
        raise SceneError(
            f'{shown} is no STAC item: its "type" is {str(kind)[:40]!r} and must be "Feature"'
        )
    identifier = value.get("id")
    if isinstance(identifier, int):  # some programs number their items
        identifier = str(identifier)
    identifier = text(identifier)
    if identifier is None:
        raise SceneError(f'{shown} is no STAC item: it has no "id", which names the scene')
    if not isinstance(assets, Mapping):
        raise SceneError(f'{shown} is no STAC item: it has no "assets", which name its files')
    properties = value.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    epsg = _epsg(properties)
    found = {
        name: _asset(name, asset, epsg)
        for key, asset in assets.items()
        if isinstance(asset, Mapping) and (name := text(key))
    }
    return Item(
        identifier,
        text(value.get("collection")),
        public,
        text(properties.get("datetime")) or text(properties.get("start_datetime")),
        properties,
        found,
    )


def address_of(asset: Asset, item: Item, rules: Rules) -> str:
    """Find where an asset is, and see that the item may lead there.

    Args:
        asset: of the item.
        item: that names it.
        rules: folders into which it may point, besides its own.

    Returns:
        A path or an address, as :func:`geoseg.core.names.public_name` gives it.

    Raises:
        SceneError: it lies where the item may not lead, or its address can't be told.
    """
    href = asset.href
    where = f"{item.href or item.id} names {public_name(href)[:200]!r} for its asset {asset.key}"
    if not href or text(href) != href or href.lstrip().startswith(("<", "{", "/vsi")):
        raise SceneError(f"{where}, which is no address of a file; give the rasters themselves")
    scheme = SCHEME.match(href)
    if scheme is None and not item.href and not os.path.isabs(href):
        raise SceneError(
            f"{where}, which is relative, and where the item lies is not known: save the item "
            f"beside its files, and give the file"
        )
    if scheme is None and not is_remote(item.href):
        return _path_of(href, item, rules, where)
    full = href
    if scheme is None:
        # urljoin knows relative addresses of some schemes only.
        own, rest = full_address(item.href).split(":", 1)
        joined = urljoin(f"http:{rest}", href)
        full = own + joined[len("http") :] if joined.startswith("http:") else joined
    if not full.startswith(tuple(f"{s}://" for s in SCHEMES)):
        raise SceneError(
            f"{where}; an item may name files by {', '.join(SCHEMES)}, or by a path in its own "
            f"folder: give the rasters themselves"
        )
    return public_name(full)


def _path_of(href: str, item: Item, rules: Rules, where: str) -> str:
    """Find an asset's path on this machine.

    Raises:
        SceneError: it lies neither in the item's folder nor under a root of the user's.
    """
    here = os.path.dirname(item.href)
    path = os.path.join(here, href)
    real = os.path.realpath(path)
    roots = [*([os.path.realpath(here or ".")] if item.href else []), *rules.roots]
    if rules.vrt != "any" and not any(lies_in(real, root) for root in roots):
        folder = os.path.dirname(real)
        raise SceneError(
            f"{where}, which lies in {folder}; an item may name files in its own folder only: if "
            f"you trust it, give --input-root {folder}"
        )
    return os.path.normpath(path)


def _self_link(value: Mapping[str, Any]) -> str | None:
    links = value.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping) and link.get("rel") == "self":
            href = text(link.get("href"))
            return href if href and is_remote(href) else None
    return None


def _asset(key: str, value: Mapping[str, Any], epsg: int | None) -> Asset:
    roles = value.get("roles")
    roles = roles if isinstance(roles, list) else []
    return Asset(
        key=key,
        href=href if isinstance(href := value.get("href"), str) else "",
        media=(text(value.get("type")) or "").lower(),
        roles=tuple(role.lower() for one in roles if (role := text(one))),
        epsg=_epsg(value) or epsg,
        bands=tuple(_bands(value)),
    )


def _bands(asset: Mapping[str, Any]) -> Iterator[AssetBand]:
    """What is said of each band: in STAC 1.1 ``bands``, before that in two lists of like length.

    What stands with the asset itself holds for its only band, or for all of them.
    """
    lists = [_objects(asset.get(key)) for key in ("bands", "eo:bands", "raster:bands")]
    count = max(map(len, lists))
    told = ("raster:", "classification:", "eo:common_name", "nodata")
    if count == 0 and not any(str(key).startswith(told) for key in asset):
        return
    for i in range(max(count, 1)):
        said: dict[str, Any] = {}
        # Names of raster:bands are seldom there; those of the others come first.
        for one in (asset, *(one[i] for one in reversed(lists) if i < len(one))):
            own = {"eo:bands", "raster:bands", "bands"}
            said |= {k: v for k, v in one.items() if k not in own and v is not None}
        names = [one[i] for one in lists if i < len(one)]
        yield AssetBand(
            name=next(filter(None, (text(one.get("name")) for one in names)), None),
            common=text(said.get("eo:common_name")) or text(said.get("common_name")),
            scale=_number_or_refuse(said, "raster:scale", "scale"),
            offset=_number_or_refuse(said, "raster:offset", "offset"),
            nodata=_number_or_refuse(said, "nodata", "raster:nodata"),
            resolution=_number(said, "raster:spatial_resolution", "spatial_resolution", "gsd"),
            classes=dict(_classes(said)),
            bits=dict(_bits(said)),
        )


def _classes(said: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for entry in _objects(said.get("classification:classes")):
        name = text(entry.get("name")) or text(entry.get("description"))
        number = entry.get("value")
        if type(number) is int and abs(number) < 1 << 32 and name:
            yield number, name


def _bits(said: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for entry in _objects(said.get("classification:bitfields")):
        name, place = text(entry.get("name")), entry.get("offset")
        if name and entry.get("length") == 1 and type(place) is int and 0 <= place < 32:
            yield place, name


def _objects(value: Any) -> Sequence[Mapping[str, Any]]:
    """A list of objects; others in it become empty ones, since places count."""
    if not isinstance(value, list):
        return ()
    return [one if isinstance(one, Mapping) else {} for one in value]


def text(value: Any) -> str | None:
    """A text that is not empty, fit to be printed in a line, or None."""
    return _UNFIT.sub("?", value) if isinstance(value, str) and value.strip() else None


def _number(said: Mapping[str, Any], *keys: str) -> float | None:
    """The first of these that is a number; STAC writes numbers that JSON does not have as texts."""
    for key in keys:
        value = said.get(key)
        if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
            return float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                return math.inf if value > 0 else -math.inf
    return None


def _number_or_refuse(said: Mapping[str, Any], *keys: str) -> float | None:
    """The first of these that is there, which decides what the band's numbers mean.

    Raises:
        SceneError: it is no number.
    """
    found = _number(said, *keys)
    wrong = next((key for key in keys if said.get(key) is not None), None)
    if found is None and wrong is not None:
        raise SceneError(
            f"{wrong} of a band is {str(said[wrong])[:40]!r} in the STAC item, and must be a "
            f"number; correct the item, or give the rasters themselves"
        )
    return found


def _epsg(said: Mapping[str, Any]) -> int | None:
    """The code of a CRS, as the projection extension has it in its versions 1 and 2."""
    code = said.get("proj:epsg")
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    match = re.fullmatch(r"EPSG:(\d{1,9})", str(said.get("proj:code")))
    return int(match[1]) if match else None


def file_name(identifier: str) -> str:
    """Make of an item's id a name for outputs, which names no folder.

    >>> file_name("HLS.S30.T18SUJ/2023"), file_name("../x")
    ('HLS.S30.T18SUJ_2023', '_x')
    """
    return re.sub(r"[^\w.-]", "_", identifier).lstrip(".")[:120] or "scene"
