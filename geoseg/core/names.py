"""What people see of a source's address, and what GDAL gets: addresses may hold passwords.

Whatever the user names goes through :func:`public_name` where it comes in. From there on geoseg
knows the public name only, so that reports, tags, journals and messages can't hold more; the full
address stays in this process's memory and is given to whoever opens the source.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote

__all__ = ["full_address", "public_name", "scrub"]

#: Public name -> the address as it was given, where the two differ.
_FULL: dict[str, str] = {}
#: A name that is read over a network.
_NETWORK = re.compile(
    r"[a-z][a-z0-9+.-]*://|.*/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)", re.I
)
_USER = re.compile(r"(://)[^\s/?#'\"]*@")
_QUERY = re.compile(r"((?:://|/vsi[a-z0-9_]+)[^\s?#'\"<>]*)[?#](?!\.\.\.)[^\s'\"<>]*", re.I)
#: Parts of a query that give access and are renewed: the scene is the same without them.
_ACCESS = re.compile(
    r"x-(amz|goog|oss)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|"
    # Shared access signatures of Azure.
    r"s[eiprtv]|sig|sip|spr|srt|ses|ss|sdd|skoid|sktid|skt|ske|sks|skv|"
    r".*(token|secret|passw|credential|auth|api_?key|jwt).*|key|subscription-key",
    re.I,
)


def public_name(source: str | Path) -> str:
    """Make a source's name for people: without user, password and query.

    Where the query says which scene it is, a mark made of that follows, so that two scenes have
    two names. Access tokens leave no trace: a renewed one changes nothing.

    Args:
        source: path, URL or GDAL's own name; or a public name, which stays as it is.

    Example:
        >>> public_name("https://me:pw@example.com/a.tif?sig=abc")
        'https://example.com/a.tif?...'
    """
    text = str(source)
    if text in _FULL or not _NETWORK.match(text):
        return text
    found = re.fullmatch(r"/vsicurl(?:_streaming)?\?(.*)", text)
    if found:  # options and address are the query: /vsicurl?use_head=no&url=https%3A%2F%2F...
        options = dict(parse_qsl(found[1], keep_blank_values=True))
        public = "/vsicurl/" + public_name(unquote(options.get("url", "")))
    else:
        address, *query = re.split(r"[?#]", text, maxsplit=1)
        public = _USER.sub(r"\1", address) + "".join(map(_shown_query, query))
    if public != text:
        _FULL[public] = text
    return public


def _shown_query(query: str) -> str:
    """Show a query as ``?...``, with a mark made of what it says besides giving access."""
    if query.startswith("..."):  # of a public name
        return f"?{query}"
    import hashlib  # the command line's help does without

    said = sorted(p for p in re.split("[&;]", query) if not _ACCESS.fullmatch(p.split("=")[0]))
    return "?..." + (hashlib.sha256("&".join(said).encode()).hexdigest()[:10] if said else "")


def full_address(name: str) -> str:
    """Look up what opens the source of a public name.

    Args:
        name: as :func:`public_name` gave it in this process; any other stays as it is.
    """
    return _FULL.get(name, name)


def scrub(text: str) -> str:
    """Take users, passwords and queries out of texts of other libraries, such as GDAL's errors.

    Args:
        text: any.
    """
    for public, full in list(_FULL.items()):
        text = text.replace(full, public)
    return _QUERY.sub(r"\1?...", _USER.sub(r"\1", text))
