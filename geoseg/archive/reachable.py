"""Whether scenes behind credentials can be read at all, before the first job.

With credentials that are wrong every scene would go to quarantine, one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from geoseg.archive.faults import fault_of
from geoseg.archive.ledger import Ledger
from geoseg.archive.sources import addresses
from geoseg.core.names import public_name
from geoseg.core.wording import counted
from geoseg.errors import SceneError
from geoseg.scene.files import opened

__all__ = ["check_scenes"]

#: Where the environment says who is asking.
_KEPT = re.compile(r"(s3|gs|az|oss)://|/vsi(s3|gs|az|adls|oss|swift)(_streaming)?/")
#: Scenes that are tried: one that is denied among others is a matter of its own. And jobs that are
#: looked through for these.
_TRIED, _LOOKED = 3, 1000


def check_scenes(ledger: Ledger) -> None:
    """Try to open the first scenes that are to be done, where they are in buckets.

    Args:
        ledger: of the jobs.

    Raises:
        SceneError: none of them may be read.
    """
    jobs = islice(ledger.jobs("waiting"), _LOOKED)
    files = (file for job in jobs for file in _first(addresses(job.source)))
    reason, count = "", 0
    for file in islice(files, _TRIED):
        found = _denied(file)
        if not found:
            return
        reason, count = reason or found, count + 1
    if count:
        raise SceneError(
            f"{reason}; none of {counted(count, 'scene')} that were tried may be read with these "
            f"credentials, so nothing was begun: check AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (AWS_NO_SIGN_REQUEST=YES for public data)"
        )


def _first(source: Mapping[str, Any]) -> Iterator[str]:
    """Give the first file of a scene that is in a bucket."""
    assets = source.get("item", {}).get("assets", {}).values()
    for file in (*source["files"], *(asset["href"] for asset in assets)):
        if _KEPT.match(file):
            yield file
            return


def _denied(file: str) -> str:
    """Why a file may not be read; "" where it may, or is not there, or the server fails."""
    try:
        with opened(public_name(file)):
            return ""
    except SceneError as error:
        fault = fault_of(error, remote=True)
        return fault.reason if fault.kind == "denied" else ""
