"""Where an archive's files are: a folder, or a bucket (``bucket.py``). Both are used in one way.

Maps are made in folders of this machine in any case: GDAL writes neither COGs nor GeoPackages into
a bucket. In an archive's own folder they are in place with that; into a bucket they are put after.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from geoseg.archive.entries import Job
from geoseg.archive.place import find_ledger, find_ledger_there, make_archive
from geoseg.archive.stac_item import files_of, write_item
from geoseg.core.machine import available_cores
from geoseg.core.ownership import holds_statistics_alone
from geoseg.errors import UsageError
from geoseg.scene.sources import is_remote

__all__ = ["FolderStore", "Store", "store_of"]


class Store(Protocol):
    """An archive's files. Names are from its root, with ``/``.

    A file or folder that can't be read raises an OSError, FileNotFoundError where it is missing.

    Attributes:
        place: the folder, absolute, or the bucket's address.
        threads: that read from it at a time.
    """

    place: Path | str
    threads: int

    def make(self) -> Path:
        """Begin an archive, or take the one that is there; the path of its ledger.

        Raises:
            OutputError: something else is there, or nothing can be written.
        """

    def ledger(self) -> Path:
        """Find the ledger of an archive that is there.

        Raises:
            UsageError: there is none.
        """

    def gone(self, jobs: Iterable[Job]) -> list[str]:
        """Find those of these finished jobs of whose files one is not there; their keys."""

    def job_folder(self, key: str) -> AbstractContextManager[Path]:
        """Give a folder of this machine in which a job is done.

        Raises:
            OutputError: another run is at work in it, or it can't be made.
        """

    def finish(
        self,
        folder: Path,
        key: str,
        source: Mapping[str, Any],
        report: Mapping[str, Any],
        check: Callable[[], None],
    ) -> dict[str, Any]:
        """Have a finished map's files in place, and its item, the mark of done, as the last one.

        Args:
            folder: of the job.
            key: of the job.
            source: of the job.
            report: of ``geoseg predict``.
            check: called now and then; raises where the job is to end.

        Returns:
            The item.
        """

    def closing_folder(self, keys: Iterable[str]) -> AbstractContextManager[Path]:
        """Give a folder with these jobs' items; what else is written there becomes the archive's.

        Raises:
            OutputError: a file can't be written, or is somebody else's.
        """

    def tidy(self, keys: Iterable[str]) -> None:
        """Remove what is left on this machine of these jobs, which have ended."""

    def folders(self) -> Iterator[str]:
        """Go through the folders that are not hidden, by name."""

    def names(self, key: str) -> list[str]:
        """List what is in a folder, by name."""

    def has(self, name: str) -> bool:
        """Whether there is something of that name."""

    def is_harmless(self, name: str) -> bool:
        """Whether a file holds nothing but what programs keep of a raster that was looked at."""

    def open(self, name: str) -> BinaryIO:
        """Open a plain file for reading."""


class FolderStore:
    """An archive in a folder."""

    def __init__(self, place: Path) -> None:
        """Name the folder, absolute; it need not be there."""
        self.place: Path | str = place
        #: Disks and file servers gain little from more.
        self.threads = min(8, available_cores())
        self._out = place

    def make(self) -> Path:
        """Make the folder."""
        return find_ledger(make_archive(self._out))

    def ledger(self) -> Path:
        """Find the ledger."""
        return find_ledger_there(self._out)

    def gone(self, jobs: Iterable[Job]) -> list[str]:
        """Look for each."""
        there = os.path.exists
        return [
            job.key
            for job in jobs
            if not all(there(self._out / job.key / name) for name in files_of(job.result))
        ]

    @contextmanager
    def job_folder(self, key: str) -> Iterator[Path]:
        """Give the scene's own folder."""
        folder = self._out / key
        folder.mkdir(parents=True, exist_ok=True)
        yield folder

    def finish(
        self,
        folder: Path,
        key: str,
        source: Mapping[str, Any],
        report: Mapping[str, Any],
        check: Callable[[], None],
    ) -> dict[str, Any]:
        """Write the item; everything else is in place."""
        return write_item(folder, key, source, report)

    @contextmanager
    def closing_folder(self, keys: Iterable[str]) -> Iterator[Path]:
        """Give the archive's own folder."""
        yield self._out

    def tidy(self, keys: Iterable[str]) -> None:
        """Leave strips where they are: whoever takes the scene goes on from there."""

    def folders(self) -> Iterator[str]:
        """List folders."""
        with os.scandir(self._out) as entries:
            yield from sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def names(self, key: str) -> list[str]:
        """List a folder."""
        return sorted(os.listdir(self._out / key))

    def has(self, name: str) -> bool:
        """Look for a file, or a link."""
        return os.path.lexists(self._out / name)

    def is_harmless(self, name: str) -> bool:
        """Look into an ``.aux.xml``."""
        return holds_statistics_alone(self._out / name)

    def open(self, name: str) -> BinaryIO:
        """Open a file; a pipe would keep who opens it waiting."""
        path = self._out / name
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        return open(path, "rb", buffering=0)


def store_of(out: str | Path) -> Store:
    """Say where an archive is.

    Args:
        out: a folder, or ``s3://BUCKET/PREFIX``.

    Raises:
        UsageError: it is another address.
        MissingExtraError: it is a bucket's, and boto3 is not installed.
        OutputError: the bucket can't be reached by these settings.
    """
    text = str(out)
    # A Path takes a slash away.
    if match := re.match(r"s3:/+([^/].*)", text):
        from geoseg.archive.bucket import BucketStore

        return BucketStore(match[1])
    if is_remote(text) or re.match(r"[a-z][a-z0-9+.-]+:/", text):
        raise UsageError(
            f"{text}: archives are written into folders and into buckets, s3://BUCKET/PREFIX; "
            f"servers that speak S3 are named by AWS_S3_ENDPOINT"
        )
    return FolderStore(Path(text).absolute())
