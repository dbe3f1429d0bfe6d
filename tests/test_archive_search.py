"""Searches in STAC APIs: rustac's server behind one that fails, and one that can query."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from geoseg.archive import patience
from geoseg.archive.patience import Access, wait_asked
from geoseg.archive.sources import addresses
from geoseg.archive.stac_search import parse_query, search_items
from geoseg.errors import SceneError, UsageError
from tests import stacitems

pytest.importorskip("pystac_client")

COUNT = 250


def make_item(number: int) -> dict[str, Any]:
    west = number % 100 / 10
    assets = {"B04": {"href": f"s3://b/{number}.tif", "type": "image/tiff"}}
    value = stacitems.item(f"i{number:03}", "c", assets, **{"eo:cloud_cover": number % 50})
    ring = [[west, 45], [west + 0.1, 45], [west + 0.1, 46], [west, 46], [west, 45]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {**value, "geometry": geometry, "bbox": [west, 45, west + 0.1, 46]}


class Server:
    """Answers requests as it is told to.

    Attributes:
        answer: gets method, path with query, headers and body; gives a status, headers and a body.
        asked: method and path of all requests.
    """

    def __init__(self) -> None:
        self.answer: Callable[..., tuple[int, dict[str, str], bytes]]
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer("GET")

            def do_POST(self) -> None:
                self._answer("POST")

            def _answer(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append((method, self.path))
                status, headers, data = outer.answer(method, self.path, self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                cut = headers.get("X-Cut")
                self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection = cut is not None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, which do not pass."""
    found: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", found.append)
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def rustac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an API with 250 items."""
    pytest.importorskip("rustac")
    folder = tmp_path_factory.mktemp("api")
    value = {"type": "FeatureCollection", "features": [make_item(n) for n in range(COUNT)]}
    stacitems.save(folder, value, "items.json")
    host = f"127.0.0.1:{free_port()}"
    program = folder / "serve_items.py"  # it reads the arguments behind a script's name
    program.write_text("import rustac\nrustac.main()\n", encoding="utf-8")
    command = [sys.executable, str(program)]
    arguments = ["serve", "--addr", host, "--create-collections", str(folder / "items.json")]
    process = subprocess.Popen([*command, *arguments], stdout=-3, stderr=-3)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://{host}/", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, "rustac did not start"
                time.sleep(0.1)
        yield host
    finally:
        process.terminate()
        process.wait(30)


def through(server: Server, host: str, fault: Callable[[int], str | None]) -> None:
    """Have a server pass requests on to another, and fail where it is told to."""

    def answer(method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any, bytes]:
        kind = fault(len(server.asked) - 1)
        if kind in ("429", "503"):
            more = {"Retry-After": "7"} if kind == "429" else {}
            return int(kind), more, b'{"code": "Busy", "description": "too many callers"}'
        kept = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(f"http://{host}{path}", body or None, kept, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                data, status = found.read(), 200
        except urllib.error.HTTPError as error:
            data, status = error.read(), error.code
        data = data.replace(host.encode(), server.host.encode())
        return status, {"X-Cut": "1"} if kind == "cut" else {}, data

    server.answer = answer


def names(url: str, **options: Any) -> list[str]:
    return [s.name for s in search_items(url, **{"collections": ["c"], **options})]


def test_all_pages_are_found_whatever_fails_on_the_way(
    rustac: str, server: Server, waits: list[float]
) -> None:
    faults = iter(["429", "503", "cut", None, "503", "429", "429", None, "cut", None])
    through(server, rustac, lambda number: next(faults, None))
    heard: list[Any] = []
    found = list(search_items(server.url, collections=["c"], report=heard.append))
    assert sorted(s.name for s in found) == [f"i{n:03}" for n in range(COUNT)]
    assert len(waits) == 7 and len(heard) == 7
    # The server's word counts, and nobody comes before that.
    assert sum(7 <= w <= 7.8 for w in waits) == 3
    assert all(event["event"] == "note" for event in heard)
    said = heard[0]["message"]
    assert re.fullmatch(r"127\.0\.0\.1 is busy \(HTTP 429\); asking again in 7\.\d s", said)
    first = next(s for s in found if s.name == "i007")
    assert first.footprint == pytest.approx((0.7, 45, 0.8, 46))
    assert first.item and first.item["assets"]["B04"]["href"] == "s3://b/7.tif"
    assert first.place == f"{server.url}/collections/c/items/i007"
    assert addresses(first.record())["item"]["id"] == "i007"


def test_what_is_searched_for_reaches_the_server(rustac: str) -> None:
    url = f"http://{rustac}"
    box = names(url, bbox=(2.05, 45.2, 2.15, 45.8))
    assert sorted(box) == sorted(f"i{n:03}" for n in range(COUNT) if n % 100 in (20, 21))
    assert len(names(url, limit=120)) == 120 and len(names(url, limit=3)) == 3
    assert len(names(url, datetime="2023-06")) == COUNT
    with pytest.raises(UsageError, match="--datetime 2024"):
        names(url, datetime="2024")
    with pytest.raises(UsageError, match="has no collection d"):
        names(url, collections=["d"])
    with pytest.raises(UsageError, match="neither the query nor the filter"):
        names(url, query=["eo:cloud_cover<20"])
    with pytest.raises(UsageError, match=r"--datetime: invalid datetime.*yesterday"):
        names(url, datetime="yesterday")


def an_api(server: Server, *conforms: str, methods: tuple[str, ...] = ("GET", "POST")) -> list[Any]:
    """An API that gives one item, and what it was asked for."""
    searched: list[Any] = []
    prefix = "https://api.stacspec.org/v1.0.0/"

    def answer(method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any, bytes]:
        if path.startswith("/search"):
            searched.append(json.loads(body) if method == "POST" else path)
            return 200, {}, json.dumps({"features": [make_item(1)], "links": []}).encode()
        links = [{"rel": "search", "href": f"{server.url}/search", "method": m} for m in methods]
        root = {"type": "Catalog", "id": "x", "description": "x", "stac_version": "1.0.0"}
        names = ("core", "item-search", *conforms)
        root |= {"links": links, "conformsTo": [f"{prefix}{name}" for name in names]}
        return 200, {}, json.dumps(root).encode()

    server.answer = answer
    return searched


QUERY = ["eo:cloud_cover<20", "platform = sentinel-2a", "eo:cloud_cover >= 1.5", "s2:v=05.09"]


def test_conditions_are_asked_by_the_extension_that_there_is(server: Server) -> None:
    searched = an_api(server, "item-search#query", "item-search#filter")
    assert names(server.url, query=QUERY) == ["i001"]
    assert searched[0]["query"] == {
        "eo:cloud_cover": {"lt": 20, "gte": 1.5},
        "platform": {"eq": "sentinel-2a"},
        "s2:v": {"eq": "05.09"},
    }
    searched = an_api(server, "item-search#filter")
    assert names(server.url, query=QUERY[:2]) == ["i001"]
    assert searched[0]["filter-lang"] == "cql2-json"
    assert searched[0]["filter"] == {
        "op": "and",
        "args": [
            {"op": "<", "args": [{"property": "eo:cloud_cover"}, 20]},
            {"op": "=", "args": [{"property": "platform"}, "sentinel-2a"]},
        ],
    }
    searched = an_api(server, "item-search#filter", methods=("GET",))
    assert names(server.url, query=["eo:cloud_cover<20", "a='it''s'"]) == ["i001"]
    text = urllib.request.unquote(searched[0]).replace("+", " ")  # type: ignore[attr-defined]
    assert "filter=\"eo:cloud_cover\" < 20 AND \"a\" = 'it''''s'" in text
    searched = an_api(server, "item-search#query", methods=("GET",))
    assert names(server.url, query=["eo:cloud_cover<20"]) == ["i001"]
    text = urllib.request.unquote(searched[0])  # type: ignore[attr-defined]
    assert '"eo:cloud_cover"' in text and '"lt"' in text and "20" in text


@pytest.mark.parametrize("text", ["", "eo:cloud_cover", "<20", "a<", "a b<3"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no condition"):
        parse_query(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=true", True),
        ("a='5'", "5"),
        ("a=-3", -3),
        ("a=1.5", 1.5),
        ("a=007", "007"),
        ("a=x y", "x y"),
    ],
)
def test_values_are_numbers_where_they_look_like_it(text: str, value: Any) -> None:
    found = parse_query(text)[2]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("code", [401, 403, 404, 400, 422])
def test_a_refusal_is_reported_at_once(code: int, server: Server, waits: list[float]) -> None:
    body = b'{"code": "Nope", "description": "not\\nwith this token"}'
    server.answer = lambda *_: (code, {}, body)
    with pytest.raises(SceneError, match=f"HTTP response code: {code}") as caught:
        names(server.url)
    assert not waits and len(server.asked) == 1
    said = str(caught.value)
    assert "not with this token" in said and "\n" not in said
    assert ("password" in said) == (code in (401, 403))


def test_patience_ends(server: Server, waits: list[float]) -> None:
    server.answer = lambda *_: (503, {}, b"<html><h1>Busy</h1></html>")
    with pytest.raises(SceneError, match="again later") as caught:
        names(server.url)
    assert 400 < sum(waits) <= patience.LONGEST and "<" not in str(caught.value)
    # Nobody waits for an hour.
    waits.clear()
    server.answer = lambda *_: (429, {"Retry-After": "3600"}, b"")
    with pytest.raises(SceneError, match="HTTP response code: 429"):
        names(server.url)
    assert not waits
    # A server that is not there is no matter of minutes.
    server.answer = lambda *_: (200, {"X-Cut": "1"}, b"x" * 100)
    with pytest.raises(SceneError, match="check the address and the network"):
        names(server.url)
    assert len(waits) == patience.TRIES - 1 and sum(waits) < 60


def test_pages_that_repeat_are_reported(server: Server) -> None:
    an_api(server)
    before = server.answer

    def answer(method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any, bytes]:
        if path.startswith("/search"):
            link = {"rel": "next", "href": f"{server.url}/search?page=2", "method": "GET"}
            return 200, {}, json.dumps({"features": [make_item(1)], "links": [link]}).encode()
        return before(method, path, headers, body)

    server.answer = answer
    with pytest.raises(SceneError, match="the same 1 item page after page"):
        names(server.url)


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"[]", b'{"type": "Feature"}', b'{"type": "Catalog", "id": "x"}']
)
def test_what_is_no_api_is_refused_in_a_line(body: bytes, server: Server) -> None:
    server.answer = lambda *_: (200, {}, body)
    with pytest.raises(SceneError, match="no STAC API") as caught:
        names(server.url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"features": [5]}', b'{"features": 5}', b"x"])
def test_a_page_that_is_none_is_refused_in_a_line(body: bytes, server: Server) -> None:
    an_api(server)
    before = server.answer
    server.answer = lambda *a: (200, {}, body) if a[1].startswith("/search") else before(*a)
    with pytest.raises((SceneError, UsageError)) as caught:
        names(server.url)
    assert "\n" not in str(caught.value) and server.url in str(caught.value)


def test_access_goes_to_that_server_alone(server: Server) -> None:
    searched = an_api(server)
    before, seen = server.answer, []

    def answer(method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any, bytes]:
        seen.append((path, headers.get("Authorization")))
        return before(method, path, headers, body)

    server.answer = answer
    url = f"http://me:p%40w@{server.host}/?token=SECRET"
    (source,) = search_items(url, collections=["c"])
    assert searched and len(seen) == 2
    for path, who in seen:
        assert "token=SECRET" in path and who == "Basic bWU6cEB3"
    assert "SECRET" not in json.dumps(source.record())
    with pytest.raises(SceneError) as caught:
        server.answer = lambda *_: (500 - 99, {}, b"")
        names(url)
    assert "SECRET" not in str(caught.value) and "p%40w" not in str(caught.value)

    class Request:
        url = "https://other.example.com/search"
        headers: dict[str, str] = {}  # noqa: RUF012

    assert Access(url)(Request()).headers == {}
    assert Request.url == "https://other.example.com/search"


def test_what_can_not_be_asked_is_refused_before_any_request() -> None:
    for options, said in (
        ({"collections": []}, "--collection"),
        ({"bbox": (1, 2, 3)}, "west, south, east and north"),
        ({"bbox": (1, 5, 3, 4)}, "west, south, east and north"),
        ({"bbox": (1, 5, 3, 94)}, "latitudes"),
        ({"limit": 0}, "--limit is 0"),
        ({"query": ["x"]}, "no condition"),
    ):
        with pytest.raises(UsageError, match=said):
            names("https://none.invalid", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="begins with https"):
        names("/a/folder")


def test_how_long_a_server_asks_to_wait() -> None:
    assert wait_asked({"Retry-After": "7"}) == 7
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert wait_asked({"Retry-After": format_datetime(later, usegmt=True)}) == pytest.approx(
        90, abs=5
    )
    assert wait_asked({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0
    assert wait_asked({}) is None and wait_asked({"Retry-After": "soon"}) is None
