"""Folders, and archives that are read in place: what lies in them, and the small texts among that.

An archive's member has a path as GDAL writes it, ``/vsizip/A.SAFE.zip/A.SAFE/MTD_MSIL2A.xml``, so
that folders and archives are walked in one way. Nothing is unpacked.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePosixPath

from geoseg.errors import SceneError
from geoseg.scene.parts import is_remote

__all__ = [
    "KINDS",
    "archive_root",
    "files_in",
    "files_under",
    "folders_in",
    "read_text",
    "shell_of",
    "within",
]

#: Archives by the end of their name, and GDAL's word for each. A compressed .tar can't be read in
#: place: every file in it would be unpacked from the beginning, each time.
KINDS = {".zip": "/vsizip/", ".tar": "/vsitar/"}
_COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz)$", re.I)
_INSIDE = re.compile(
    r"(?P<kind>/vsi(?:zip|tar)/)(?P<archive>.+?\.(?:zip|tar))(?P<member>/.*)?", re.I
)
#: Of a text of metadata; those of Sentinel-2 have some 60 KB.
MAX_TEXT = 16 << 20
#: Of an archive: a product of Sentinel-2 has a hundred.
MAX_MEMBERS = 20_000


def archive_root(path: str) -> str | None:
    """Give the path of what is in an archive, or None where a file is none.

    Args:
        path: of a file on this machine.

    Raises:
        SceneError: it is an archive that can't be read in place, or is damaged.
    """
    if is_remote(path) or not os.path.isfile(path):
        return None
    if _COMPRESSED.search(path):
        raise SceneError(
            f"{path} is a compressed archive, in which nothing can be read in place; unpack it "
            f"(tar -xf {os.path.basename(path)}) and give the folder"
        )
    kind = KINDS.get(os.path.splitext(path)[1].lower())
    if kind is None:
        return None
    _members(path)
    return kind + path


def shell_of(folder: str) -> str | None:
    """Give the only folder in a folder, as unpacking and packing leave it; None if there is none.

    Args:
        folder: a path, or as :func:`archive_root` gives it.
    """
    inner = [name for name in folders_in(folder) if not name.startswith((".", "__MACOSX"))]
    return within(folder, inner[0]) if len(inner) == 1 else None


def within(folder: str, name: str) -> str:
    """Give the path of a file or folder in a folder; "" is the current one."""
    return f"{folder.rstrip('/')}/{name}" if folder else name


def files_in(folder: str) -> tuple[str, ...]:
    """List the names of the files at the top of a folder, sorted; none where it isn't there."""
    return _listed(folder)[0]


def folders_in(folder: str) -> tuple[str, ...]:
    """List the names of the folders at the top of a folder, sorted; none where it isn't there."""
    return _listed(folder)[1]


def files_under(folder: str, depth: int = 6) -> Iterator[str]:
    """List the paths of all files in a folder and those in it, as deep as that."""
    yield from (within(folder, name) for name in files_in(folder))
    if depth:
        for name in folders_in(folder):
            yield from files_under(within(folder, name), depth - 1)


def _listed(folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    inside = _INSIDE.fullmatch(folder)
    if inside is None:
        if is_remote(folder):
            return (), ()
        try:
            with os.scandir(folder or ".") as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError:
            return (), ()
        files = sorted(name for name, is_folder in found if not is_folder)
        return tuple(files), tuple(sorted(name for name, is_folder in found if is_folder))
    if not os.path.isfile(inside["archive"]):  # on a server
        return (), ()
    begin = (inside["member"] or "").strip("/")
    begin = f"{begin}/" if begin else ""
    here = [name[len(begin) :] for name in _members(inside["archive"]) if name.startswith(begin)]
    tops = {name.partition("/")[0] for name in here if "/" in name}
    return tuple(sorted({name for name in here if "/" not in name})), tuple(sorted(tops))


def read_text(path: str) -> str | None:
    """Read a small text; None where there is none that can be read.

    Args:
        path: of a file on this machine, or in an archive.
    """
    inside = _INSIDE.fullmatch(path)
    data: bytes | None = None
    with suppress(OSError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, KeyError, EOFError):
        if inside is None:
            if not is_remote(path) and os.path.isfile(path):
                with open(path, "rb") as file:
                    data = file.read(MAX_TEXT + 1)
        elif (inside["member"] or "").strip("/") in _members(inside["archive"]):
            data = _read_member(inside["archive"], inside["member"].strip("/"))
    if data is None or len(data) > MAX_TEXT:
        return None
    return data.decode("utf-8-sig", errors="replace")


def _read_member(archive: str, member: str) -> bytes | None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
            return file.read(MAX_TEXT + 1)
    with tarfile.open(archive, "r:") as opened_tar:
        inner = opened_tar.extractfile(member)
        return None if inner is None else inner.read(MAX_TEXT + 1)


def _members(archive: str) -> tuple[str, ...]:
    about = os.stat(archive)
    return _members_of(archive, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=32)
def _members_of(archive: str, size: int, changed: int) -> tuple[str, ...]:
    """The names of an archive's files; of one state of it.

    Raises:
        SceneError: it is damaged, encrypted, or holds too many.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                infos = opened.infolist()
                if any(info.flag_bits & 1 for info in infos):
                    raise SceneError(f"{archive} is encrypted; unpack it and give the folder")
                names = [info.filename for info in infos if not info.is_dir()]
        else:
            with tarfile.open(archive, "r:") as opened_tar:
                members = [member for member in opened_tar if member.isreg()]
            if any("path" in member.pax_headers for member in members):
                raise SceneError(
                    f"{archive} holds long names in a way (pax) that GDAL does not read in place; "
                    f"unpack it (tar -xf {os.path.basename(archive)}) and give the folder"
                )
            names = [member.name for member in members]
    except (OSError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
        raise SceneError(f"{archive} is no archive that can be read ({error})") from error
    if len(names) > MAX_MEMBERS:
        raise SceneError(f"{archive} holds {len(names)} files, and a scene some hundred; unpack it")
    return tuple(name.removeprefix("./") for name in names if _is_sound(name))


def _is_sound(name: str) -> bool:
    """Whether a member's name leads to nowhere else."""
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\\" not in name
