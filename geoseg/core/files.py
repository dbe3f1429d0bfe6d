"""What of files differs between systems: flushing them to disk, replacing them."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["NAME_BYTES", "replace_file", "sync_file", "sync_folder", "write_whole"]

#: Bytes of an output's name: a longer one leaves no room for the hidden folder's, and for what
#: libraries append to it.
NAME_BYTES = 240
#: On Windows a file that another program has open can't be replaced; indexers and virus scanners
#: open what is new for a moment. Seconds that are waited for them, and between two tries.
_PATIENCE, _PAUSE = 2.0, 0.05


def sync_file(path: Path) -> None:
    """Have a file's content on disk.

    Args:
        path: of a file that this process may write: Windows flushes no other.

    Raises:
        OSError: the disk is full or damaged.
    """
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk, where the system has a way for that; Windows has none.

    Args:
        path: of the folder.
    """
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def replace_file(source: Path, target: Path) -> None:
    """Rename a file to another's name, at once; what stood there is gone.

    Args:
        source: the file.
        target: its name to be, on the same file system.

    Raises:
        OSError: the system refuses. PermissionError on Windows where another program has the
            target open.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > until:
                raise
        time.sleep(_PAUSE)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all.

    Args:
        path: replaced if it is there; who may read it stays.
        data: its content.

    Raises:
        OSError: the folder or the disk refuses.
    """
    partial = path.with_name(f".geoseg-{path.name[:200]}-{secrets.token_hex(4)}")
    try:
        with open(partial, "xb") as file:
            if path.exists():
                shutil.copymode(path, partial)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace_file(partial, path)
    finally:
        partial.unlink(missing_ok=True)
