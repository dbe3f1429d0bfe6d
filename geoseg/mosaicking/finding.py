"""Which files are meant: maps by name, pattern, folder or list; their dates and confidence."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoseg.core.importing import missing
from geoseg.core.names import public_name
from geoseg.core.s3 import Bucket, S3Error, s3_parts
from geoseg.errors import SceneError, UsageError
from geoseg.scene.opening import RASTER_SUFFIXES
from geoseg.scene.sources import is_remote

__all__ = ["confidence_beside", "date_of", "files_about", "find_maps"]

#: Of an archive: each scene has a folder with these.
MAP, ITEM, CONFIDENCE = "landcover.tif", "item.json", "confidence.tif"
#: A list of maps, or an item, is shorter.
MOST_BYTES = 64 << 20


def find_maps(names: str | Path | Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """Find the maps that are meant.

    Args:
        names: of maps; of folders and of ``s3://BUCKET/PREFIX``, which stand for every
            ``*/landcover.tif`` in them, by name; of text files (.txt) with one of these a line,
            relative to the text's folder; or patterns such as ``maps/*.tif``.

    Returns:
        Paths in the order given, each once; and those that were named more than once.

    Raises:
        UsageError: no name is given.
        SceneError: a name stands for nothing, or a bucket can't be read.
        MissingExtraError: it is in a bucket, and boto3 is not installed.
    """
    each = [names] if isinstance(names, str | Path) else list(names)
    if not each:
        raise UsageError("no map is given; a mosaic is made of class rasters, or a folder of them")
    found: dict[str, str] = {}
    twice: dict[str, None] = {}
    for path in _expanded((public_name(name) for name in each), lists=True):
        key = path if is_remote(path) else os.path.realpath(path)
        if key in found:
            twice[path] = None
        found.setdefault(key, path)
    return list(found.values()), list(twice)


def _expanded(names: Iterable[str], *, lists: bool) -> Iterator[str]:
    for name in names:
        path = Path(name)
        if name.startswith("s3://") and path.suffix.lower() not in RASTER_SUFFIXES:
            yield from _in_bucket(name)
        elif is_remote(name):
            yield name
        elif path.is_dir():
            yield from _in_folder(path)
        elif path.suffix.lower() == ".txt" and path.is_file():
            if not lists:
                raise SceneError(f"{name} is a list in a list; name the maps themselves in one")
            yield from _expanded(_lines(path), lists=False)
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise SceneError(f"{name} matches no file; correct the pattern")
            yield from _expanded(matches, lists=lists)
        else:
            yield name


def _in_folder(folder: Path) -> Iterator[str]:
    """List the maps of an archive, or the one of a scene's folder."""
    if (folder / MAP).is_file():
        yield str(folder / MAP)
        return
    # What begins with a dot is a run's that is at work.
    found = [p for p in sorted(folder.glob(f"*/{MAP}")) if not p.parent.name.startswith(".")]
    if not found:
        raise SceneError(
            f"{folder} holds no */{MAP}, as an archive does; give the maps themselves "
            f"({folder}/*.tif)"
        )
    yield from map(str, found)


def _in_bucket(address: str) -> Iterator[str]:
    """List the maps of an archive in a bucket, or the one of a scene there."""
    name, prefix = s3_parts(address.rstrip("/"))
    start = f"{prefix}/" if prefix else ""
    with _told():
        keys = [key for key, _ in Bucket(name).keys(start) if key.endswith(f"/{MAP}")]
    names = [key.removeprefix(start) for key in keys]
    # As of folders: what begins with a dot is a run's that is at work.
    each = [MAP] if MAP in names else [n for n in names if re.fullmatch(r"[^./][^/]*/[^/]+", n)]
    found = [start + name for name in each]
    if not found:
        raise SceneError(
            f"{address} holds no */{MAP}, as an archive does; give the maps themselves, or the "
            f"archive's address"
        )
    yield from (f"s3://{name}/{key}" for key in found)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        raise SceneError(str(error)) from error


def _lines(path: Path) -> Iterator[str]:
    """List the names in a text; they are relative to its folder.

    Raises:
        SceneError: it can't be read as text, or holds no name.
    """
    lines = [line.strip() for line in _text(path).splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise SceneError(f"{path} names no map; it must have a path on each line")
    for name in names:
        yield name if is_remote(name) else str(path.parent / name)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SceneError(f"{path} has more than {MOST_BYTES >> 20} MB, which is no such text")
        return path.read_text(encoding="utf-8-sig")  # as Windows' editor writes it
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(f"{path} can't be read as text ({error})") from error


def _object(path: Path | str) -> dict[str, Any]:
    """Read a JSON object; empty where there is no such file.

    Args:
        path: of the file, or its address in a bucket.

    Raises:
        SceneError: it is there and holds none.
    """
    if isinstance(path, Path) and not path.is_file():
        return {}
    try:
        found = json.loads(_text(path) if isinstance(path, Path) else _text_in_bucket(path))
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{path} is no JSON ({error}); correct or remove it") from error
    if not isinstance(found, dict):
        raise SceneError(f"{path} is JSON, and no object; correct or remove it")
    return found


def _text_in_bucket(address: str) -> str:
    """Read a text; an empty object where there is none."""
    name, key = s3_parts(address)
    try:
        with _told(), Bucket(name).open(key) as file:
            return file.read(MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return "{}"


def _beside(path: str, name: str) -> Path | str | None:
    """Say where a file beside a map is; None where it can't be looked for."""
    if not is_remote(path):
        return Path(path).with_name(name)
    # GDAL reads such maps without boto3, too.
    if path.startswith("s3://") and not missing("s3"):
        return f"{path.rpartition('/')[0]}/{name}"
    return None


def date_of(path: str) -> datetime | None:
    """Look up when a map's scene was taken: in the STAC item beside it.

    Args:
        path: of a map.

    Returns:
        ``properties.datetime`` of the ``item.json`` in the map's folder, or ``end_datetime`` where
        that is null; None where there is no item, where it says that its datetime is that of the
        processing, or where it is another raster's: the map is not called ``landcover.tif``, and
        no asset of the item has its name.

    Raises:
        SceneError: the item is there, and can't be understood.
    """
    place = _beside(path, ITEM)
    if place is None:
        return None
    item = _object(place)
    assets = item.get("assets")
    each = assets.values() if isinstance(assets, dict) else ()
    named = {str(a.get("href")).rsplit("/", 1)[-1] for a in each if isinstance(a, dict)}
    if not item or Path(path).name not in {MAP, *named}:
        return None
    properties = item.get("properties")
    about = properties if isinstance(properties, dict) else {}
    text = about.get("datetime") or about.get("end_datetime")
    # When a scene was taken nobody may know; STAC wants a time all the same.
    if text is None or about.get("geoseg:datetime_is_of_processing"):
        return None
    try:
        date = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise SceneError(
            f"{place}: its datetime is {str(text)[:60]!r}, and must be such as "
            f"2024-06-01T10:20:30Z; correct it"
        ) from error
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def confidence_beside(path: str) -> str | None:
    """Find the raster of the winning probability that belongs to a map.

    Args:
        path: of a map.

    Returns:
        ``confidence.tif`` beside a ``landcover.tif``; else the file beside the map that has the
        name which the map's report (the same name with .json) gives. None where there is none.

    Raises:
        SceneError: the report is there, and can't be understood.
    """
    beside = _beside(path, CONFIDENCE)
    if isinstance(beside, str) and Path(path).name == MAP:
        name, key = s3_parts(beside)
        with _told():
            return beside if Bucket(name).about(key) is not None else None
    if not isinstance(beside, Path):
        return None
    if Path(path).name != MAP:
        outputs = _object(Path(path).with_suffix(".json")).get("outputs")
        named = outputs.get("confidence") if isinstance(outputs, dict) else None
        if not isinstance(named, str):
            return None
        beside = Path(path).with_name(Path(named).name)
    return str(beside) if beside.is_file() else None


def files_about(path: str) -> list[Path]:
    """List the files that may belong to a map: itself, its report and its item."""
    if is_remote(path):
        return []
    return [Path(path), Path(path).with_suffix(".json"), Path(path).with_name(ITEM)]
