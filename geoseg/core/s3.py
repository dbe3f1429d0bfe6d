"""Objects in buckets, by boto3: read, written whole, listed. Rasters are read by GDAL.

What a server refuses is an :class:`S3Error`, one line with what it said and which setting to look
at; what is not there is Python's FileNotFoundError.
"""

from __future__ import annotations

import base64
import errno
import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from geoseg.core.importing import require
from geoseg.core.s3_settings import S3Settings, s3_settings

__all__ = ["MOST_PUT", "Bucket", "ObjectAbout", "S3Error", "s3_parts"]

#: Bytes of the largest object that one PUT may bring; what is larger is sent in parts.
MOST_PUT = 5 << 30
#: Bytes of a part.
_PART = 256 << 20
#: Seconds for a connection, and for which a server may be silent.
_CONNECT, _SILENCE = 20, 60
#: With pauses that double, half a minute; AWS_MAX_ATTEMPTS is the user's word.
_PATIENCE = {"total_max_attempts": 6}
#: Requests at a time.
_CONNECTIONS = 16
#: Times that a body which breaks off is asked for again.
_TRIES = 3

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
#: What a server says -> what to look at.
_ADVICE = {
    "AccessDenied|AllAccessDisabled|Forbidden|40[13]": "these credentials may not do that: check "
    f"{_KEYS}, and the bucket's policy",
    "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|InvalidSecurity|NoCredentials|"
    "PartialCredentials|ProfileNotFound|CredentialRetrieval|UnauthorizedSSO": f"check {_KEYS}",
    "ExpiredToken|TokenRefreshRequired|RequestExpired|SSOTokenLoad|TokenRetrieval": "the "
    "credentials have expired: renew them",
    "NoSuchBucket": "make the bucket or correct its name; where it is not Amazon's, "
    "AWS_S3_ENDPOINT says which server has it",
    "PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocation|30[17]": "set AWS_REGION to "
    "the bucket's region",
    "RequestTimeTooSkewed": "set this machine's clock",
    "EndpointConnection|Connect|SSL|Proxy|InvalidEndpoint": "check the network, AWS_S3_ENDPOINT "
    "and AWS_HTTPS",
}
#: Codes of faults that may pass, whatever status comes with them.
_PASSING = re.compile(
    r"SlowDown|ServiceUnavailable|InternalError|RequestTimeout|Throttl|TooManyRequests|"
    r"OperationAborted|ConditionalRequestConflict|BadDigest|IncompleteBody|"
    r"XAmzContentSHA256Mismatch|XAmzContentChecksumMismatch"
)


class S3Error(OSError):
    """A server of S3 refused, or could not be asked.

    Attributes:
        code: in S3's words, such as ``AccessDenied``; or the name of boto3's error.
        status: of the answer; 0 where there was none.
        passing: whether the same may succeed later.
    """

    def __init__(self, text: str, code: str, status: int, *, passing: bool) -> None:
        """Say what was refused, in a line."""
        super().__init__(errno.EIO, text)
        self.code, self.status, self.passing = code, status, passing

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True)
class ObjectAbout:
    """What is known of an object.

    Attributes:
        size: bytes.
        marks: what was written with it, by name.
    """

    size: int
    marks: Mapping[str, str]


def s3_parts(address: str) -> tuple[str, str]:
    """Take an address apart into bucket and key.

    Args:
        address: of an object, or of what several have in common.

    Examples:
        >>> s3_parts("s3://maps/2026/a.tif")
        ('maps', '2026/a.tif')
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key


class Bucket:
    """The objects of a bucket."""

    def __init__(self, name: str) -> None:
        """Reach a bucket, by the environment's settings.

        Args:
            name: of the bucket.

        Raises:
            MissingExtraError: boto3 is not installed.
            S3Error: the settings can't be used.
        """
        require("s3", f"s3://{name}")
        self.name = name
        self._settings = s3_settings()
        with _explained(f"s3://{name}"):
            self._client = _client(self._settings, _environment())

    def about(self, key: str) -> ObjectAbout | None:
        """Look at an object; None where there is none.

        Raises:
            S3Error: the server refuses.
        """
        try:
            with self._explained(key):
                found = self._client.head_object(Bucket=self.name, Key=key, **self._charged())
        except FileNotFoundError:
            return None
        except S3Error as error:
            if error.passing or error.status == 0:
                raise
            # An answer to HEAD has no words that say why.
            self.open(key).close()
            raise
        return ObjectAbout(found["ContentLength"], found.get("Metadata", {}))

    def open(self, key: str) -> BinaryIO:
        """Open an object, whose content comes bit by bit; a body that breaks off is gone on with.

        Raises:
            FileNotFoundError: there is no such object.
            S3Error: the server refuses; also of reading.
        """
        body = _Body(lambda first, tag: self._part(key, first, tag), f"s3://{self.name}/{key}")
        return io.BufferedReader(body, 1 << 20)

    def _part(self, key: str, first: int, tag: str | None) -> tuple[Any, int, str]:
        """Ask for an object from a byte on: its body, its size in all, and its tag."""
        more = {"Range": f"bytes={first}-", "IfMatch": tag} if tag else {}
        with self._explained(key):
            found = self._client.get_object(Bucket=self.name, Key=key, **more, **self._charged())
        if more and not found.get("ContentRange", "").startswith(f"bytes {first}-"):
            text = f"s3://{self.name}/{key}: the server gives no part of an object"
            raise S3Error(text, "no ranges", 0, passing=False)
        return found["Body"], first + found["ContentLength"], found["ETag"]

    def put(
        self,
        key: str,
        content: BinaryIO,
        *,
        media: str,
        marks: Mapping[str, str],
        sha256: str,
        is_new: bool = False,
    ) -> None:
        """Write an object, whole or not at all; one that is there is replaced.

        Args:
            key: of the object.
            content: an open file, from where it is at.
            media: media type.
            marks: written with it.
            sha256: of the content, hexadecimal; a server that knows checksums refuses another one.
            is_new: refuse where there is such an object.

        Raises:
            FileExistsError: there is one, and it was to be new.
            S3Error: the server refuses.
        """
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        given = {"ContentType": media, "Metadata": dict(marks)}
        with self._explained(key):
            if size > MOST_PUT:
                from boto3.s3.transfer import TransferConfig

                self._client.upload_fileobj(
                    content,
                    self.name,
                    key,
                    ExtraArgs={**given, "ChecksumAlgorithm": "SHA256"},
                    Config=TransferConfig(multipart_threshold=1, multipart_chunksize=_PART),
                )
                return
            checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
            given |= {"IfNoneMatch": "*"} if is_new else {}
            self._client.put_object(
                Bucket=self.name, Key=key, Body=content, ChecksumSHA256=checksum, **given
            )

    def delete(self, key: str) -> None:
        """Remove an object; it need not be there.

        Raises:
            S3Error: the server refuses.
        """
        with self._explained(key):
            self._client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Go through the objects whose keys begin so: their keys and sizes, by key.

        Raises:
            S3Error: the server refuses.
        """
        for page in self._pages(prefix):
            yield from ((entry["Key"], entry["Size"]) for entry in page.get("Contents", ()))

    def folders(self, prefix: str) -> Iterator[str]:
        """Go through the first parts, up to a slash, of what follows a prefix in keys.

        Raises:
            S3Error: the server refuses.
        """
        for page in self._pages(prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", ()):
                yield entry["Prefix"].removeprefix(prefix).rstrip("/")

    def _pages(self, prefix: str, **options: str) -> Iterator[Mapping[str, Any]]:
        asked = {"Bucket": self.name, "Prefix": prefix, **options, **self._charged()}
        with self._explained(prefix):
            yield from self._client.get_paginator("list_objects_v2").paginate(**asked)

    def _charged(self) -> dict[str, str]:
        return {"RequestPayer": "requester"} if self._settings.requester_pays else {}

    def _explained(self, key: str) -> Any:
        return _explained(f"s3://{self.name}/{key}")


class _Body(io.RawIOBase):
    """An object's content: asked for again, from where it broke off, a few times."""

    def __init__(self, ask: Callable[[int, str | None], Any], address: str) -> None:
        super().__init__()
        self._ask, self._address, self._at = ask, address, 0
        self._body, self._size, self._tag = ask(0, None)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from botocore.exceptions import BotoCoreError

        for tries_left in reversed(range(_TRIES)):
            try:
                part = self._body.read(len(buffer))
                if part or self._at == self._size:
                    buffer[: len(part)] = part
                    self._at += len(part)
                    return len(part)
            except (BotoCoreError, OSError) as error:
                if not tries_left:
                    raise self._broken() from error
            if tries_left:
                self._body.close()
                self._body, _, _ = self._ask(self._at, self._tag)
        raise self._broken()

    def _broken(self) -> S3Error:
        found = f"{self._at} of {self._size} bytes"
        text = f"{self._address}: the connection broke off after {found}, {_TRIES} times"
        return S3Error(text, "cut short", 0, passing=True)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_body"):
            self._body.close()
        super().close()


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what boto3 raises into errors that say what to do."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
    )

    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(said.get("Code", status))
        if code in ("NoSuchKey", "404") or (status == 404 and code != "NoSuchBucket"):
            raise FileNotFoundError(errno.ENOENT, f"{address} does not exist") from error
        if code in ("PreconditionFailed", "412"):
            raise FileExistsError(errno.EEXIST, f"{address} is there, or has changed") from error
        passing = status in (408, 429) or (status >= 500 and status != 501)
        text = f"refuses (HTTP response code: {status}, {code}: {said.get('Message', '')})"
        raise _error(address, code, text, status, passing=passing) from error
    except BotoCoreError as error:
        code = type(error).__name__
        text = f"can't be asked ({code}: {str(error).rstrip('.')})"
        passing = isinstance(error, HTTPClientError | ConnectionError | IncompleteReadError)
        raise _error(address, code, text, 0, passing=passing) from error


def _error(address: str, code: str, text: str, status: int, *, passing: bool) -> S3Error:
    passing = passing or _PASSING.search(code) is not None
    advice = next((words for codes, words in _ADVICE.items() if re.match(codes, code)), "")
    advice = advice or ("give the same command again later" if passing else "see S3's manual")
    line = " ".join(f"{address}: S3 {text}: {advice}".split())
    return S3Error(line, code, status, passing=passing)


def _environment() -> tuple[tuple[str, str], ...]:
    """What a client's credentials come from: with other ones another client is made."""
    return tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))


_MAKING = threading.Lock()


def _client(settings: S3Settings, environment: tuple[tuple[str, str], ...]) -> Any:
    with _MAKING:  # boto3's sessions are of one thread, its clients of all
        return _made(settings, environment)


@lru_cache(maxsize=4)
def _made(settings: S3Settings, environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    core = botocore.session.Session()
    if settings.credentials_file:
        core.set_config_variable("credentials_file", settings.credentials_file)
    style = {None: "auto", True: "virtual", False: "path"}[settings.in_host]
    config = Config(
        connect_timeout=_CONNECT,
        read_timeout=_SILENCE,
        max_pool_connections=_CONNECTIONS,
        retries={"mode": "standard", **({} if "AWS_MAX_ATTEMPTS" in os.environ else _PATIENCE)},
        s3={"addressing_style": style},
        # Servers other than Amazon's know few of the newer checksums; ours are given with each PUT.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **({} if settings.signed else {"signature_version": UNSIGNED}),
    )
    return boto3.Session(botocore_session=core).client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        verify=settings.ca_bundle,
        config=config,
    )
