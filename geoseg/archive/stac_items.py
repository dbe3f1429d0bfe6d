"""STAC items as the scenes of an archive: files of items, catalogues, tables, searches.

Items come one after another, and no more than a page of them is in memory. The same item, by its
collection and its id, that comes twice is given once; two that differ are refused, since nothing
says which one is right, and both maps would have one name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urljoin

from geoseg.archive.json_stream import read_features, read_lines
from geoseg.archive.slim_items import each_once, self_link, source_of_item
from geoseg.archive.sources import SceneSource, source_of_file
from geoseg.archive.stac_search import search_items
from geoseg.core.download import download
from geoseg.core.names import full_address, public_name
from geoseg.core.s3 import s3_parts
from geoseg.errors import SceneError, UsageError
from geoseg.scene.item import MAX_BYTES
from geoseg.scene.sources import SCHEME, is_remote, lies_in

__all__ = ["read_items", "search_items"]

#: Bytes of a file that is fetched whole.
MOST = 250_000_000
#: Catalogues in catalogues.
DEPTH = 20


def read_items(manifest: str) -> Iterator[SceneSource]:
    """Go through the scenes that STAC items describe.

    Args:
        manifest: path or address (http, https, s3) of an item, an ItemCollection, a Catalog or a
            Collection (.json, .geojson), of items one a line (.ndjson), or of a table of them
            (.parquet).
            The links of a catalogue on this machine lead to files below its own folder only, those
            of one on a server to http(s) only, of one in a bucket also to that bucket.

    Raises:
        UsageError: it holds no item, or an item twice that differs.
        SceneError: it can't be read, or is no STAC.
    """
    place = public_name(manifest)
    if is_remote(place) and not place.startswith(("http://", "https://", "s3://")):
        raise UsageError(
            f"{place}: lists of items are read from http(s), s3 and from this machine; download "
            f"it, and give the file"
        )
    place = place if is_remote(place) else os.path.abspath(place)
    found = False
    for source in each_once(_all(place), place):
        found = True
        yield source
    if not found:
        raise UsageError(f"{place} holds no STAC item; give a file or a catalogue that does")


def _all(place: str) -> Iterator[SceneSource]:
    suffix = os.path.splitext(place.split("?")[0] if is_remote(place) else place)[1].lower()
    if suffix == ".parquet":
        from geoseg.archive.stac_parquet import read_table

        file = place if not is_remote(place) else io.BytesIO(_fetched(place))
        yield from _numbered(read_table(file, place), place, "row")
    elif suffix == ".ndjson":
        with _opened(place) as lines:
            yield from _numbered(read_lines(lines, place), place, "item")
    else:
        yield from _Walk(place).sources(place, 0)


def _numbered(items: Iterable[Any], place: str, what: str, first: int = 1) -> Iterator[SceneSource]:
    """Make scenes of items that a file lists.

    Relative addresses lead on from an item's self link, or from that file where it has none.
    """
    for number, value in enumerate(items, start=first):
        try:
            yield source_of_item(value, "" if self_link(value) else place)
        except SceneError as error:
            raise SceneError(f"{place}: {what} {number}: {error}") from error


def _one_item(place: str) -> SceneSource:
    with _opened(place, MAX_BYTES) as file:
        is_feature, value = next(read_features(file, place))
        if is_feature:
            raise SceneError(f"{place} lists items, and is linked as one item")
        return source_of_item(value, place)


def _opened(place: str, most: int = MOST) -> BinaryIO:
    if is_remote(place):
        return io.BytesIO(_fetched(place, most))
    try:
        return open(place, "rb")
    except OSError as error:
        raise SceneError(f"{place} can't be read ({error.strerror})") from error


def _fetched(place: str, most: int = MOST) -> bytes:
    data = download(place, most + 1)
    if len(data) > most:
        raise SceneError(
            f"{place} has more than {most // 1_000_000} MB; download it, and give the file"
        )
    return data


class _Walk:
    """Follows the links of a catalogue, each once and in their order."""

    def __init__(self, root: str) -> None:
        self._folder = None if is_remote(root) else os.path.realpath(os.path.dirname(root))
        self._seen = {root}

    def sources(self, place: str, depth: int) -> Iterator[SceneSource]:
        """Give the scenes that a file holds or leads to."""
        number = 0
        with _opened(place) as file:
            for is_feature, value in read_features(file, place):
                if is_feature:
                    number += 1
                    yield from _numbered([value], place, "item", number)
                elif value.get("type") in ("Catalog", "Collection"):
                    yield from self._linked(value, place, depth)
                elif value.get("type") != "FeatureCollection":
                    yield source_of_item(value, place)
                elif any(rel == "next" for rel, _ in _links(value)):
                    raise UsageError(
                        f"{place} is one page of a search, and its server has more; give the "
                        f"server's address by --stac-api, or save all items in one file"
                    )

    def _linked(self, catalog: Mapping[str, Any], place: str, depth: int) -> Iterator[SceneSource]:
        links = [(rel, href) for rel, href in _links(catalog) if rel in ("item", "child")]
        if not links and any(rel in ("items", "search", "data") for rel, _ in _links(catalog)):
            raise UsageError(
                f"{place} belongs to a STAC API, which is searched: give its address by --stac-api"
            )
        for rel, href in links:
            target = self._target(href, place)
            if target in self._seen:
                continue
            self._seen.add(target)
            if rel == "child":
                if depth == DEPTH:
                    raise SceneError(
                        f"{target} is a catalogue below {DEPTH} others, and geoseg goes no deeper; "
                        f"give it by itself"
                    )
                yield from self.sources(target, depth + 1)
                continue
            try:
                source = _one_item(target)
            except SceneError:
                # The job of that one scene meets the same error, and reports it.
                source = source_of_file(target)
            yield source

    def _target(self, href: str, place: str) -> str:
        """Find where a link of a catalogue leads.

        Raises:
            SceneError: where it may not.
        """
        if is_remote(place):
            base, own = full_address(place), ["http://", "https://"]
            if base.startswith("s3://"):
                own.append(f"s3://{s3_parts(base)[0]}/")
            if target := _joined(base, href, tuple(own)):
                return public_name(target)
            where = "in a bucket leads to that and to" if len(own) > 2 else "on a server leads to"
            raise SceneError(
                f"{place} links {public_name(href)[:200]!r}; a catalogue {where} http(s) only: "
                f"download what it links, and give that"
            )
        path = os.path.normpath(os.path.join(os.path.dirname(place), href))
        if SCHEME.match(href) is None and lies_in(os.path.realpath(path), self._folder or ""):
            return path
        raise SceneError(
            f"{place} links {public_name(href)[:200]!r}; a catalogue on this machine leads to "
            f"files below its own folder, {self._folder}, only: give what it links by itself"
        )


def _joined(base: str, href: str, allowed: tuple[str, ...]) -> str:
    """Find where a link on a server leads; "" where it may not."""
    if base.startswith("s3://") and SCHEME.match(href) is None:
        # urljoin knows relative addresses of some schemes only.
        target = "s3" + urljoin(f"http{base[2:]}", href).removeprefix("http")
    else:
        target = urljoin(base, href)
    return target if target.startswith(allowed) else ""


def _links(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    links = value.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping):
            rel, href = link.get("rel"), link.get("href")
            if isinstance(rel, str) and isinstance(href, str) and href:
                yield rel, href
