"""A small file over http(s) or out of a bucket, whole.

Rasters are read by GDAL, in parts. Servers of catalogues make their answers when they are asked:
many know neither ranges nor the size beforehand, and GDAL's files over a network need these.
"""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.request
from contextlib import closing
from urllib.parse import unquote, urlsplit, urlunsplit

from geoseg.core.names import full_address, scrub
from geoseg.errors import SceneError

__all__ = ["download"]

#: Seconds without a byte, after which a server counts as gone; and before each further try.
SILENCE = 30.0
DELAYS = (0.5, 2.0)
#: Seconds that all of it may take, and bytes that are read at a time.
PATIENCE, PART = 120.0, 1 << 16
#: What a server answers that may be another answer the next time.
PASSING = (429, 500, 502, 503, 504)


def download(source: str, most: int) -> bytes:
    """Fetch the beginning of a file; a server that fails is asked three times.

    Args:
        source: an address with http, https or s3, as :func:`geoseg.core.names.public_name` gives
            it.
        most: bytes that are read at most.

    Raises:
        SceneError: the server has no such file, refuses it, fails, or sends too slowly.
        MissingExtraError: it is in a bucket, and boto3 is not installed.
    """
    if source.startswith("s3://"):
        return _read_object(source, most)
    for delay in (*DELAYS, None):
        try:
            return _read(source, most)
        except urllib.error.HTTPError as error:
            error.close()
            if delay is None or error.code not in PASSING:
                raise SceneError(
                    f"{source} can't be read (HTTP response code: {error.code}): "
                    f"{_advice(error.code)}"
                ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The address itself is wrong, which no further try corrects.
            if delay is None or isinstance(error, ValueError | http.client.InvalidURL):
                reason = getattr(error, "reason", None) or error
                raise SceneError(
                    f"{source} can't be read ({scrub(str(reason))[:120]}): check the address and "
                    f"the network, or download the file"
                ) from error
        time.sleep(delay)
    raise AssertionError("the last try returns or raises")


def _read_object(source: str, most: int) -> bytes:
    from geoseg.core.s3 import Bucket, S3Error, s3_parts

    bucket, key = s3_parts(full_address(source))
    try:
        with Bucket(bucket).open(key) as file:
            return file.read(most)
    except FileNotFoundError as error:
        raise SceneError(f"{source} does not exist; check the address") from error
    except S3Error as error:
        raise SceneError(scrub(str(error))) from error


def _advice(code: int) -> str:
    if code in PASSING:
        return "the server fails; give the same command again later, or download the file"
    return "check the address and the access rights, or download the file"


def _read(source: str, most: int) -> bytes:
    # Neither files nor FTP, wherever the server leads.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    until = time.monotonic() + PATIENCE
    found = bytearray()
    with closing(opener.open(_request(full_address(source)), timeout=SILENCE)) as answer:
        while len(found) < most and (part := answer.read1(min(PART, most - len(found)))):
            found += part
            if time.monotonic() > until:
                raise TimeoutError(f"{len(found)} bytes in {PATIENCE:.0f} s")
        declared = answer.length  # what was announced and did not come
    if declared and len(found) < most:
        raise http.client.IncompleteRead(bytes(found), declared)
    return bytes(found)


def _request(address: str) -> urllib.request.Request:
    """A request that says who the address says is asking, to that server alone."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    request = urllib.request.Request(bare, headers={"User-Agent": "geoseg"})
    if at:
        name, _, password = user.partition(":")
        token = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request
