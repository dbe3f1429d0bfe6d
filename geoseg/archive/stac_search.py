"""A search in a STAC API as the scenes of an archive, page by page.

pystac-client knows the protocol: pages, POST and GET, the extensions. What an API needs besides is
patience: one that has too many callers says so (429, 503), and when to come back.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from geoseg.archive.patience import BUSY, Access, PatientAdapter, bare_address
from geoseg.archive.slim_items import each_once, source_of_item
from geoseg.archive.sources import SceneSource
from geoseg.core.importing import require
from geoseg.core.names import full_address, public_name, scrub
from geoseg.core.wording import counted
from geoseg.errors import GeosegError, SceneError, UsageError
from geoseg.events import Progress

__all__ = ["parse_query", "search_items"]

#: Items that are asked for at a time.
PAGE = 100
#: Seconds for a connection, and without a byte.
TIMEOUT = (30.0, 60.0)
_OPERATORS = {
    **{"<=": "lte", ">=": "gte", "!=": "neq", "<>": "neq", "==": "eq"},
    **{"=": "eq", "<": "lt", ">": "gt"},
}
_SIGNS = {"lte": "<=", "gte": ">=", "neq": "<>", "eq": "=", "lt": "<", "gt": ">"}
_QUERY = re.compile(r"\s*([\w:.-]+)\s*(<=|>=|!=|<>|==|=|<|>)\s*(\S.*?)\s*")


def search_items(
    url: str,
    *,
    collections: Sequence[str],
    bbox: Sequence[float] | None = None,
    datetime: str | None = None,
    query: Sequence[str] = (),
    limit: int | None = None,
    report: Progress | None = None,
) -> Iterator[SceneSource]:
    """Go through the scenes that a STAC API finds.

    Args:
        url: address of the API. A user and password, or a token in its query, go to that server
            with every request, and to no other.
        collections: at least one.
        bbox: west, south, east, north in degrees.
        datetime: a time, a day, a month, a year, or two of them with a / between.
        query: conditions on properties, such as ``eo:cloud_cover<20``; all must hold.
        limit: scenes that are given at most; None for all.
        report: hears a note when the server has us wait.

    Raises:
        MissingExtraError: pystac-client is not installed.
        UsageError: a condition can't be understood, or nothing was found.
        SceneError: the server refuses, fails for minutes, or is no STAC API.
    """
    require("batch", "--stac-api")
    place = public_name(url)
    if not place.startswith(("http://", "https://")):
        raise UsageError(f"--stac-api {place}: the address of a STAC API begins with https://")
    if not collections:
        raise UsageError(
            f"--stac-api {place}: without a collection all of its scenes would be taken; give "
            f"--collection"
        )
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; it must be 1 or more")
    asked: dict[str, Any] = {"collections": list(collections)}
    if bbox is not None:
        asked["bbox"] = _checked(bbox)
    if datetime is not None:
        asked["datetime"] = datetime
    conditions = [parse_query(one) for one in query]
    return _found(place, asked, conditions, limit, report or (lambda event: None))


def parse_query(text: str) -> tuple[str, str, Any]:
    """Read a condition on a property.

    Args:
        text: a property's name, one of ``= != < <= > >=``, and a number or a text.

    Returns:
        The property, the query extension's name of the sign, and the value.

    Raises:
        UsageError: it is none.

    Example:
        >>> parse_query("eo:cloud_cover<20")
        ('eo:cloud_cover', 'lt', 20)
    """
    match = _QUERY.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--query {text!r} is no condition; write a property, one of = != < <= > >=, and a "
            f'value, such as "eo:cloud_cover<20"'
        )
    return match[1], _OPERATORS[match[2]], _value(match[3])


def _value(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    # Codes such as 05.09 or 007 are texts.
    if re.fullmatch(r"-?(0|[1-9]\d*)", text):
        return int(text)
    if re.fullmatch(r"-?(0|[1-9]\d*)\.\d+([eE]-?\d+)?", text):
        return float(text)
    return text


def _checked(bbox: Sequence[float]) -> list[float]:
    box = [float(side) for side in bbox]
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[1] > box[3]:
        raise UsageError(
            f"--bbox is {', '.join(f'{side:g}' for side in box)}; it must be west, south, east and "
            f"north in degrees"
        )
    if max(abs(box[1]), abs(box[3])) > 90 or max(abs(box[0]), abs(box[2])) > 180:
        raise UsageError(
            f"--bbox is {', '.join(f'{side:g}' for side in box)}; longitudes go from -180 to 180 "
            f"and latitudes from -90 to 90"
        )
    return box


def _found(
    place: str,
    asked: dict[str, Any],
    conditions: list[tuple[str, str, Any]],
    limit: int | None,
    report: Progress,
) -> Iterator[SceneSource]:
    with _explained(place):
        client = _connect(place, report)
        method = "POST" if "POST" in _methods(client) else "GET"
        search = client.search(
            method=method,
            limit=min(PAGE, limit or PAGE),
            max_items=limit,
            **asked,
            **_conditions(client, conditions, method, place),
        )
        pages = search.pages_as_dicts()
    count = 0
    for source in each_once(_sources(pages, place), place):
        count += 1
        yield source
    if not count:
        raise UsageError(_nothing(client, place, asked, conditions))


def _sources(pages: Iterator[Mapping[str, Any]], place: str) -> Iterator[SceneSource]:
    before: list[tuple[Any, str]] = []
    while True:
        with _explained(place):
            page = next(pages, None)
            if page is None:
                return
            features = list(page["features"])
        try:
            sources = [source_of_item(value) for value in features]
        except SceneError as error:
            raise SceneError(f"{place} gives an item that is none: {error}") from error
        names = [((source.item or {}).get("collection"), source.name) for source in sources]
        if names == before:
            raise SceneError(
                f"{place} gives the same {counted(len(names), 'item')} page after page, which is "
                f"a fault of the server's; search for less at a time, by --bbox or --datetime"
            )
        before = names
        yield from sources


def _connect(place: str, report: Progress) -> Any:
    """Open the API: its landing page says what it can do."""
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO

    address = full_address(place)
    access = Access(address)
    server: Any = StacApiIO(timeout=TIMEOUT, max_retries=None)
    for scheme in ("https://", "http://"):
        server.session.mount(scheme, PatientAdapter(report))
    if access:
        server.session.auth = access
    return Client.open(bare_address(address), stac_io=server)


def _methods(client: Any) -> set[str]:
    """How the API's search may be called."""
    links = client.get_links("search")
    return {str(link.extra_fields.get("method", "GET")).upper() for link in links}


def _conditions(
    client: Any, conditions: list[tuple[str, str, Any]], method: str, place: str
) -> dict[str, Any]:
    """Write conditions for the extension that the API has.

    Raises:
        UsageError: it has none.
    """
    if not conditions:
        return {}
    if client.conforms_to("QUERY"):
        asked: dict[str, dict[str, Any]] = {}
        for name, sign, value in conditions:
            asked.setdefault(name, {})[sign] = value
        return {"query": asked}
    if client.conforms_to("FILTER"):
        if method == "POST":
            parts = [
                {"op": _SIGNS[sign], "args": [{"property": name}, value]}
                for name, sign, value in conditions
            ]
            return {"filter": {"op": "and", "args": parts}, "filter_lang": "cql2-json"}
        texts = [f'"{name}" {_SIGNS[sign]} {_cql(value)}' for name, sign, value in conditions]
        return {"filter": " AND ".join(texts), "filter_lang": "cql2-text"}
    raise UsageError(
        f"{place} can't search by properties: it has neither the query nor the filter extension; "
        f"leave out --query, or list the items in a file"
    )


def _cql(value: Any) -> str:
    if isinstance(value, str):
        doubled = value.replace("'", "''")
        return f"'{doubled}'"
    return json.dumps(value)


def _nothing(
    client: Any, place: str, asked: Mapping[str, Any], conditions: list[tuple[str, str, Any]]
) -> str:
    """Say that nothing was found, and why if that can be told."""
    with suppress(Exception), warnings.catch_warnings():  # it is for a better message only
        warnings.simplefilter("ignore")
        known = client.conforms_to("COLLECTIONS")
        missing = [n for n in asked["collections"] if known and client.get_collection(n) is None]
        if missing:
            return f"{place} has no collection {missing[0]}; check --collection"
    said = [f"--collection {name}" for name in asked["collections"]]
    if "bbox" in asked:
        said.append(f"--bbox {' '.join(f'{side:g}' for side in asked['bbox'])}")
    if "datetime" in asked:
        said.append(f"--datetime {asked['datetime']}")
    said += [f"--query {name}{_SIGNS[sign]}{value}" for name, sign, value in conditions]
    return f"{place} finds no item with {', '.join(said)}; ask for less, or check the spelling"


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Say in a line what a server's answer means.

    Raises:
        SceneError: it refuses, fails, or is no STAC API.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what an API can't do is looked at here
            yield
    except GeosegError:
        raise
    except Exception as error:  # pystac-client raises whatever it meets
        raise _error(place, error) from error


def _error(place: str, error: Exception) -> GeosegError:
    code = getattr(error, "status_code", None)
    said = " ".join(scrub(_said(str(error))).split())[:160]
    if code in (401, 403):
        return SceneError(
            f"{place} refuses the search (HTTP response code: {code}): {said}; check the user and "
            f"password, or the token, in its address"
        )
    if code in BUSY:
        return SceneError(
            f"{place} has been busy for too long (HTTP response code: {code}): {said}; give the "
            f"same command again later"
        )
    if code is not None and 400 <= code < 500:
        return SceneError(
            f"{place} can't answer (HTTP response code: {code}): {said}; check the address, and "
            f"what is searched for"
        )
    if type(error).__name__ == "APIError":
        return SceneError(
            f"{place} can't be read ({said}); check the address and the network, or give the same "
            f"command again later"
        )
    if said.startswith("invalid datetime"):
        return UsageError(f"--datetime: {said}; give a time, a day, or two with a / between")
    return SceneError(
        f"{place} is no STAC API that geoseg can search ({type(error).__name__}: {said}); give the "
        f"address of its landing page"
    )


def _said(text: str) -> str:
    """The message in a server's answer, which most write as JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return re.sub(r"<[^>]*>", " ", text)
    for key in ("description", "detail", "message", "title", "code"):
        if isinstance(value, dict) and isinstance(value.get(key), str):
            return str(value[key])
    return text
