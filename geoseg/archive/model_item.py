"""A model's own STAC item in an archive, to which the items of its maps point."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from geoseg.archive.writing import write_text
from geoseg.cards.card import WEIGHTS_NAME
from geoseg.cards.files import ModelFiles
from geoseg.cards.stac import to_mlm
from geoseg.core.jsontext import json_text
from geoseg.core.write_errors import explain_write_error

__all__ = ["FILE_SCHEMA", "MODELS", "model_href", "multihash", "write_model_item"]

#: The folder of an archive that holds the models' items.
MODELS = "models"
FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"


def model_href(name: str, sha256: str) -> str:
    """Name a model's item, from the archive's folder.

    Args:
        name: the card's.
        sha256: of the model's files, hexadecimal.

    Examples:
        >>> model_href("landcover-ms", "e0310e9acf527c19")
        'models/landcover-ms-e0310e9acf.json'
    """
    return f"{MODELS}/{re.sub(r'[^0-9A-Za-z._-]', '_', name)[:100]}-{sha256[:10]}.json"


def multihash(sha256: str) -> str:
    """Write a hexadecimal SHA-256 as STAC's file extension has it, which says what hash it is."""
    return f"1220{sha256}"


def write_model_item(out: Path, files: ModelFiles) -> Path:
    """Write a model's card into an archive, as an item with the MLM extension.

    The weights stay where they are; the item has their address, size and checksum.

    Args:
        out: the archive's folder.
        files: the model.

    Returns:
        The item's path; one of the same model is replaced by the same bytes.

    Raises:
        OutputError: the folder can't be written.
    """
    path = out / model_href(files.card.name, files.sha256)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise explain_write_error(error, path) from error
    write_text(path, json_text(_item(files, path.stem), indent=2) + "\n")
    return path


def _item(files: ModelFiles, name: str) -> dict[str, Any]:
    item = to_mlm(files.card)
    weights = item["assets"]["weights"]
    if files.path.is_dir():
        weights["href"] = (files.path / WEIGHTS_NAME).absolute().as_uri()
        weights["file:size"] = len(files.weights)
        weights["file:checksum"] = multihash(files.weights_sha256)
        item["stac_extensions"] = [*item["stac_extensions"], FILE_SCHEMA]
    else:  # what is in a .zip has no address of its own
        weights["href"] = files.path.absolute().as_uri()
    # MLM wants the bands among the item's properties; there STAC 1.1 has them only if an asset has.
    weights["bands"] = item["properties"]["bands"]
    item["properties"]["geoseg:sha256"] = files.sha256
    item["id"] = name
    item["links"] = [{"rel": "root", "href": "../collection.json", "type": "application/json"}]
    return item
