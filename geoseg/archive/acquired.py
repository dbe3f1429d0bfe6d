"""When a map's scene was taken, by what says it: its item, its tags, its product's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.errors import SceneError, UsageError
from geoseg.scene.files import opened
from geoseg.scene.sources import is_remote

__all__ = ["Acquired", "acquired", "as_text"]

#: Names of products, in capitals -> how they write the time of acquisition; a day stands for all
#: its hours. Any other date in a name may be that of anything.
_NAMES = (
    (r"S2[A-D]_MSIL\w{2}_(\d{8}T\d{6})", "%Y%m%dT%H%M%S"),
    (r"(?<![A-Z0-9])T\d{2}[C-X][A-Z]{2}_(\d{8}T\d{6})", "%Y%m%dT%H%M%S"),
    (r"S2[A-D]_\d{1,2}[C-X][A-Z]{2}_(\d{8})_\d_L", "%Y%m%d"),
    (r"HLS[._][LS]30[._]T\w{5}[._](\d{7}T\d{6})", "%Y%jT%H%M%S"),
    (r"(?<![A-Z0-9])L[COTEM]0\d_L\w{3}_\d{6}_(\d{8})_\d{8}_", "%Y%m%d"),
    (r"(?<![A-Z0-9])L[COTEM]\d\d{6}(\d{7})[A-Z]{3}\d{2}(?![A-Z0-9])", "%Y%j"),
    (r"(?<![A-Z0-9])(\d{8}_\d{6})_(?:\d{2}_)?[0-9A-F]{4}_[13][AB](?![A-Z0-9])", "%Y%m%d_%H%M%S"),
)
#: Tags of rasters that say when the ground was seen, the most telling first; two are joined.
_TAGS = (
    ("ACQUISITIONDATETIME",),
    ("SENSING_TIME",),
    ("DATATAKE_1_DATATAKE_SENSING_START",),
    ("PRODUCT_START_TIME",),
    ("DATE_ACQUIRED", "SCENE_CENTER_TIME"),
    ("DATE_ACQUIRED",),
)
#: Says when the image was made, which some producers take for the acquisition: the last resort.
_IMAGE_MADE = "TIFFTAG_DATETIME"
_DAY = timedelta(days=1) - timedelta(seconds=1)


@dataclass(frozen=True)
class Acquired:
    """When a scene was taken.

    Attributes:
        start: of it, UTC.
        end: of it, the same where it is a moment.
        by: what says so, in words.
    """

    start: datetime
    end: datetime
    by: str

    def properties(self) -> dict[str, Any]:
        """Write it as STAC does: a moment, or null and an interval."""
        if self.start == self.end:
            return {"datetime": as_text(self.start)}
        return {
            "datetime": None,
            "start_datetime": as_text(self.start),
            "end_datetime": as_text(self.end),
        }


def as_text(moment: datetime) -> str:
    """Write a moment as RFC 3339 does, in UTC.

    Args:
        moment: with a time zone.

    Examples:
        >>> as_text(datetime(2000, 3, 31, 15, 45, 43, tzinfo=UTC))
        '2000-03-31T15:45:43Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def acquired(source: Mapping[str, Any], report: Mapping[str, Any]) -> Acquired | None:
    """Find when a map's scene was taken.

    What the job's source says comes first, then the tags of the scene's files on this machine, the
    names of its files and their folders, and the tag of when the image was made.

    Args:
        source: of the job; of its keys ``item``, a STAC item, and ``datetime`` are looked at.
        report: of ``geoseg predict``.

    Returns:
        None where nothing says it.

    Raises:
        UsageError: the source's ``datetime`` is no time.
    """
    given = _by_item(source.get("item")) or _by_source(source.get("datetime"))
    if given is not None:
        return given
    paths = [str(path) for path in report["scene"]["paths"]]
    tags = [_tags(path) for path in paths if not is_remote(path)]
    return (
        next(filter(None, (_by_tags(tags, keys) for keys in _TAGS)), None)
        or _by_names(paths)
        or _by_tags(tags, (_IMAGE_MADE,))
    )


def _by_item(item: Mapping[str, Any] | None) -> Acquired | None:
    properties = (item or {}).get("properties") or {}
    keys = ["datetime"] if properties.get("datetime") else ["start_datetime", "end_datetime"]
    spans = [_span(str(properties[key])) for key in keys if properties.get(key)]
    return _union((span for span in spans if span), "the source's item", len(keys))


def _by_source(given: Any) -> Acquired | None:
    if not given:
        return None
    text = as_text(given) if isinstance(given, datetime) and given.tzinfo else str(given)
    ends = [_span(part) for part in text.split("/")]
    if None in ends or len(ends) > 2:
        raise UsageError(
            f"the time of a scene is given as {text!r}; it must be a time such as "
            f"2000-03-31T15:45:43Z, a day, or a start and an end with a / between"
        )
    return _union((span for span in ends if span), "the job's source", len(ends))


def _by_tags(files: Iterable[Mapping[str, str]], keys: tuple[str, ...]) -> Acquired | None:
    """Read the same tags of all files that have them."""
    texts = ["T".join(t[k] for k in keys) for t in files if all(k in t for k in keys)]
    spans = [_span(part) for text in texts for part in text.split(";") if part.strip()]
    return _union(
        (span for span in spans if span), f"tag{'s' * (len(keys) > 1)} {' and '.join(keys)}", 1
    )


def _by_names(paths: Iterable[str]) -> Acquired | None:
    """Read names of products among files and the folders that they are in."""
    return _union((span for path in paths for span in _named(path)), "the product's name", 1)


def _named(path: str) -> Iterator[tuple[datetime, datetime]]:
    for part in reversed(re.split(r"[/\\]", path.upper())):
        for pattern, form in _NAMES:
            if match := re.search(pattern, part):
                try:
                    start = datetime.strptime(match[1], form).replace(tzinfo=UTC)
                except ValueError:  # it only looks like a date
                    continue
                yield start, start if "%H" in form else start + _DAY
                return


def _union(spans: Iterable[tuple[datetime, datetime]], by: str, at_least: int) -> Acquired | None:
    """Make one of the times of several files; None where there are fewer than so many."""
    found = list(spans)
    if len(found) < at_least:
        return None
    return Acquired(min(start for start, _ in found), max(end for _, end in found), by)


def _span(text: str) -> tuple[datetime, datetime] | None:
    """Read a time or a day; without a time zone it is taken as UTC. None where it is neither."""
    # TIFF writes dates with colons.
    text = re.sub(r"^(\d{4}):(\d{2}):(\d{2})", r"\1-\2-\3", text.strip().replace('"', ""))
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        return None
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    is_day = re.fullmatch(r"\d{8}|\d{4}-\d{2}-\d{2}", text) is not None
    return start, start + _DAY if is_day else start


def _tags(path: str) -> dict[str, str]:
    """Read the tags of a file on this machine; none where it can't be opened any more."""
    try:
        if not Path(path).exists():
            return {}
        with opened(path) as dataset:
            found: dict[str, str] = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
            return found
    except SceneError:
        return {}
    except GDAL_ERRORS:
        return {}
