"""Pléiades, Pléiades Neo and SPOT 6/7 as Airbus delivers them: DIM_X.XML (DIMAP, version 2).

It names the rasters, says which band is which (Raster_Index, where it has that), their bits, and,
where the product is one of reflectance, the factor of each band.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from geoseg.errors import SceneError
from geoseg.scene.containers import files_in, read_text, within
from geoseg.scene.products.told import Layout, Told, elements

__all__ = ["layout", "told"]

_METADATA = re.compile(r"DIM_.*\.XML$", re.I)
#: The red edge of Pléiades Neo (725 nm) is none of the bands that models know.
_BANDS = {
    **{"B0": "blue", "B1": "green", "B2": "red", "B3": "nir", "P": "pan", "PAN": "pan"},
    **{"DB": "coastal", "B": "blue", "G": "green", "R": "red", "NIR": "nir"},
}


@dataclass
class _Product:
    """What a DIM_X.XML says."""

    mission: str = ""
    bits: int | None = None
    nodata: float | None = None
    reflectance: bool = False
    #: Groups of parts of one picture: names of files, and band numbers -> identifiers.
    pictures: list[tuple[list[str], dict[int, str]]] = field(default_factory=list)
    #: Identifier -> reflectance per number, and at 0.
    factors: dict[str, tuple[float, float]] = field(default_factory=dict)


def layout(folder: str) -> Layout | None:
    """Find the rasters that a DIM_X.XML in a folder names; None where there is none.

    Raises:
        SceneError: they are several parts of one picture.
    """
    here = set(files_in(folder))
    found: list[str] = []
    for _, product in _products(folder):
        for files, bands in product.pictures:
            there = [name for name in files if name in here]
            if len(there) > 1:
                names = ",".join(_BANDS.get(bands[i], "-") for i in sorted(bands))
                raise SceneError(
                    f"{folder} holds one picture in {len(there)} parts ({there[0]}, ...): join "
                    f"them (gdalbuildvrt scene.vrt {' '.join(there[:9])}), and give that; its "
                    f"bands are {names or 'not named'}, which --band-names says"
                )
            found += there
    return Layout(tuple(within(folder, name) for name in dict.fromkeys(found))) if found else None


def told(path: str, index: int, count: int) -> Told | None:
    """Find what a DIM_X.XML says of a band.

    Args:
        path: of a raster that it names.
        index: of the band, from 1.
        count: of the file's bands.
    """
    folder, name = os.path.split(path)
    for by, product in _products(folder):
        for files, bands in product.pictures:
            if name not in files:
                continue
            band = bands.get(index, "P" if count == 1 and not bands else "")
            scale, offset = product.factors.get(band, (None, 0.0))
            known = product.reflectance and scale is not None
            source = f"{os.path.basename(by)}: Band_Reflectance, reflectance = number / GAIN + BIAS"
            return Told(
                by,
                _BANDS.get(band),
                scale if known else None,
                offset if known else 0.0,
                source if known else "",
                product.nodata,
                f"AIRBUS {product.mission}",
                None if known else product.bits,
            )
    return None


def _products(folder: str) -> list[tuple[str, _Product]]:
    found = []
    for name in files_in(folder):
        text = read_text(within(folder, name)) if _METADATA.match(name) else None
        if text is not None and (parsed := elements(text)) and parsed[0].tag == "Dimap_Document":
            found.append((within(folder, name), _product(parsed)))
    return found


def _product(parsed: list[Element]) -> _Product:
    said = _Product()
    for element in parsed:
        inner = {e.tag: (e.text or "").strip() for e in element.iter()}
        if element.tag == "MISSION" and not said.mission:
            said.mission = (element.text or "").strip()
        elif element.tag == "ACQUISITION_RANGE" and said.bits is None:
            said.bits = _whole(element.text)
        elif element.tag == "RADIOMETRIC_PROCESSING":
            said.reflectance = (element.text or "").strip() == "REFLECTANCE"
        elif element.tag == "Special_Value" and inner.get("SPECIAL_VALUE_TEXT") == "NODATA":
            value = _whole(inner.get("SPECIAL_VALUE_COUNT"))
            said.nodata = None if value is None else float(value)
        elif element.tag == "Band_Reflectance":
            gain, bias = _number(inner.get("GAIN")), _number(inner.get("BIAS", "0"))
            if gain and bias is not None:
                said.factors[inner.get("BAND_ID", "")] = (1 / gain, bias)
        elif element.tag == "Data_Files":
            files = [e.get("href", "") for e in element.iter() if e.tag == "DATA_FILE_PATH"]
            said.pictures.append((files, _indexes(element)))
    everywhere = _indexes(parsed[0])
    if len(said.pictures) == 1 and not said.pictures[0][1]:
        said.pictures = [(said.pictures[0][0], everywhere)]
    return said


def _indexes(element: Element) -> dict[int, str]:
    """Which band is which. Without this list programs differ in what they take the order for."""
    found: dict[int, str] = {}
    for one in element.iter():
        if one.tag == "Raster_Index":
            inner = {e.tag: (e.text or "").strip() for e in one}
            if (index := _whole(inner.get("BAND_INDEX"))) is not None:
                found[index] = inner.get("BAND_ID", "")
    return found


def _whole(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() and len(text) < 6 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
