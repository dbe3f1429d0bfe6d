"""Whether scenes behind credentials can be read at all, before the first job.

With credentials that are wrong every scene would go to quarantine, one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from geoseg.archive.faults import fault_of
from geoseg.archive.ledger import Ledger
from geoseg.archive.sources import addresses, scene_to_open
from geoseg.core.wording import counted
from geoseg.errors import SceneError, UsageError
from geoseg.scene.opening import open_scene

__all__ = ["check_scenes"]

#: Where the environment says who is asking.
_KEPT = re.compile(r"(s3|gs|az|oss)://|/vsi(s3|gs|az|adls|oss|swift)(_streaming)?/")
#: Scenes that are tried: one that is denied among others is a matter of its own. And jobs that are
#: looked through for these.
_TRIED, _LOOKED = 3, 1000


def check_scenes(ledger: Ledger, options: Mapping[str, Any]) -> None:
    """Try to open the first scenes that are to be done, where they are in buckets.

    Args:
        ledger: of the jobs.
        options: of ``predict``; ``assets`` and ``clouds`` say which files of an item are read.

    Raises:
        SceneError: none of them may be read.
    """
    sources = (addresses(job.source) for job in islice(ledger.jobs("waiting"), _LOOKED))
    reason, count = "", 0
    for source in islice(filter(_is_kept, sources), _TRIED):
        found = _denied(source, options)
        if not found:
            return
        reason, count = reason or found, count + 1
    if count:
        raise SceneError(
            f"{reason}; none of {counted(count, 'scene')} that were tried may be read with these "
            f"credentials, so nothing was begun: check AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (AWS_NO_SIGN_REQUEST=YES for public data)"
        )


def _is_kept(source: Mapping[str, Any]) -> bool:
    """Whether a scene has a file in a bucket; of an item it may be one that nobody reads."""
    assets = source.get("item", {}).get("assets", {}).values()
    return any(map(_KEPT.match, (*source["files"], *(asset["href"] for asset in assets))))


def _denied(source: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Why a scene may not be read; "" where it may, or can't be for another reason."""
    chosen = {name: options[name] for name in ("assets", "clouds") if name in options}
    try:
        open_scene(scene_to_open(source), **chosen)
    except (SceneError, UsageError) as error:
        fault = fault_of(error, remote=True)
        return fault.reason if fault.kind == "denied" else ""
    return ""
