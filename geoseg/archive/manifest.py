"""What a user names as the scenes of an archive: a folder, a glob, a list, or STAC.

Each kind gives scenes one after another, in an order of its own that is the same each time.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from geoseg.archive.sources import SceneSource, source_of_file
from geoseg.core.names import public_name
from geoseg.errors import UsageError
from geoseg.scene.opening import PRODUCT_FOLDER, RASTER_SUFFIXES
from geoseg.scene.sensors import band_code, common_name
from geoseg.scene.sources import is_remote

__all__ = ["read_manifest"]

#: Suffix -> how a list is read.
_LISTS = (".txt", ".lst", ".csv")
#: Names of the column that holds a scene's path or address.
_COLUMNS = ("scene", "path", "href", "url", "file")
#: Columns that are options of ``predict``.
_OPTIONS = ("bands", "scale", "offset", "src_nodata")


def read_manifest(manifest: str) -> Iterator[SceneSource]:
    """Go through the scenes of a manifest.

    Args:
        manifest: a folder, a glob, a .txt or .csv list, ``-`` for a list on standard input, a
            .json, .ndjson or .parquet file of STAC items, or an address of such a file.

    Raises:
        UsageError: there is no such thing, or it holds no scene.
    """
    text = public_name(manifest)
    if text == "-":
        return _list(sys.stdin.read(), Path.cwd(), "standard input")
    suffix = os.path.splitext(text.split("?")[0])[1].lower()
    if not is_remote(text) and os.path.isdir(text):
        return _folder(Path(text))
    if suffix in (".json", ".geojson", ".ndjson", ".parquet"):
        from geoseg.archive.stac_items import read_items

        return read_items(manifest)
    if is_remote(text):
        raise UsageError(
            f"{text} is an address of something other than STAC items; give a list of scenes "
            f"(.txt, .csv), or STAC (.json, .ndjson, .parquet, --stac-api)"
        )
    if glob.has_magic(text) and not os.path.exists(text):
        return _glob(text)
    if not os.path.exists(text):
        raise UsageError(f"{text}: no such file or folder")
    if suffix in _LISTS:
        return _read_list(Path(text))
    if suffix in RASTER_SUFFIXES:
        return iter([source_of_file(text)])
    raise UsageError(
        f"{text} is no manifest: give a folder, a glob, a list (.txt, .csv), or STAC items (.json, "
        f".ndjson, .parquet)"
    )


def _folder(folder: Path) -> Iterator[SceneSource]:
    """Find the scenes below a folder: products, folders of one-band files, rasters."""
    found = False
    for scene in _below(folder):
        found = True
        yield source_of_file(scene)
    if not found:
        raise UsageError(
            f"{folder} holds no scene; geoseg looks for rasters "
            f"({', '.join(sorted(RASTER_SUFFIXES))}), .SAFE folders and folders of one-band files"
        )


def _below(folder: Path) -> Iterator[Path]:
    if _is_scene(folder):
        yield folder
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder} can't be read ({error.strerror})") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _below(Path(entry.path))
        elif Path(entry.name).suffix.lower() in RASTER_SUFFIXES:
            yield Path(entry.path)


def _is_scene(folder: Path) -> bool:
    """Whether a folder is one scene: a product, or bands in a file each."""
    if folder.suffix.upper() == ".SAFE":
        return True
    rasters = [p for p in folder.iterdir() if p.suffix.lower() in RASTER_SUFFIXES]
    bands = [p for p in rasters if band_code(p.stem) or common_name(p.stem)]
    product = PRODUCT_FOLDER.match(folder.name) is not None
    return bool(bands) and (product or (len(bands) > 1 and len(bands) == len(rasters)))


def _glob(pattern: str) -> Iterator[SceneSource]:
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise UsageError(f"{pattern}: nothing has such a name")
    return (source_of_file(path) for path in paths)


def _read_list(path: Path) -> Iterator[SceneSource]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read as UTF-8 text ({error})") from error
    if path.suffix.lower() == ".csv":
        return _table(text, path)
    return _list(text, path.parent, str(path))


def _list(text: str, folder: Path, what: str) -> Iterator[SceneSource]:
    """A scene a line; paths are relative to the list's folder, # begins a comment."""
    lines = [line.strip() for line in text.splitlines()]
    scenes = [line for line in lines if line and not line.startswith("#")]
    if not scenes:
        raise UsageError(f"{what} lists no scene; write a path or an address in each line")
    return (source_of_file(_relative(line, folder)) for line in scenes)


def _table(text: str, path: Path) -> Iterator[SceneSource]:
    """A scene a row; the column "scene" holds its path or address."""
    rows = csv.DictReader(io.StringIO(text))
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    column = next((names[name] for name in _COLUMNS if name in names), None)
    if column is None:
        raise UsageError(
            f"{path} has the columns {', '.join(names) or 'none'}; the one with the scenes' paths "
            f"or addresses must be called scene"
        )
    for number, row in enumerate(rows, start=2):
        scene = (row[column] or "").strip()
        if not scene:
            raise UsageError(f"{path}: row {number} names no scene")
        options = {
            name: _option(name, value.strip(), f"{path}: row {number}")
            for name in _OPTIONS
            if name in names and (value := row[names[name]]) and value.strip()
        }
        yield source_of_file(_relative(scene, path.parent), options=options)


def _option(name: str, value: str, where: str) -> str | float:
    if name == "bands":
        return value
    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f"{where}: {name} is {value!r}; it must be a number") from error


def _relative(scene: str, folder: Path) -> str:
    """A path of a list, relative to the list's folder."""
    return scene if is_remote(public_name(scene)) else os.path.join(folder, scene)
