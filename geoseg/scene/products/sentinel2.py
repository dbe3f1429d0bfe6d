"""Sentinel-2 as ESA delivers it: a .SAFE folder under any name, with files of JPEG 2000 or TIFF.

Its metadata, MTD_MSIL1C.xml or MTD_MSIL2A.xml, say what is added to the numbers (ESA, S2 products
specification 14.9), and MTD_TL.xml of the tile says of which processing baseline it is.
"""

from __future__ import annotations

import os
import re

from geoseg.scene.containers import files_in, files_under, folders_in, read_text, within
from geoseg.scene.products.told import Layout, Told, elements, stem
from geoseg.scene.sensors import band_code, baseline_offset

__all__ = ["layout", "told"]

_MAIN = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
_TILE = "MTD_TL.xml"
#: The same before December 2016.
_OLD_MAIN = re.compile(r"S2[AB]_OPER_MTD_SAFL(1C|2A)_.*\.xml")
_OLD_TILE = re.compile(r"S2[AB]_OPER_MTD_L(1C|2A)_TL_.*\.xml")
#: Band codes by the metadata's band_id, from 0.
_BANDS = ("1", "2", "3", "4", "5", "6", "7", "8", "8A", "9", "10", "11", "12")
_QUANTIFICATION = ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
_OFFSET = ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
_RASTER = re.compile(r"\.(jp2|tiff?)$", re.I)
#: From R10m up to the product's folder.
_LEVELS = 5


def layout(folder: str) -> Layout | None:
    """Find the bands of a product's folder; None where it is none."""
    if "GRANULE" not in folders_in(folder):
        return None
    images = [
        path
        for path in files_under(within(folder, "GRANULE"))
        if "/IMG_DATA/" in path and _RASTER.search(path)
    ]
    bands = [path for path in images if band_code(stem(path))]
    layers = [(p, "SCL") for p in images if re.search(r"_SCL(_\d+m)?$|^SCL$", stem(p))]
    used = {*bands, *(path for path, _ in layers)}
    others = [f"{os.path.basename(p)}: not named after a band" for p in images if p not in used]
    return Layout(tuple(bands), tuple(others), tuple(sorted(layers)))


def told(path: str, index: int, count: int) -> Told | None:
    """Find what a product's metadata say of a file's band.

    Args:
        path: of the file, in the product's folder, or beside metadata that name it.
        index: of the band, from 1.
        count: of the file's bands.
    """
    code = band_code(stem(path))
    if code is None or count != 1:
        return None
    folder = os.path.dirname(path)
    inside = "/IMG_DATA" in folder
    by_tile = None
    for _ in range(_LEVELS if inside else 1):
        names = files_in(folder)
        for name in (n for n in names if n in _MAIN or _OLD_MAIN.fullmatch(n)):
            text = read_text(within(folder, name))
            if text is not None and (inside or stem(path) in text):
                return _by_main(within(folder, name), text, code)
        for name in (n for n in names if inside and (n == _TILE or _OLD_TILE.fullmatch(n))):
            by_tile = _by_tile(within(folder, name), read_text(within(folder, name)) or "")
        folder = os.path.dirname(folder)
    return by_tile


def _by_main(path: str, text: str, code: str) -> Told:
    """By MTD_MSIL1C.xml or MTD_MSIL2A.xml."""
    name = os.path.basename(path)
    quantification, baseline, product = None, None, ""
    offsets: dict[str, float] = {}
    for element in elements(text):
        value = (element.text or "").strip()
        try:
            if element.tag in _QUANTIFICATION and quantification is None:
                quantification = float(value)
            elif element.tag in _OFFSET:
                offsets[_BANDS[int(element.get("band_id", ""))]] = float(value)
        except (ValueError, IndexError):
            return Told(path)
        if element.tag == "PROCESSING_BASELINE":
            found = re.fullmatch(r"(\d\d)\.(\d\d)", value)
            baseline = int(found[1] + found[2]) if found else None
        elif element.tag == "PRODUCT_URI":
            product = value
    said = Told(path, nodata=0.0, product=product)
    # Where offsets belong to the product, metadata without them are not whole.
    whole = bool(offsets) or (baseline is not None and (baseline < 400 or baseline == 9999))
    if not quantification or quantification < 0 or not whole or (offsets and code not in offsets):
        return said
    offset = offsets.get(code, 0.0)
    source = f"{name}: quantification {quantification:g}, " + (
        f"added offset {offset:g}" if offsets else "no added offset"
    )
    return Told(path, None, 1 / quantification, offset / quantification, source, 0.0, product)


def _by_tile(path: str, text: str) -> Told | None:
    """By MTD_TL.xml of the tile, where there is nothing else."""
    for element in elements(text):
        if element.tag != "TILE_ID":
            continue
        found = re.search(r"_N(\d\d)\.(\d\d)$", (element.text or "").strip())
        if found and found[1] != "99":
            offset, why = baseline_offset(int(found[1] + found[2]))
            return Told(path, None, 1e-4, offset, f"{os.path.basename(path)}: {why}", 0.0)
    return None
