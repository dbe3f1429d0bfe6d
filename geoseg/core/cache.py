"""What was worked out once for a model and is kept for the next run."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from geoseg.core.folders import cache_folder

__all__ = ["Cache", "cache_folder"]

#: Files of a kind that are kept: each scene has an int8 graph of its own.
MOST_FILES = 64
#: Of a file that is read; geoseg writes none that is as large.
MOST_BYTES = 2_000_000_000


class Cache:
    """Files by name in :func:`cache_folder`.

    Nothing depends on it: where it can't be read or written, or was damaged, what it would hold is
    made again.
    """

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        """Make nothing yet.

        Args:
            report: called once, with a message, where the folder can't be written.
        """
        self._report = report

    def read(self, name: str) -> bytes | None:
        """Read a file's content, or None where there is none, or not as it was written."""
        try:
            path = cache_folder() / name
            # What is no file may never end.
            if not path.is_file() or path.stat().st_size > MOST_BYTES:
                return None
            mark, content = path.read_bytes().split(b"\n", 1)
        except (OSError, RuntimeError, ValueError):
            return None
        return content if mark == _mark(content) else None

    def write(self, name: str, content: bytes, *, plain: bool = False) -> None:
        """Keep a file; another process sees all of it or nothing.

        Args:
            name: of it.
            content: for :meth:`read`.
            plain: for other programs, which read the content alone.
        """
        try:
            path = cache_folder() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content if plain else _mark(content) + b"\n" + content)
                os.replace(partial, path)
            except BaseException:
                os.unlink(partial)
                raise
            _forget_oldest(path.parent)
        except (OSError, RuntimeError) as error:
            if self._report is not None:
                self._report(
                    f"the cache can't be written ({error}), so the next run does this again; set "
                    f"GEOSEG_CACHE to a folder of your own"
                )
                self._report = None


def _mark(content: bytes) -> bytes:
    """Make what a file begins with, so that one which was damaged is known."""
    return hashlib.sha256(content).hexdigest().encode()


def _forget_oldest(folder: Path) -> None:
    """Keep the newest files of a folder alone."""
    ages = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process's, gone by now
            ages.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(ages)[:-MOST_FILES]:
        with suppress(OSError):
            path.unlink()
