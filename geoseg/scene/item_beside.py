"""The STAC item that lies beside downloaded files: it says what their numbers mean."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from geoseg.errors import SceneError
from geoseg.scene.containers import files_in, read_text, within
from geoseg.scene.item import MAX_BYTES, Item, parse_item
from geoseg.scene.sources import is_remote

__all__ = ["item_beside", "names_files"]


def item_beside(folder: str, files: Sequence[str]) -> Item | None:
    """Find the item in a folder whose assets have the names of all these files.

    Wherever its addresses lead, only the files in the folder are its assets.

    Args:
        folder: on this machine.
        files: paths of the scene's files in it.

    Returns:
        None where there is none, or where files or items are many or contradict each other.
    """
    if is_remote(folder):
        return None
    names = {os.path.basename(file) for file in files}
    found = []
    for name in files_in(folder):
        if not name.lower().endswith((".json", ".geojson")):
            continue
        path = within(folder, name)
        with suppress(SceneError, ValueError, RecursionError, OSError):
            if os.path.getsize(path) > MAX_BYTES:
                continue
            value = _here(json.loads(read_text(path) or ""), set(files_in(folder)))
            assets = value.get("assets", {})
            if names <= {asset["href"] for asset in assets.values()}:
                found.append(parse_item(value, path))
    return found[0] if len(found) == 1 else None


def names_files(path: str) -> bool:
    """Whether a file looks like an item, as :func:`item_beside` takes one.

    Args:
        path: on this machine.
    """
    if not path.lower().endswith((".json", ".geojson")) or os.path.getsize(path) > MAX_BYTES:
        return False
    text = read_text(path) or ""
    return '"assets"' in text and '"Feature"' in text


def _here(value: Any, names: set[str]) -> dict[str, Any]:
    """An item with those of its assets that lie in the folder, by their names there."""
    if not isinstance(value, Mapping) or not isinstance(value.get("assets"), Mapping):
        return {}
    assets = {}
    for key, asset in value["assets"].items():
        href = asset.get("href") if isinstance(asset, Mapping) else None
        name = os.path.basename(urlsplit(href).path) if isinstance(href, str) else ""
        if name in names:
            assets[key] = {**asset, "href": name}
    return {**value, "assets": assets}
