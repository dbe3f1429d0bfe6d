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

from geoseg.archive.entries import NewJob
from geoseg.core.names import full_address, public_name
from geoseg.scene.sources import is_remote

__all__ = ["SceneSource", "addresses", "job_key", "source_of_file"]

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
    """

    name: str
    files: tuple[str, ...] = ()
    item: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    footprint: tuple[float, float, float, float] | None = None

    def record(self) -> dict[str, Any]:
        """What the ledger keeps of it."""
        kept: dict[str, Any] = {"files": list(self.files)}
        if self.item is not None:
            kept["item"] = self.item
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
    item = None
    if source.item is not None:
        assets = source.item.get("assets", {})
        hrefs = sorted(str(a.get("href")) for a in assets.values() if isinstance(a, Mapping))
        item = [source.item.get("id"), source.item.get("collection"), hrefs]
    what = json.dumps([source.files, item, asked, model], sort_keys=True, default=str)
    digest = hashlib.sha256(what.encode()).hexdigest()[:10]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", source.name).strip("._-")[:80]
    return f"{safe or 'scene'}-{digest}"


def addresses(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the full addresses, with what gives access, into what the ledger keeps of a scene.

    Args:
        record: as :meth:`SceneSource.record` gave it, from a manifest that this process has read.
    """
    filled = {**record, "files": [full_address(file) for file in record["files"]]}
    if "item" in record:
        assets = {
            name: {**asset, "href": full_address(asset["href"])} if "href" in asset else asset
            for name, asset in record["item"].get("assets", {}).items()
        }
        filled["item"] = {**record["item"], "assets": assets}
    return filled


def source_of_file(file: str | Path, **more: Any) -> SceneSource:
    """Make a scene of a raster, a folder or an address."""
    text = public_name(file)
    if not is_remote(text):
        text = os.path.abspath(text)  # workers may be elsewhere
    stem = Path(text.split("?")[0].rstrip("/").rsplit("/", 1)[-1])
    folder = not is_remote(text) and os.path.isdir(text)
    name = stem.name if folder else stem.stem
    return SceneSource(name.removesuffix(".SAFE") or "scene", (text,), **more)
