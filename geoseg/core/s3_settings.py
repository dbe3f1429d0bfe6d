"""What the environment says of S3, in the words of GDAL and of boto3: both get the same.

GDAL reads scenes and knows ``AWS_S3_ENDPOINT``, ``AWS_HTTPS``, ``AWS_VIRTUAL_HOSTING``,
``AWS_REGION`` and ``AWS_NO_SIGN_REQUEST``; boto3 writes archives and knows ``AWS_ENDPOINT_URL_S3``,
``AWS_ENDPOINT_URL`` and ``AWS_DEFAULT_REGION``. Keys, tokens and ``AWS_PROFILE`` are known to both.
Where both say something, GDAL's word counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["S3Settings", "gdal_options_of_s3", "s3_settings"]

_NO = ("NO", "FALSE", "OFF", "0")


@dataclass(frozen=True)
class S3Settings:
    """How a server of S3 is reached.

    Attributes:
        endpoint: its address with http or https; None for Amazon's.
        in_host: whether a bucket's name is part of the host's; None for what is usual.
        region: None for what the profile says.
        signed: whether requests carry credentials.
        requester_pays: whether reads may be charged to who asks.
        credentials_file: None for the usual one.
        ca_bundle: file of certificates; None for the usual ones.
    """

    endpoint: str | None
    in_host: bool | None
    region: str | None
    signed: bool
    requester_pays: bool
    credentials_file: str | None
    ca_bundle: str | None


def s3_settings(environment: Mapping[str, str] | None = None) -> S3Settings:
    """Read how S3 is reached.

    Args:
        environment: variables; those of this process by default.

    Examples:
        >>> s3_settings({"AWS_S3_ENDPOINT": "minio:9000", "AWS_HTTPS": "NO"}).endpoint
        'http://minio:9000'
    """
    said = os.environ if environment is None else environment
    endpoint = _url_of_gdal(said) or _url_of_boto(said)
    in_host = None
    if hosting := said.get("AWS_VIRTUAL_HOSTING"):
        in_host = hosting.upper() not in _NO
    elif said.get("AWS_S3_ENDPOINT"):
        in_host = True  # as GDAL has it
    return S3Settings(
        endpoint,
        in_host,
        said.get("AWS_REGION") or said.get("AWS_DEFAULT_REGION") or None,
        said.get("AWS_NO_SIGN_REQUEST", "NO").upper() in (*_NO, ""),
        said.get("AWS_REQUEST_PAYER", "").lower() == "requester",
        said.get("CPL_AWS_CREDENTIALS_FILE") or said.get("AWS_SHARED_CREDENTIALS_FILE") or None,
        said.get("CURL_CA_BUNDLE") or said.get("AWS_CA_BUNDLE") or None,
    )


def gdal_options_of_s3(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give GDAL's options for what only boto3's words say.

    Args:
        environment: variables; those of this process by default.

    Examples:
        >>> gdal_options_of_s3({"AWS_ENDPOINT_URL": "http://minio:9000"})["AWS_S3_ENDPOINT"]
        'minio:9000'
    """
    said = os.environ if environment is None else environment
    found: dict[str, str] = {}
    if not said.get("AWS_S3_ENDPOINT") and (url := _url_of_boto(said)):
        scheme, _, host = url.rpartition("://")
        found["AWS_S3_ENDPOINT"] = host.rstrip("/")
        found["AWS_HTTPS"] = "NO" if scheme == "http" else "YES"
        # boto3 puts the bucket into the path where a server is named.
        found["AWS_VIRTUAL_HOSTING"] = said.get("AWS_VIRTUAL_HOSTING") or "FALSE"
    for theirs, ours in (
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
        ("CPL_AWS_CREDENTIALS_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
        ("CURL_CA_BUNDLE", "AWS_CA_BUNDLE"),
    ):
        if not said.get(theirs) and said.get(ours):
            found[theirs] = said[ours]
    return found


def _url_of_gdal(said: Mapping[str, str]) -> str | None:
    host = said.get("AWS_S3_ENDPOINT", "").rstrip("/")
    if not host or "://" in host:
        return host or None
    return f"{'http' if said.get('AWS_HTTPS', 'YES').upper() in _NO else 'https'}://{host}"


def _url_of_boto(said: Mapping[str, str]) -> str | None:
    if said.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return said.get("AWS_ENDPOINT_URL_S3") or said.get("AWS_ENDPOINT_URL") or None
