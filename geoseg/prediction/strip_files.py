"""The files of finished strips: small GeoTIFFs, and an entry in the journal for each strip.

The entry is renamed into place after the rasters, so that there is no half strip.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.geo.window import Window

__all__ = [
    "JournalEntry",
    "bring_strips",
    "entry_path",
    "forget_damaged",
    "is_whole",
    "raster_path",
    "read_entry",
    "strip_numbers",
]


@dataclass(frozen=True)
class JournalEntry:
    """The journal's entry of one strip.

    Attributes:
        window: of the output's grid; None where the strip holds no row of it.
        counts: pixels of each class.
        chips_run: chips of its row of chips that went through the network.
        chips_skipped: those without a measured pixel.
        crc: raster -> one CRC-32 a band, of the pixels in rows.
        bytes: raster -> size of its file.
        clouded: pixels that were measured and are left out for clouds.
    """

    window: Window | None
    counts: tuple[int, ...]
    chips_run: int
    chips_skipped: int
    crc: Mapping[str, tuple[int, ...]]
    bytes: Mapping[str, int]
    clouded: int


def raster_path(folder: Path, name: str, lane: int, number: int) -> Path:
    """Name the file of a raster of a strip."""
    return folder / f"{name}-{lane}-{number}.tif"


def entry_path(folder: Path, lane: int, number: int) -> Path:
    """Name the file of a strip's entry in the journal."""
    return folder / f"strip-{lane}-{number}.json"


def strip_numbers(folder: Path) -> list[tuple[int, int]]:
    """List the strips with an entry in a folder: (lane, number), lane by lane from the top."""
    return sorted(
        (int(lane), int(number))
        for _, lane, number in (path.stem.split("-") for path in folder.glob("strip-*-*.json"))
    )


def read_entry(folder: Path, lane: int, number: int) -> JournalEntry:
    """Read a strip's entry.

    Raises:
        OSError: it can't be read.
        ValueError: it is damaged, as KeyError and TypeError say, too.
    """
    entry: dict[str, Any] = json.loads(entry_path(folder, lane, number).read_text(encoding="utf-8"))
    window = None if entry["window"] is None else Window(**entry["window"])
    crc = {name: tuple(values) for name, values in entry["crc"].items()}
    return JournalEntry(**{**entry, "window": window, "counts": tuple(entry["counts"]), "crc": crc})


def is_whole(entry: JournalEntry, folder: Path, lane: int, number: int) -> bool:
    """Whether a strip's files are as long as they were when they were written."""
    files = {name: raster_path(folder, name, lane, number) for name in entry.bytes}
    return all(f.exists() and f.stat().st_size == entry.bytes[n] for n, f in files.items())


def _is_sound(folder: Path, lane: int, number: int) -> bool:
    """Whether a strip's files hold what they held when they were written; all pixels are read."""
    try:
        entry = read_entry(folder, lane, number)
        if not is_whole(entry, folder, lane, number):
            return False
        for name, expected in entry.crc.items():
            with rasterio.open(raster_path(folder, name, lane, number)) as dataset:
                found = tuple(zlib.crc32(dataset.read(band).data) for band in dataset.indexes)
            if found != expected:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    except GDAL_ERRORS:
        return False
    return True


def forget_damaged(folder: Path, say: Callable[[int, int], None]) -> None:
    """Take strips out of the journal whose files are not what was written; they are made anew.

    Args:
        folder: of the strips; may be missing.
        say: called with (strips that were looked at, of how many).

    Raises:
        OSError: an entry can't be removed.
    """
    numbers = strip_numbers(folder)
    for done, (lane, number) in enumerate(numbers):
        say(done, len(numbers))
        if not _is_sound(folder, lane, number):
            entry_path(folder, lane, number).unlink(missing_ok=True)


def bring_strips(source: Path, target: Path) -> None:
    """Move strips into another folder of the file system, but for those that are there already.

    Killed at any moment, it goes on when it is called again.

    Args:
        source: a folder of strips; may be missing.
        target: another one, which is there.

    Raises:
        OSError: a file can't be moved.
    """
    for lane, number in strip_numbers(source):
        entry = entry_path(source, lane, number)
        if entry_path(target, lane, number).exists():
            continue
        for raster in _rasters(source, lane, number):
            os.replace(raster, target / raster.name)
        os.replace(entry, target / entry.name)


def _rasters(folder: Path, lane: int, number: int) -> Iterator[Path]:
    """The rasters of a strip that are there, of those that its entry names."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        for name in read_entry(folder, lane, number).bytes:
            path = raster_path(folder, name, lane, number)
            if path.exists():
                yield path
