"""JSON with a long list of items, read one after another: the whole may be larger than memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from geoseg.errors import SceneError
from geoseg.scene.item import MAX_BYTES

__all__ = ["read_features", "read_lines"]

#: Characters that are read at a time.
PART = 1 << 18
#: Of all that is no item: the links of a catalogue, say.
MOST = 64_000_000
_SPACE = " \t\n\r"
_DECODER = json.JSONDecoder()


def read_features(file: BinaryIO, name: str) -> Iterator[tuple[bool, Any]]:
    """Go through a JSON object's ``features``; what else it holds comes last.

    Args:
        file: with one JSON object.
        name: of it, for people.

    Yields:
        True and a feature, for each; then False and the object without its features.

    Raises:
        SceneError: it is no JSON, or one item of it is too large.
    """
    text = _Text(file, name)
    if text.next() != "{":
        raise text.error("it must be a JSON object, which begins with {")
    text.skip()
    rest: dict[str, Any] = {}
    while (sign := text.next()) != "}":
        key = text.value(MOST) if sign == '"' else None
        if key is None or text.next() != ":":
            raise text.error("a name and a colon are missing")
        text.skip()
        if key == "features" and text.next() == "[":
            for feature in _elements(text):
                yield True, feature
        else:
            rest[key] = text.value(MOST)
        text.separator("}")
    text.skip()
    if text.next():
        raise text.error("something follows the object")
    yield False, rest


def _elements(text: _Text) -> Iterator[Any]:
    text.skip()
    while text.next() != "]":
        yield text.value(MAX_BYTES)
        text.separator("]")
    text.skip()


def read_lines(file: BinaryIO, name: str) -> Iterator[Any]:
    """Go through JSON values, one a line; empty lines are passed over.

    Args:
        file: with the lines.
        name: of it, for people.

    Raises:
        SceneError: a line is no JSON, or too long.
    """
    number = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        if len(line) > MAX_BYTES:
            raise _too_large(f"{name}: line {number}", MAX_BYTES)
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SceneError(
                f"{name}: line {number} is no JSON ({_reason(error)}); an .ndjson file has one "
                f"STAC item in each line"
            ) from error


class _Text:
    """JSON of which a part is in memory."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig")
        self._name = name
        self._part, self._at, self._whole = "", 0, False

    def next(self) -> str:
        """The next sign that is no space, which stays; "" at the end."""
        while True:
            while self._at < len(self._part):
                sign = self._part[self._at]
                if sign not in _SPACE:
                    return sign
                self._at += 1
            if not self._more(PART):
                return ""

    def skip(self) -> None:
        """Pass over the sign that :meth:`next` gave."""
        self._at += 1

    def separator(self, end: str) -> None:
        """Pass over a comma; the end, which may be there instead, stays."""
        sign = self.next()
        if sign == ",":
            self.skip()
            if self.next() != end:
                return
        elif sign == end:
            return
        raise self.error(f"a comma or {end} is missing")

    def value(self, most: int) -> Any:
        """Pass over the next value, and give it."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._part, self._at)
            except RecursionError as error:
                raise self.error("nested too deeply") from error
            except ValueError as error:
                if self._whole:
                    raise self.error(_reason(error)) from error
            else:
                # A number that ends with the part may go on.
                if end < len(self._part) or self._whole:
                    self._at = end
                    return value
            if len(self._part) - self._at > most:
                raise _too_large(f"a part of {self._name}", most)
            # Twice as much each time: what was in vain stays in proportion.
            self._more(max(PART, len(self._part) - self._at))

    def _more(self, count: int) -> bool:
        try:
            more = self._file.read(count)
        except UnicodeDecodeError as error:
            raise self.error("it is no UTF-8 text") from error
        except OSError as error:
            raise SceneError(f"{self._name} can't be read ({error.strerror})") from error
        self._whole = not more
        self._part, self._at = self._part[self._at :] + more, 0
        return bool(more)

    def error(self, why: str) -> SceneError:
        return SceneError(
            f"{self._name} is no JSON that geoseg can read ({why}); give a STAC item, a "
            f"FeatureCollection of items, or a catalogue"
        )


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]


def _too_large(what: str, most: int) -> SceneError:
    return SceneError(
        f"{what} has more than {most // 1_000_000} MB, and a STAC item has some kilobytes; check "
        f"what wrote it"
    )
