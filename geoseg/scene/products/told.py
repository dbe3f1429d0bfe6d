"""What a product's own metadata say, and which of its files are its bands."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from xml.etree import ElementTree

__all__ = ["Layout", "Told", "elements", "stem"]


@dataclass(frozen=True)
class Told:
    """What metadata beside a file say of one of its bands.

    Attributes:
        by: the file that says so, as a path.
        name: of the band, or None.
        scale: reflectance per whole number, or None where nothing is said.
        offset: reflectance at number 0.
        source: where scale and offset come from, in words.
        nodata: the number that stands for "not measured", or None.
        product: its own name, which tells the sensor; "" where it isn't said.
        bits: of what the sensor counts, where the numbers are that; None where it isn't said.
    """

    by: str
    name: str | None = None
    scale: float | None = None
    offset: float = 0.0
    source: str = ""
    nodata: float | None = None
    product: str = ""
    bits: int | None = None


@dataclass(frozen=True)
class Layout:
    """Which of a folder's files are a scene.

    Attributes:
        files: with bands.
        others: rasters that are not used, each with the reason.
        clouds: a raster that may be the cloud layer -> its kind in
            :data:`geoseg.scene.clouds.LAYERS`; the best first.
    """

    files: tuple[str, ...]
    others: tuple[str, ...] = ()
    clouds: tuple[tuple[str, str], ...] = ()


def elements(text: str) -> list[ElementTree.Element]:
    """Parse XML and give its elements in order, with names that are free of namespaces.

    Gives none where it isn't well-formed, or declares entities: metadata of products don't.
    """
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.I):
        return []
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except ElementTree.ParseError:
        return []
    found = [element for element in root.iter() if isinstance(element.tag, str)]
    for element in found:
        element.tag = element.tag.rpartition("}")[2]
    return found


def stem(path: str) -> str:
    """Give a file's name without its folder and suffix."""
    return os.path.splitext(os.path.basename(path))[0]
