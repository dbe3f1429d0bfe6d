"""An archive in a bucket: maps are made on the worker's disk, and put there as whole objects.

Every object carries geoseg's mark, and only such are ever replaced. ``ledger.txt``, the first one,
says that the rest is an archive, and on which machine its ledger is. A scene's item comes last,
when the server has said that all else is there, in full length.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from geoseg.archive.entries import Job
from geoseg.archive.place import ELSEWHERE, ledger_of_this_machine
from geoseg.archive.stac_item import ITEM_NAME, files_of, write_item
from geoseg.archive.writing import write_text
from geoseg.core.folders import cache_folder
from geoseg.core.jsontext import json_text
from geoseg.core.s3 import Bucket, S3Error
from geoseg.core.workers import Workers
from geoseg.core.workfolder import WorkFolder, work_folder_of
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError, UsageError

__all__ = ["BucketStore"]

#: Written with every object.
MARK = "geoseg"
#: Requests at a time, where there are many: what they cost is waiting.
THREADS = 16
#: Seconds after which what a job left on a worker's disk is nobody's any more.
ABANDONED = 7 * 24 * 3600
#: What stands in a bucket's archive beside its scenes, in the order in which it is put there: what
#: is named by another file comes before it.
_MEDIA = {
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
}
#: An item is some kilobytes.
_MOST_ITEM_BYTES = 16 << 20


class BucketStore:
    """An archive's files in a bucket."""

    def __init__(self, where: str) -> None:
        """Reach a bucket; nothing is asked of it yet.

        Args:
            where: ``BUCKET/PREFIX``, or a bucket alone.

        Raises:
            MissingExtraError: boto3 is not installed.
            OutputError: the settings can't be used.
        """
        bucket, _, prefix = where.partition("/")
        prefix = prefix.strip("/")
        self.place: Path | str = f"s3://{bucket}/{prefix}".rstrip("/")
        self.threads = THREADS
        self._prefix = f"{prefix}/" if prefix else ""
        with _told():
            self._bucket = Bucket(bucket)

    def make(self) -> Path:
        """Mark the place as an archive, or see that it is one; and that it can be written."""
        path = ledger_of_this_machine(str(self.place))
        with _told():
            said = self._said()
            if said is None:
                self._check_empty()
                said = f"{socket.gethostname()}: {path.name}\n"
                said = self._mark(said) or said
            self._check_machine(said, path)
            name = f".geoseg-check-{secrets.token_hex(4)}"
            self._put_bytes(name, b"", "text/plain")
            self._bucket.delete(self._prefix + name)
        return path

    def ledger(self) -> Path:
        """Find the ledger on this machine."""
        with _told():
            said = self._said()
        if said is None:
            raise UsageError(
                f"{self.place} is no archive: it has no {ELSEWHERE}; geoseg batch makes one"
            )
        path = ledger_of_this_machine(str(self.place))
        self._check_machine(said, path)
        if not path.exists():
            raise UsageError(
                f"the ledger of {self.place} is gone from {path}; geoseg batch begins it anew, and "
                f"makes the maps again"
            )
        return path

    def _said(self) -> str | None:
        """Read which machine has the ledger; None where no archive is."""
        about = self._bucket.about(self._prefix + ELSEWHERE)
        if about is None or MARK not in about.marks:
            return None
        with self.open(ELSEWHERE) as file:
            return file.read(1000).decode(errors="replace")

    def _mark(self, text: str) -> str | None:
        """Write which machine has the ledger; what another run says that was as quick."""
        try:
            self._put_bytes(ELSEWHERE, text.encode(), "text/plain", is_new=True)
        except FileExistsError:
            return self._said()
        except S3Error as error:
            if error.status != 501:  # a server that knows no conditions
                raise
            self._put_bytes(ELSEWHERE, text.encode(), "text/plain")
        return None

    def _check_empty(self) -> None:
        """Refuse what holds something else; consoles mark a folder by an empty object."""
        for key, _ in self._bucket.keys(self._prefix):
            if key != self._prefix:
                raise OutputError(
                    f"{self.place} holds something else than an archive of geoseg's, such as "
                    f"{key}; give a new prefix"
                )

    def _check_machine(self, said: str, path: Path) -> None:
        host = said.partition(":")[0]
        if host != socket.gethostname() and not path.exists():
            raise UsageError(
                f"the ledger of {self.place} is on the machine {host}: start it there, or bring "
                f"{path.name} from geoseg-ledgers there to {path.parent}, or give another prefix"
            )

    def gone(self, jobs: Iterable[Job]) -> list[str]:
        """List what is there."""
        wanted = {f"{job.key}/{name}": job.key for job in jobs for name in files_of(job.result)}
        if wanted:
            with _told():
                for key, _ in self._bucket.keys(self._prefix):
                    wanted.pop(key.removeprefix(self._prefix), None)
        return sorted(set(wanted.values()))

    @contextmanager
    def job_folder(self, key: str) -> Iterator[Path]:
        """Give a folder of this machine; its strips stay where the job fails."""
        try:
            root = self._scratch()
            self._sweep(root)
            work = WorkFolder.take(root / key)
        except OSError as error:
            raise explain_write_error(error, cache_folder()) from error
        try:
            yield work.path
        except BaseException:
            work.release()
            raise
        work.remove()

    def finish(
        self,
        folder: Path,
        key: str,
        source: Mapping[str, Any],
        report: Mapping[str, Any],
        check: Callable[[], None],
    ) -> dict[str, Any]:
        """Put a map's files into the bucket, and its item."""
        names = {output: Path(path).name for output, path in report["outputs"].items()}
        said = {**report, "outputs": {o: f"{self.place}/{key}/{n}" for o, n in names.items()}}
        beside = folder / Path(names["raster"]).with_suffix(".json")
        write_text(beside, json_text(said, indent=2) + "\n")
        item = write_item(folder, key, source, said)
        files = {asset["href"].removeprefix("./"): asset for asset in item["assets"].values()}
        with _told():
            before = self.names(key)
            for name in before:
                if name in files:
                    self._check_ours(f"{key}/{name}")
            if ITEM_NAME in before:  # what it says is over with the first file that is replaced
                self._check_ours(f"{key}/{ITEM_NAME}")
                self._bucket.delete(f"{self._prefix}{key}/{ITEM_NAME}")
            for name, asset in files.items():
                check()
                sha256 = asset["file:checksum"][4:]  # the rest says which hash it is
                self._put(f"{key}/{name}", folder / name, asset["type"], sha256)
            self._check_sizes(key, {name: asset["file:size"] for name, asset in files.items()})
            check()
            self._put(f"{key}/{ITEM_NAME}", folder / ITEM_NAME, "application/geo+json")
        return item

    @contextmanager
    def closing_folder(self, keys: Iterable[str]) -> Iterator[Path]:
        """Fetch items into a folder that is removed after; put what else is written there."""
        with _told(), tempfile.TemporaryDirectory(dir=self._scratch(), prefix="closing-") as name:
            folder, fetched = Path(name), set(keys)
            self._fetch_items(folder, fetched)
            try:
                yield folder
            except OutputError as error:
                raise OutputError(str(error).replace(str(folder), str(self.place))) from error
            made = [path for path in folder.rglob("*") if path.is_file()]
            names = {path.relative_to(folder).as_posix(): path for path in made}
            own = {name for name in names if name.split("/")[0] not in fetched}
            for name in own:
                self._check_ours(name)
            # The collection has the table's hash, and links models: it comes after both.
            for name in sorted(own, key=lambda n: (n.endswith(".json") and "/" not in n, n)):
                self._put(name, names[name], _MEDIA[names[name].suffix])

    def _fetch_items(self, folder: Path, keys: Iterable[str]) -> None:
        """Bring items into folders as in an archive; who reads them finds out which are missing."""

        def fetch(key: str) -> tuple[str, bytes]:
            try:
                with self.open(f"{key}/{ITEM_NAME}") as file:
                    return key, file.read(_MOST_ITEM_BYTES)
            except FileNotFoundError:
                return key, b""

        with Workers(THREADS) as workers:
            for key, content in workers.map(fetch, keys, 2 * THREADS):
                if content:
                    (folder / key).mkdir()
                    (folder / key / ITEM_NAME).write_bytes(content)

    def tidy(self, keys: Iterable[str]) -> None:
        """Remove the folders of jobs that are over, on this machine."""
        with suppress(OSError):
            root = self._scratch()
            left = {path.name for path in root.iterdir()}
            for key in keys:
                if work_folder_of(root / key).name in left:
                    _remove(root / key)

    def folders(self) -> Iterator[str]:
        """List what keys begin with."""
        with _told():
            for name in self._bucket.folders(self._prefix):
                if not name.startswith("."):
                    yield name

    def names(self, key: str) -> list[str]:
        """List the objects of a scene."""
        return [name.partition("/")[0] for name, _ in self._sizes(key)]

    def has(self, name: str) -> bool:
        """Ask for an object."""
        with _told():
            return self._bucket.about(self._prefix + name) is not None

    def is_harmless(self, name: str) -> bool:
        """No program that looks at a raster in a bucket keeps anything beside it."""
        return False

    def open(self, name: str) -> BinaryIO:
        """Open an object."""
        return self._bucket.open(self._prefix + name)

    def _sizes(self, key: str) -> Iterator[tuple[str, int]]:
        start = f"{self._prefix}{key}/"
        return ((name.removeprefix(start), size) for name, size in self._bucket.keys(start))

    def _check_sizes(self, key: str, wanted: Mapping[str, int]) -> None:
        found = dict(self._sizes(key))
        for name, size in wanted.items():
            if found.get(name) != size:
                raise S3Error(
                    f"{self.place}/{key}/{name} has {found.get(name, 'no')} bytes after it was "
                    f"written, and the file has {size}",
                    "cut short",
                    0,
                    passing=True,
                )

    def _check_ours(self, name: str) -> None:
        """Refuse to replace what geoseg did not make.

        Raises:
            OutputError: there is such an object.
        """
        about = self._bucket.about(self._prefix + name)
        if about is not None and MARK not in about.marks:
            raise OutputError(
                f"{self.place}/{name} was not made by geoseg as it is now; move it away, or choose "
                f"another prefix"
            )

    def _put(self, name: str, path: Path, media: str, sha256: str = "") -> None:
        with open(path, "rb") as file:
            sha256 = sha256 or hashlib.file_digest(file, "sha256").hexdigest()
            self._put_open(name, file, media, sha256)

    def _put_bytes(self, name: str, content: bytes, media: str, *, is_new: bool = False) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        self._put_open(name, BytesIO(content), media, sha256, is_new=is_new)

    def _put_open(
        self, name: str, file: BinaryIO, media: str, sha256: str, *, is_new: bool = False
    ) -> None:
        marks = {MARK: version("geoseg")}
        self._bucket.put(
            self._prefix + name, file, media=media, marks=marks, sha256=sha256, is_new=is_new
        )

    def _scratch(self) -> Path:
        """The folder of this machine in which this archive's maps are made."""
        mine = hashlib.sha256(str(self.place).encode()).hexdigest()[:16]
        root = cache_folder().absolute().parent / "geoseg-work" / mine
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _sweep(self, root: Path) -> None:
        """Remove what jobs left that others have done meanwhile, on other machines."""
        with suppress(OSError), os.scandir(root) as entries:
            for entry in entries:
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED:
                    if entry.name.startswith(".geoseg-"):
                        _remove(root / entry.name.removeprefix(".geoseg-"))
                    elif entry.name.startswith("closing-"):
                        shutil.rmtree(entry.path, ignore_errors=True)


def _remove(output: Path) -> None:
    """Remove a work folder, unless somebody is at work in it."""
    with suppress(OSError, OutputError):
        WorkFolder.take(output).remove()


@contextmanager
def _told() -> Iterator[None]:
    """Report what a server refuses as an error of an output; its cause says whether it may pass."""
    try:
        yield
    except S3Error as error:
        raise OutputError(str(error)) from error
    except OSError as error:  # of the folder in which what goes there is made
        raise explain_write_error(error, cache_folder()) from error
