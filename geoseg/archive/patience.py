"""Requests to a server that may have too many callers: it is waited for, as long as it asks for.

The server's own word counts (``Retry-After``); without one, each wait is twice as long as the one
before, and a little by chance, so that callers who were refused together do not return together.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from geoseg.events import Progress

__all__ = ["Access", "PatientAdapter", "bare_address", "wait_asked"]

#: What a server answers that has too much to do.
BUSY = (429, 500, 502, 503, 504)
#: Seconds before the second try, and that a request may wait in all.
FIRST, LONGEST = 1.0, 600.0
#: Tries of a request that breaks off, or finds no server: that is seldom a matter of patience.
TRIES = 5


class PatientAdapter:
    """Sends requests for a session of ``requests``, again and again while the server is busy."""

    def __init__(self, report: Progress) -> None:
        """Keep who hears of waits.

        Args:
            report: gets a note before each wait.
        """
        from requests.adapters import HTTPAdapter

        self._adapter = HTTPAdapter(max_retries=0)
        self._report = report

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request, and wait for the whole answer.

        Returns:
            The server's last answer, which may still be that it is busy.

        Raises:
            requests.RequestException: there is no server, or its answers break off.
        """
        from requests import RequestException

        host = urlsplit(request.url).hostname
        left, wait, tries = LONGEST, FIRST, 1
        while True:
            try:
                answer = self._adapter.send(request, **options)
                _ = answer.content  # all of it, else it raises
            except RequestException:
                if tries == TRIES:
                    raise
                tries += 1
                why, seconds = "broke off", wait * random.uniform(0.5, 1.0)
            else:
                if answer.status_code not in BUSY:
                    return answer
                why = f"is busy (HTTP {answer.status_code})"
                asked = wait_asked(answer.headers)
                seconds = wait * random.uniform(0.5, 1.0)
                if asked is not None:
                    seconds = asked + min(seconds, 0.1 * asked + 0.1)
                if seconds > left:
                    return answer
            self._report(
                {"event": "note", "message": f"{host} {why}; asking again in {seconds:.1f} s"}
            )
            time.sleep(seconds)
            left, wait = left - seconds, min(2 * wait, 60.0)

    def close(self) -> None:
        """Close its connections."""
        self._adapter.close()


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Read how long a server asks to be left alone; None where it doesn't say.

    Args:
        headers: of its answer; ``Retry-After`` holds seconds, or a time.
    """
    said = (headers.get("Retry-After") or "").strip()
    if said.isdigit():
        return float(said)
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def bare_address(address: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Access:
    """What an address says of who is asking, for that server alone."""

    def __init__(self, address: str) -> None:
        """Take apart an address.

        Args:
            address: in full; links of the server's lead on without what gives access.
        """
        parts = urlsplit(address)
        user, at, host = parts.netloc.rpartition("@")
        self._origin = (parts.scheme, host)
        self._query = parse_qsl(parts.query, keep_blank_values=True)
        name, _, password = user.partition(":")
        pair = f"{unquote(name)}:{unquote(password)}".encode()
        self._basic = f"Basic {base64.b64encode(pair).decode()}" if at else ""

    def __bool__(self) -> bool:
        return bool(self._basic or self._query)

    def __call__(self, request: Any) -> Any:
        """Add it to a request of ``requests`` that goes to that server."""
        parts = urlsplit(request.url)
        if (parts.scheme, parts.netloc) != self._origin:
            return request
        if self._basic:
            request.headers["Authorization"] = self._basic
        there = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        more = urlencode([(n, v) for n, v in self._query if n not in there])
        if more:
            query = f"{parts.query}&{more}" if parts.query else more
            request.url = urlunsplit(parts._replace(query=query))
        return request
