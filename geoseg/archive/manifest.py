"""What a user names as the scenes of an archive: a folder, a glob, a list, or STAC.

Each kind gives scenes one after another, in an order of its own that is the same each time.
"""

from __future__ import annotations

import csv
import difflib
import glob
import hashlib
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from geoseg.archive.place import ELSEWHERE, LEDGER
from geoseg.archive.sources import SceneSource, source_of_file
from geoseg.core.names import public_name
from geoseg.errors import GeosegError, SceneError, UsageError
from geoseg.prediction.options import PredictOptions
from geoseg.scene.clouds import CLOUDS
from geoseg.scene.folders import is_product_archive
from geoseg.scene.opening import PRODUCT_FOLDER, RASTER_SUFFIXES
from geoseg.scene.products import layout_of
from geoseg.scene.sensors import band_code, common_name
from geoseg.scene.sources import LOCAL, is_remote, open_raster

__all__ = ["read_manifest"]

_LISTS = (".txt", ".lst", ".csv")
_ITEMS, _TABLES = (".json", ".geojson"), (".ndjson", ".parquet")
#: Names of the column that holds a scene's path or address.
_COLUMNS = ("scene", "path", "href", "url", "file")
#: Columns that are options of ``predict``.
_OPTIONS = (
    "bands",
    "band_names",
    "scale",
    "offset",
    "src_nodata",
    "nearblack",
    "clouds",
    "cloud_buffer",
)
#: What those say that are neither numbers nor text.
_WORDS: Mapping[str, Mapping[str, str | bool]] = {
    "nearblack": {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False},
    "clouds": {word: word for word in CLOUDS},
}


def read_manifest(manifest: str) -> Iterator[SceneSource]:
    """Go through the scenes of a manifest, each once.

    The same files with other options, which a table may give, are another scene.

    Args:
        manifest: a folder, a glob, a .txt or .csv list, ``-`` for a list on standard input, a
            .json, .ndjson or .parquet file of STAC items, or an address of such a file.

    Raises:
        UsageError: there is no such thing, or it holds no scene.
        SceneError: STAC items can't be read.
    """
    scenes = _once(_sources(manifest))
    # The first one now: what names nothing is refused before anything is made for it.
    return chain(list(islice(scenes, 1)), scenes)


def _once(sources: Iterator[SceneSource]) -> Iterator[SceneSource]:
    seen: set[bytes] = set()
    for source in sources:
        text = json.dumps(source.record(), sort_keys=True)
        mark = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if mark not in seen:
            seen.add(mark)
            yield source


def _sources(manifest: str) -> Iterator[SceneSource]:
    text = public_name(manifest)
    if text == "-":
        try:
            return _list(sys.stdin.read(), Path.cwd(), "standard input")
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input can't be read as text ({error})") from error
    suffix = os.path.splitext(text.split("?")[0] if is_remote(text) else text)[1].lower()
    if not is_remote(text) and os.path.isdir(text):
        return _folder(Path(text))
    is_there = not glob.has_magic(text) or os.path.exists(text)
    if suffix in (*_ITEMS, *_TABLES) and (is_there or is_remote(text)):
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
    if _is_scene_file(os.path.basename(text)):
        return iter([source_of_file(text)])
    raise UsageError(
        f"{text} is no manifest: give a folder, a glob, a list (.txt, .csv), or STAC items (.json, "
        f".ndjson, .parquet)"
    )


def _folder(folder: Path) -> Iterator[SceneSource]:
    """Find the scenes below a folder: products, folders of one-band files, rasters."""
    if _is_archive(folder):
        raise UsageError(
            f"{folder} is an archive of maps that geoseg made; give the folder of the scenes"
        )
    found = False
    for scene in _below(folder, set()):
        found = True
        yield source_of_file(scene)
    if not found:
        raise UsageError(
            f"{folder} holds no scene; geoseg looks for rasters "
            f"({', '.join(sorted(RASTER_SUFFIXES))}), .SAFE folders and folders of one-band files"
        )


def _below(folder: Path, seen: set[str]) -> Iterator[Path]:
    """Find the scenes below a folder; links are followed, but lead nowhere twice.

    Raises:
        UsageError: a folder can't be read.
    """
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        if _is_scene(folder):
            yield folder
            return
        with os.scandir(folder) as entries:
            listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise UsageError(
            f"{folder} can't be read ({error.strerror}); give it rights, or a list of the scenes"
        ) from error
    for name, is_folder in listed:
        if name.startswith("."):
            continue
        if is_folder and not _is_archive(folder / name):
            yield from _below(folder / name, seen)
        elif not is_folder and _is_scene_file(name):
            yield folder / name


def _is_archive(folder: Path) -> bool:
    """Whether geoseg wrote its maps there, which are no scenes."""
    return any((folder / name).exists() for name in (LEDGER, ELSEWHERE))


def _is_scene_file(name: str) -> bool:
    """Whether a file is a scene by its name: a raster, or an archive of a product."""
    return Path(name).suffix.lower() in RASTER_SUFFIXES or is_product_archive(name)


def _is_scene(folder: Path) -> bool:
    """Whether a folder is one scene: a product, or bands in a file each."""
    if folder.suffix.upper() == ".SAFE" or layout_of(str(folder)) is not None:
        return True
    rasters = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in RASTER_SUFFIXES and not p.name.startswith(".")
    ]
    bands = [p for p in rasters if band_code(p.stem) or common_name(p.stem)]
    if not bands or PRODUCT_FOLDER.match(folder.name):
        return bool(bands)
    return len(bands) == len(rasters) > 1 and not _has_several_bands(bands[0])


def _has_several_bands(path: Path) -> bool:
    """Whether a raster that is named as a band, such as b1.tif, is a scene of its own."""
    try:
        with open_raster(str(path), LOCAL) as dataset:
            return bool(dataset.count > 1)
    except (GeosegError, RasterioError):
        return False  # whoever opens the folder says what is wrong with it


def _glob(pattern: str) -> Iterator[SceneSource]:
    """Take what a pattern matches: rasters, items, and what is below folders."""
    seen: set[str] = set()
    found = matched = False
    for name in sorted(glob.iglob(pattern, recursive=True)):
        matched = True
        path = Path(name)
        if path.is_dir():
            scenes = [] if _is_archive(path) else _below(path, seen)
        else:
            # Sidecars and notes lie beside scenes.
            fits = _is_scene_file(path.name) or path.suffix.lower() in _ITEMS
            scenes = [path] if fits else []
        for scene in scenes:
            found = True
            yield from _named(str(scene))
    if not matched:
        raise UsageError(f"{pattern}: nothing has such a name")
    if not found:
        raise UsageError(
            f"{pattern} matches no scene; geoseg looks for rasters "
            f"({', '.join(sorted(RASTER_SUFFIXES))}), STAC items and folders of scenes"
        )


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
    return chain.from_iterable(_named(_relative(line, folder)) for line in scenes)


def _named(scene: str, **options: Any) -> Iterator[SceneSource]:
    """Give the scene of a name; of a file with STAC items, those that are in it."""
    place = public_name(scene)
    path = place.split("?")[0] if is_remote(place) else place
    if path.lower().endswith((*_ITEMS, *_TABLES)):
        from geoseg.archive.stac_items import read_items

        try:
            items = [replace(item, options=options) for item in read_items(scene)]
        except (SceneError, UsageError):
            items = []  # one of many: it goes to quarantine, with what is wrong
        if items:
            yield from items
            return
    yield source_of_file(scene, options=options)


def _table(text: str, path: Path) -> Iterator[SceneSource]:
    """A scene a row; the column "scene" holds its path or address."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    head = [name.strip().lower() for name in next(_rows(rows, path), ())]
    names = {name: place for place, name in enumerate(head)}
    column = next((name for name in _COLUMNS if name in names), None)
    if column is None:
        raise UsageError(
            f"{path} has the columns {', '.join(names) or 'none'}; the one with the scenes' paths "
            f"or addresses must be called scene"
        )
    twice = [name for name in (*_COLUMNS, *_OPTIONS) if head.count(name) > 1]
    if twice:
        raise UsageError(f"{path} has two columns called {twice[0]}; leave out one of them")
    _check_columns([name for name in head if name not in (*_COLUMNS, *_OPTIONS)], path)
    found = False
    for row in _rows(rows, path):
        where = f"{path}: row {rows.line_num}"
        if len(row) > len(head):
            raise UsageError(
                f"{where} has {len(row)} values, and the table has {len(head)} columns; put "
                f"values with a comma in quotes"
            )
        values = [value.strip() for value in row] + [""] * (len(head) - len(row))
        scene = values[names[column]]
        if not scene:
            raise UsageError(f"{where} names no scene; write its path in the column {column}")
        options = {
            name: _option(name, value, where)
            for name in _OPTIONS
            if name in names and (value := values[names[name]])
        }
        found = True
        yield from _named(_relative(scene, path.parent), **options)
    if not found:
        raise UsageError(f"{path} lists no scene; write a path or an address in each row")


def _check_columns(unknown: Sequence[str], path: Path) -> None:
    """Refuse columns that are meant as options, and are none; others are the user's own.

    Raises:
        UsageError: there is one.
    """
    for name in unknown:
        plain = re.sub(r"[\s-]+", "_", name)
        meant = plain in {field.name for field in fields(PredictOptions)}
        if meant or difflib.get_close_matches(plain, _OPTIONS, 1, 0.8):
            raise UsageError(
                f"{path} has a column called {name}; what a column can say of its scene is "
                f"{', '.join(_OPTIONS)}: correct the name, or give other options with the command, "
                f"for all scenes"
            )


def _rows(rows: Any, path: Path) -> Iterator[list[str]]:
    """Go through rows that are not empty.

    Raises:
        UsageError: one is no CSV.
    """
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(
                f"{path}: line {rows.line_num} is no CSV ({error}); check its quotes"
            ) from error
        if any(value.strip() for value in row):
            yield row


def _option(name: str, value: str, where: str) -> str | float | bool:
    if name in ("bands", "band_names"):
        return value
    words = _WORDS.get(name)
    if words is not None:
        if value.lower() not in words:
            raise UsageError(
                f"{where}: {name} is {value[:40]!r}; it must be one of {', '.join(words)}"
            )
        return words[value.lower()]
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    if math.isinf(number) or (math.isnan(number) and name != "src_nodata"):
        raise UsageError(f"{where}: {name} is {value[:40]!r}; it must be a number")
    return number


def _relative(scene: str, folder: Path) -> str:
    """A path of a list, relative to the list's folder."""
    return scene if is_remote(public_name(scene)) else os.path.join(folder, scene)
