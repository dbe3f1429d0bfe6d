"""GDAL through rasterio: its settings, its errors, and what is tried again."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import rasterio
import rasterio.env
import rasterio.errors

# GDAL's own errors mostly arrive as rasterio.errors.RasterioError, but those found while a file is
# flushed or its overviews are made come as they are, and have no public name (rasterio 1.4).
from rasterio._err import CPLE_BaseError
from rasterio.session import DummySession

from geoseg.core.names import full_address, scrub
from geoseg.core.s3_settings import gdal_options_of_s3

__all__ = [
    "GDAL_ERRORS",
    "Refused",
    "block_cache",
    "explain_open_error",
    "explain_read_error",
    "first_line",
    "gdal_cause",
    "gdal_options",
    "over_network",
    "retried",
]

T = TypeVar("T")

#: For ``except``.
GDAL_ERRORS: tuple[type[Exception], ...] = (
    rasterio.errors.RasterioError,
    CPLE_BaseError,
    OSError,
)
#: Names of what GDAL reads over a network, also of an archive's member that it reads so.
NETWORK = re.compile(
    r"^(\w+\+)?(https?|ftp|s3|gs|az|oss)://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(_streaming)?\b"
)
#: Those of them that are in buckets of S3.
IN_S3 = re.compile(r"^(\w+\+)?s3://|/vsis3(_streaming)?/")
#: GDAL has no time limit of its own: a server that stops sending would hang the run. One that is
#: slow is none, so it is the speed that ends a request: below 1000 bytes/s for half a minute.
NETWORK_OPTIONS = {
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}
#: GDAL retries requests that were refused, but not bodies that were cut short: so often is a file
#: opened, or a window read, with these seconds before the next try.
NETWORK_DELAYS = (0.5, 1.0, 2.0)
#: What GDAL says where another try would end in the same way; it has itself repeated requests that
#: were refused for now.
FINAL = re.compile(
    r"HTTP response code: \d|Range downloading|does not exist|[Aa]ccess ?[Dd]enied|Forbidden|"
    # Of credentials.
    r"request signature|AWS_SECRET_ACCESS_KEY|[Tt]oken (has expired|is|you provided)"
)
#: What GDAL says when it repeats a request that was refused.
REFUSED = re.compile(r"HTTP error code: (\d+) .*Retrying again in ([\d.]+) sec")
#: What a server answers that is at fault, or has too much to do.
FAILING = re.compile(r"HTTP response code: (5\d\d|429)")
#: GDAL's names of all networks, for its option CPL_VSIL_CURL_NON_CACHED.
NETWORK_NAMES = ":".join(
    f"/vsi{name}/" for name in ["curl", "s3", "gs", "az", "adls", "oss", "swift", "webhdfs"]
)


def over_network(source: str) -> bool:
    """Whether GDAL reads the source over a network.

    >>> over_network("/vsizip/vsicurl/https://x.org/a.zip/b.tif")
    True
    >>> over_network("/vsizip/a.zip/b.tif")
    False
    """
    return NETWORK.search(source) is not None


@contextmanager
def gdal_options(source: str) -> Iterator[None]:
    """GDAL's settings for opening and reading a source, for the length of a ``with``.

    They hold for this thread, and where it is the main one for all: so nothing is written inside.
    What the user has set, by environment variable or rasterio.Env, stays.

    Args:
        source: path or URL.
    """
    options: dict[str, str] = {}
    if over_network(source):
        before = rasterio.env.getenv() if rasterio.env.hasenv() else {}
        wanted = NETWORK_OPTIONS | (gdal_options_of_s3() if IN_S3.search(source) else {})
        options = {k: v for k, v in wanted.items() if k not in os.environ and k not in before}
    # GDAL looks for credentials itself; rasterio would ask boto3 for them each time.
    with rasterio.Env(session=DummySession(), **options):
        yield


@contextmanager
def block_cache(size: int) -> Iterator[None]:
    """Set the size of GDAL's block cache, of the whole process, for the length of a ``with``.

    Args:
        size: bytes, since rasterio.Env sets bytes where the environment variable of the same name
            means megabytes.
    """
    with rasterio.Env(session=DummySession(), GDAL_CACHEMAX=size):
        yield


def retried(source: str, read: Callable[[], T]) -> T:
    """Call a function that opens or reads a source; over a network it is tried again.

    Args:
        source: path or URL.
        read: the function; it is called with the source's :func:`gdal_options`.

    Raises:
        Exception: what the last try ended with.
    """
    if not over_network(source):
        with gdal_options(source):
            return read()
    for delay in (*NETWORK_DELAYS, None):
        refused = Refused()
        try:
            with gdal_options(source), refused:
                return read()
        except GDAL_ERRORS as error:
            if refused.for_good:
                # What GDAL raises then says that the file is of no known format, or no more.
                raise rasterio.errors.RasterioIOError(str(error)) from refused.answer
            final = FINAL.search(str(error))
            if delay is None and not final:
                _forget(source)  # else this process would hear for good that it does not exist
            if delay is None or final:
                raise
            time.sleep(delay)
            _forget(source)
    raise AssertionError("the last try returns or raises")


class Refused(logging.Handler):
    """Hears, in this thread, what GDAL logs when it repeats requests that a server refuses.

    A context manager.
    """

    def __init__(self) -> None:
        """Nothing was refused so far."""
        super().__init__(logging.WARNING)
        self._thread, self._log = threading.get_ident(), logging.getLogger("rasterio")
        self._code, self._times, self._pause = "", 0, 0.0

    def __enter__(self) -> Refused:
        self._log.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Count a request that is repeated."""
        found = REFUSED.search(record.getMessage())
        if found is None or record.thread != self._thread:
            return
        pause = float(found[2])
        # No pause is shorter than the one before, but where another request begins.
        self._times = self._times + 1 if pause >= self._pause else 1
        self._code, self._pause = found[1], pause

    @property
    def for_good(self) -> bool:
        """Whether a request was repeated as often as GDAL does it."""
        most = os.environ.get("GDAL_HTTP_MAX_RETRY", NETWORK_OPTIONS["GDAL_HTTP_MAX_RETRY"])
        return self._times > 0 and self._times >= int(most if most.isdecimal() else 1)

    @property
    def answer(self) -> OSError:
        """Of the server, in GDAL's words."""
        return OSError(f"HTTP response code: {self._code}, {self._times + 1} times")


def _forget(source: str) -> None:
    """Have GDAL forget what it keeps of a source: half a body it would take for the whole."""
    # It forgets a file that is closed, where it was opened so.
    options = {"CPL_VSIL_CURL_NON_CACHED": NETWORK_NAMES}
    with (
        suppress(*GDAL_ERRORS, ValueError),
        warnings.catch_warnings(),
        gdal_options(source),
        rasterio.Env(session=DummySession(), **options),
    ):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        rasterio.open(full_address(source)).close()


def first_line(error: BaseException) -> str:
    """Shorten what an error says to a message of one line."""
    said = scrub(str(error)).strip()  # GDAL's messages hold addresses
    return said.splitlines()[0] if said else type(error).__name__


#: What GDAL says of a compression that it was built without.
CODEC = re.compile(r"missing codec|compression support is not configured")
#: And of what it knows and can't decode.
UNSUPPORTED = re.compile(r"[Uu]nsupported|not supported|doesn't support|not implemented|must be")
MISSING = re.compile(r"(.+): No such file or directory")
MEMORY = re.compile(r"[Oo]ut of memory|[Cc]annot allocate|[Mm]emory allocation")


def gdal_cause(error: BaseException) -> str:
    """Find what GDAL found first, in one line: rasterio's own words are "Read failed"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error).rstrip(".")


def explain_read_error(error: BaseException, source: str) -> str:
    """Explain why a part of an open file can't be read, and what to do.

    Args:
        error: what reading it ended with.
        source: path or URL.
    """
    cause = gdal_cause(error)
    if CODEC.search(cause):
        return _codec(cause)
    missing = MISSING.fullmatch(cause)
    if missing and missing[1] != source:
        return (
            f"{cause}: {Path(source).name} refers to that file; put it back, or correct the path "
            f"in {Path(source).name}"
        )
    if MEMORY.search(cause):
        return f"{cause}: free some memory, or write the file in smaller blocks ({TILED})"
    if over_network(source):
        found = f"the server failed or the connection broke, {len(NETWORK_DELAYS) + 1} times"
        if FAILING.search(cause):
            found = "the server fails"
        return f"{cause}: {found}; give the same command again later, or download the file"
    if UNSUPPORTED.search(cause):
        return f"{cause}: GDAL can't decode this file; convert it with the program that made it"
    # Of a virtual raster, the file behind it.
    inner = re.match(r"(.+), band \d+: ", first_line(error.__cause__) if error.__cause__ else "")
    where = f" in {inner[1]}" if inner and inner[1] != Path(source).name else ""
    return f"{cause}{where}: the file is damaged or cut short; fetch it again"


#: What writes a file in blocks that any program reads well.
TILED = "gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"


def _codec(cause: str) -> str:
    return (
        f"{cause}: the GDAL in use was built without that compression; convert the file where it "
        f"opens ({TILED})"
    )


def explain_open_error(error: BaseException, source: str) -> str:
    """Explain why a file can't be opened, and what to do.

    Args:
        error: what opening it ended with.
        source: path or URL.
    """
    cause = gdal_cause(error)
    if CODEC.search(cause):
        return f"{source} can't be read: {_codec(cause)}"
    if over_network(source):
        advice = "check the address and the access rights"
        if FAILING.search(cause):
            advice = "the server fails; give the same command again later"
        return f"{source} can't be read ({cause}): {advice}, or download the file"
    return f"{source} is not a raster that GDAL can open ({cause})"
