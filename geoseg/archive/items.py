"""The items of an archive, read one by one in the order of their keys."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.archive.stac_item import ITEM_NAME
from geoseg.errors import OutputError

__all__ = ["Items"]


@dataclass(frozen=True)
class Items:
    """The items in an archive's folder; can be gone through again and again.

    Attributes:
        out: the archive's folder.
        keys: of the jobs whose items are wanted; None for every folder that has an item.
    """

    out: Path
    keys: Iterable[str] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read the items, by key.

        Raises:
            OutputError: one is missing or can't be read.
        """
        if self.keys is None:
            with os.scandir(self.out) as found:
                keys = [e.name for e in found if (self.out / e.name / ITEM_NAME).is_file()]
        else:
            keys = list(self.keys)
        for key in sorted(keys):
            yield _read(self.out / key / ITEM_NAME)


def _read(path: Path) -> dict[str, Any]:
    try:
        item = json.loads(path.read_bytes())
        if item["type"] == "Feature" and item["id"] == path.parent.name:
            found: dict[str, Any] = item
            return found
        why = "it is not the item of this folder"
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        why = str(error)
    raise OutputError(
        f"{path} can't be used as a STAC item: {why}; remove that folder and run its job again"
    )
