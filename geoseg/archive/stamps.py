"""The stamp of a scene: by it a later run sees that the scene has changed since its map was made.

Files of this machine are looked at, as a stopped run of ``geoseg predict`` looks at them. Of what
lies on a server only that counts which the manifest says, so that nobody is asked: checksums of a
STAC item's assets or, where it has none, when it was updated.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from geoseg.archive.entries import Job
from geoseg.core.gdal import over_network
from geoseg.core.ownership import significant_text
from geoseg.errors import SceneError
from geoseg.prediction.report import file_state
from geoseg.scene.item import address_of, is_item, read_item
from geoseg.scene.item_beside import names_files
from geoseg.scene.opening import RASTER_SUFFIXES
from geoseg.scene.pointers import RefusedError, vrt_pointers
from geoseg.scene.sources import Rules, is_remote
from geoseg.scene.zarr import folders_of, is_zarr

__all__ = ["CHANGED", "GONE", "has_changed", "stamp_of"]

#: Why a job is done again.
CHANGED = "its source has changed"
GONE = "a file of its map is not there any more"
#: What may lie beside a raster and says where its pixels are, or which were measured.
_BESIDE = (".aux.xml", ".msk")
#: Of files in a scene's folder that count, besides rasters.
_SIDECARS = {".xml", ".msk", ".hdr", ".tfw", ".wld"}
#: Metadata of products under other ends: of Landsat, Maxar and SNAP, and items beside files.
_TELLING = re.compile(r"(_MTL\.(txt|json)|\.imd|\.dim)$", re.I)
#: Virtual rasters may name virtual ones, which may name others: so far.
_DEPTH = 5


def has_changed(job: Job) -> bool:
    """Whether a scene is another one than a finished job has mapped.

    What is gone is no change: a scene that is not there any more leaves its map as it is.

    Args:
        job: that is done, with the source that the manifest has now.
    """
    before = job.result.get("stamp")
    if not before:
        return False
    return any(before.get(name) != state for name, state in stamp_of(job.source).items())


def stamp_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Make the stamp of a scene as it is now.

    Args:
        record: what the ledger keeps of it, with or without what gives access.

    Returns:
        File, or what a manifest says -> its state, each as a few hexadecimal digits: an archive
        keeps a hundred thousand of these. Nothing of files that are not there, or by which no
        change would show.
    """
    names = [str(name) for name in record.get("files", ())]
    found: dict[str, Any] = {}
    if "item" in record:
        found |= _said(record["item"])
        names += [str(a.get("href", "")) for a in record["item"].get("assets", {}).values()]
    for name in names:
        if name and _is_here(name):
            found |= {path: _state(Path(path)) for path in _files(name)}
    return {_digits(name, 8): _digits(state, 12) for name, state in found.items() if state}


def _is_here(name: str) -> bool:
    """Whether a file, or the archive that it lies in, is on this machine."""
    return not is_remote(name) or (name.startswith("/vsi") and not over_network(name))


def _state(path: Path) -> Any:
    """Tell a file from what it was before; None where nothing of it counts.

    QGIS and GDAL write what they work out of a scene beside it, and the names of its bands once
    more.
    """
    if not path.name.lower().endswith(".aux.xml"):
        return file_state(path)
    with suppress(OSError, ElementTree.ParseError):
        root = ElementTree.fromstring(path.read_bytes())
        for parent in list(root.iter()):
            for child in parent.findall("Description"):
                parent.remove(child)
        return significant_text(ElementTree.tostring(root)) or None
    return file_state(path)


def _digits(value: Any, count: int) -> str:
    text = json.dumps(value).encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:count]


def _said(item: Mapping[str, Any]) -> dict[str, Any]:
    """What an item says of the state of its files.

    Catalogues update their items for many a reason, so that checksums count where there are any.
    """
    assets = item.get("assets", {})
    sums = {f"checksum of {key}": asset.get("file:checksum") for key, asset in assets.items()}
    if any(sums.values()):
        return sums
    updated = item.get("properties", {}).get("updated")
    return {"updated": _time(updated)} if isinstance(updated, str) else {}


def _time(text: str) -> str:
    """Write a time in one way, however many digits its catalogue gives it."""
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    return text


def _files(name: str) -> Iterator[str]:
    """List the files of this machine that are read for a name; it may not be there."""
    # Such as /vsizip/archive.zip/band.tif: the archive.
    bare = Path(re.sub(r"^(/vsi\w+/)+", "/" if name.startswith("/vsi") else "", name))
    if not bare.exists():
        bare = next((p for p in bare.parents if p.is_file()), bare)
    if bare.is_dir() and is_zarr(str(bare)):
        yield from folders_of(str(bare))
        return
    if not bare.is_dir():
        yield from _with_companions(bare, _DEPTH)
        return
    for folder, folders, files in os.walk(bare):
        folders[:] = (f for f in folders if not f.startswith("."))
        for file in files:
            path = Path(folder, file)
            counts = path.suffix.lower() in RASTER_SUFFIXES | _SIDECARS or _TELLING.search(file)
            if not file.startswith(".") and (counts or names_files(str(path))):
                yield str(path)
    if bare.suffix == ".data" and (header := bare.with_suffix(".dim")).is_file():
        yield str(header)


def _with_companions(path: Path, depth: int) -> Iterator[str]:
    """A raster, what lies beside it, and what it names if it is a virtual one."""
    yield str(path)
    yield from (beside for end in _BESIDE if os.path.exists(beside := f"{path}{end}"))
    with suppress(RefusedError, SceneError, OSError):
        for named in _named_by(path) if depth else ():
            if named.is_file():
                yield from _with_companions(named, depth - 1)


def _named_by(path: Path) -> Iterator[Path]:
    """Files that a virtual raster, or a STAC item, names."""
    if path.suffix.lower() == ".vrt":
        for pointer in vrt_pointers(path):
            yield path.parent / pointer.name if pointer.relative else Path(pointer.name)
    elif is_item(str(path)):
        item = read_item(str(path))
        for asset in item.assets.values():
            with suppress(SceneError):
                yield Path(address_of(asset, item, Rules(vrt="any")))
