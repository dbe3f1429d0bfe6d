"""Where an archive in a folder and its ledger are; where those of others are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import psutil

from geoseg.core.folders import cache_folder
from geoseg.core.ownership import is_ours
from geoseg.errors import OutputError, UsageError

__all__ = [
    "ELSEWHERE",
    "LEDGER",
    "PLANS",
    "find_ledger",
    "find_ledger_there",
    "ledger_of_this_machine",
    "make_archive",
    "there_is_a_ledger",
]

#: In the archive's folder.
LEDGER = "ledger.sqlite"
#: A note in its place where the folder is on a network.
ELSEWHERE = "ledger.txt"
#: What a dry run writes into an archive's folder, which may be no archive yet.
PLANS = ("plan.csv", "plan.geojson")
#: File systems on which several machines may write; SQLite's locks do not hold there.
_SHARED = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs"}
_SHARED |= {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "9p", "afs"}


def make_archive(out: Path) -> Path:
    """Make an archive's folder, or take one that is there.

    Args:
        out: the folder.

    Returns:
        Its absolute path.

    Raises:
        OutputError: it holds something else than an archive, or can't be made.
    """
    out = out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_free = there_is_a_ledger(out) or all(map(_is_plan, out.iterdir()))
        if not is_free and not _has_lost_its_ledger(out):
            raise OutputError(
                f"{out} holds something else than an archive of geoseg's; give a new folder, or an "
                f"empty one"
            )
    except OSError as error:
        raise OutputError(f"{out} can't be made ({error.strerror})") from error
    return out


def there_is_a_ledger(out: Path) -> bool:
    """Whether a folder is an archive, with its ledger in it or elsewhere."""
    return any((out / name).exists() for name in (LEDGER, ELSEWHERE))


def _has_lost_its_ledger(out: Path) -> bool:
    """Whether a folder holds an archive's maps: they are made again, and replace these."""
    return is_ours(out / "report.json") or any(map(is_ours, out.glob("*/item.json")))


def _is_plan(path: Path) -> bool:
    """Whether a dry run wrote a file, or was killed while it did."""
    part_of_one = path.name.startswith(tuple(f".geoseg-{name}-" for name in PLANS))
    return part_of_one or (path.name in PLANS and is_ours(path))


def find_ledger(out: Path) -> Path:
    """Find an archive's ledger: in its folder, or on this machine where that is on a network.

    Args:
        out: the archive's folder, absolute.

    Raises:
        OutputError: the folder can't be written.
    """
    if not _is_shared(out):
        return out / LEDGER
    path = ledger_of_this_machine(str(out))
    try:
        (out / ELSEWHERE).write_text(f"{os.uname().nodename}: {path}\n")
    except OSError as error:
        raise OutputError(f"the ledger of {out} can't be made ({error})") from error
    return path


def ledger_of_this_machine(place: str) -> Path:
    """Say where the ledger of an archive is that can't hold it.

    Args:
        place: of the archive.

    Raises:
        OutputError: the folder of such ledgers can't be made.
    """
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    folder = cache_folder().parent / "geoseg-ledgers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the ledger of {place} can't be made ({error})") from error
    return folder / f"{name}.sqlite"


def find_ledger_there(out: Path) -> Path:
    """Find the ledger of an archive that is there.

    Args:
        out: the archive's folder.

    Raises:
        UsageError: there is none.
    """
    out = out.absolute()
    path = find_ledger(out) if out.is_dir() else out / LEDGER
    if not path.exists():
        raise UsageError(f"{out} is no archive: it has no {LEDGER}; geoseg batch makes one")
    return path


def _is_shared(folder: Path) -> bool:
    """Whether a folder is on a file system of a network."""
    best, kind = "", ""
    for part in psutil.disk_partitions(all=True):
        point = part.mountpoint
        inside = str(folder) == point or str(folder).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, part.fstype
    return kind.lower() in _SHARED
