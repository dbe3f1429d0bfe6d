"""A scene of a manifest, and the key of what is made of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from geoseg.archive.entries import NewJob
from geoseg.core.names import full_address, public_name
from geoseg.scene.item import AssetBand, Item, parse_item
from geoseg.scene.item_scene import APPLIED, BASELINES
from geoseg.scene.sources import is_remote

__all__ = ["SceneSource", "addresses", "job_key", "scene_to_open", "source_of_file"]

#: Options that change no pixel: how much of the machine a job takes.
_OF_THE_MACHINE = {"threads", "mem_limit", "batch_size", "restart", "overwrite", "max_pixels"}


@dataclass(frozen=True)
class SceneSource:
    """A scene of a manifest.

    Attributes:
        name: for people.
        files: paths or addresses, as :func:`geoseg.core.names.public_name` gives them; one is a
            raster or a folder, several are one-band files. Empty where ``item`` has them.
        item: the STAC item, with public addresses; None where the scene is no item.
        options: of ``predict``, for this scene alone.
        footprint: (west, south, east, north) in degrees, as far as the manifest says.
        place: path or address that the item was read from, in whose folder its files may lie; ""
            where it isn't known.
    """

    name: str
    files: tuple[str, ...] = ()
    item: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    footprint: tuple[float, float, float, float] | None = None
    place: str = ""

    def record(self) -> dict[str, Any]:
        """What the ledger keeps of it."""
        kept: dict[str, Any] = {"files": list(self.files)}
        if self.item is not None:
            kept["item"] = self.item
        if self.place:
            kept["place"] = self.place
        if self.options:
            kept["options"] = dict(self.options)
        if self.footprint is not None:
            kept["footprint"] = list(self.footprint)
        return kept

    def job(self, options: Mapping[str, Any], model: str) -> NewJob:
        """Make the job that predicts it.

        Args:
            options: of ``predict``.
            model: SHA-256 of the model's files.
        """
        return NewJob(job_key(self, options, model), self.name, self.record())


def job_key(source: SceneSource, options: Mapping[str, Any], model: str) -> str:
    """Name what is made of a scene, by the scene, the model and the options.

    Args:
        source: the scene.
        options: of ``predict``; those that change no pixel are left out.
        model: SHA-256 of the model's files.

    Returns:
        A folder's name: the scene's, and ten hexadecimal digits.
    """
    asked = {k: v for k, v in {**options, **source.options}.items() if k not in _OF_THE_MACHINE}
    item = None if source.item is None else _essence(source.item)
    what = json.dumps([source.files, item, asked, model], sort_keys=True, default=str)
    digest = hashlib.sha256(what.encode()).hexdigest()[:10]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", source.name).strip("._-")[:80]
    return f"{safe or 'scene'}-{digest}"


def _essence(value: Mapping[str, Any]) -> list[Any]:
    """What of an item decides the pixels of its map: its files, and what their numbers mean."""
    item = parse_item(value)
    files = [
        [key, public_name(asset.href), [_meaning(band) for band in asset.bands]]
        for key, asset in sorted(item.assets.items())
    ]
    said = [item.properties.get(key) for key in (*BASELINES, *APPLIED)]
    return [item.id, item.collection, files, said]


def _meaning(band: AssetBand) -> list[Any]:
    classes, bits = sorted(band.classes.items()), sorted(band.bits.items())
    return [band.name, band.common, band.scale, band.offset, band.nodata, classes, bits]


def scene_to_open(record: Mapping[str, Any]) -> str | list[str] | Item:
    """Give what ``predict`` opens of what the ledger keeps of a scene.

    Args:
        record: as :func:`addresses` gave it.

    Raises:
        SceneError: its item is none.
    """
    if "item" in record:
        # An item of this machine may name files in the folder that it was read from.
        return parse_item(record["item"], record.get("place") or None)
    files = list(record["files"])
    return files[0] if len(files) == 1 else files


def addresses(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the full addresses, with what gives access, into what the ledger keeps of a scene.

    Args:
        record: as :meth:`SceneSource.record` gave it, from a manifest that this process has read.
    """
    filled = {**record, "files": [full_address(file) for file in record["files"]]}
    if "item" in record:
        assets = {
            name: {**asset, "href": full_address(asset["href"])}
            for name, asset in record["item"].get("assets", {}).items()
        }
        filled["item"] = {**record["item"], "assets": assets}
    return filled


def source_of_file(file: str | Path, **more: Any) -> SceneSource:
    """Make a scene of a raster, a folder or an address."""
    text = public_name(file)
    if text.startswith("file:"):
        text = url2pathname(urlsplit(text).path)
    if not is_remote(text):
        text = os.path.abspath(text)  # workers may be elsewhere
    path = text.split("?")[0] if is_remote(text) else text
    stem = Path(path.rstrip("/").rsplit("/", 1)[-1])
    folder = not is_remote(text) and os.path.isdir(text)
    name = stem.name if folder else stem.stem
    # A name may have bytes that are no text; the path keeps them.
    name = name.removesuffix(".SAFE").encode("utf-8", "replace").decode()
    return SceneSource(name or "scene", (text,), **more)
