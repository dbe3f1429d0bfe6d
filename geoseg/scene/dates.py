"""Dates in names of files and bands: bands of two dates are no scene."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import PurePath

__all__ = ["date_in", "dates_of"]

#: 20220601 and 2022-06-01, and 2022152T101559 of HLS, by the day of the year.
_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?!\d)")
_OF_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d\d{3})(?=T\d{6})")
#: Folders above a file that are looked at: up to a .SAFE.
_ABOVE = 5


def date_in(text: str) -> date | None:
    """Find the first date in a name, which is that of acquisition in names of products.

    >>> date_in("LC08_L2SP_193024_20200407_20200822_02_T1_SR_B2.TIF")
    datetime.date(2020, 4, 7)
    >>> date_in("HLS.S30.T33UUP.2022152T101559.v2.0.B02.tif"), date_in("red_51203999.tif")
    (datetime.date(2022, 6, 1), None)
    """
    found: list[tuple[int, date]] = []
    for match in _DAY.finditer(text):
        with suppress(ValueError):
            found.append((match.start(), date(int(match[1]), int(match[3]), int(match[4]))))
    for match in _OF_YEAR.finditer(text):
        with suppress(ValueError):
            found.append((match.start(), datetime.strptime(match[1], "%Y%j").date()))
    return min(found)[1] if found else None


def dates_of(bands: Sequence[tuple[str, str]]) -> dict[date, list[int]]:
    """Sort bands by date.

    Args:
        bands: of each its label and its file.

    Returns:
        Date -> places of its bands; those without a date are left out.
    """
    found: dict[date, list[int]] = {}
    for place, (label, file) in enumerate(bands):
        above = PurePath(file.split("?")[0]).parts[::-1][: _ABOVE + 1]
        day = next(filter(None, map(date_in, (label, *above))), None)
        if day is not None:
            found.setdefault(day, []).append(place)
    return found
