"""Zarr: a folder of arrays, each of them in many small files, and texts that describe them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache

from geoseg.scene.containers import files_in, read_text, within

__all__ = ["folders_of", "is_picture", "is_version_3", "is_zarr", "leads_out"]

_MARKS = {".zgroup", ".zarray", ".zmetadata", "zarr.json"}


def is_zarr(folder: str) -> bool:
    """Whether a folder, or one in an archive, is a Zarr group or array.

    Args:
        folder: a path, as :mod:`geoseg.scene.containers` has them.
    """
    return not _MARKS.isdisjoint(files_in(folder))


def is_version_3(folder: str) -> bool:
    """Whether a Zarr folder is of the third version."""
    return "zarr.json" in files_in(folder)


def is_picture(folder: str, array: str) -> bool:
    """Whether an array has two axes or more, as bands have; coordinates have one.

    Args:
        folder: of the group.
        array: its name in the group; within groups in it with slashes.
    """
    for name in (".zarray", "zarr.json"):
        text = read_text(within(within(folder, array), name))
        if text is None:
            continue
        try:
            shape = json.loads(text).get("shape", ())
        except (ValueError, AttributeError, RecursionError):
            return True  # which GDAL judges
        return not isinstance(shape, list) or len(shape) >= 2
    return True


def leads_out(folder: str) -> tuple[tuple[str, ...], bool]:
    """Find what in a Zarr folder may lead to files elsewhere.

    Args:
        folder: on this machine.

    Returns:
        The symbolic links in it, and whether it is one of references to other files (kerchunk).
    """
    # A scene is opened band by band, and its folder may hold a hundred thousand files.
    return _leads_out(folder, os.stat(folder).st_mtime_ns)


@lru_cache(maxsize=32)
def _leads_out(folder: str, changed: int) -> tuple[tuple[str, ...], bool]:
    links: list[str] = []
    names_others = False
    for here, folders, files in os.walk(folder):
        links += (p for n in (*folders, *files) if os.path.islink(p := os.path.join(here, n)))
        text = read_text(within(here, ".zmetadata")) if ".zmetadata" in files else None
        names_others |= any(name.endswith(".parq") for name in files)
        names_others |= text is not None and "record_size" in text
    return tuple(links), names_others


def folders_of(array: str) -> Iterator[str]:
    """List an array's folder and those in it: by their times shows that a file was replaced."""
    yield array
    for here, folders, _ in os.walk(array):
        yield from (os.path.join(here, name) for name in sorted(folders))
