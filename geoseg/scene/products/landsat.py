"""Landsat as USGS delivers it: one file a band, and MTL metadata that name each of them.

The metadata give a factor and an addend a band. Those of level 1 give reflectance as if the sun
stood overhead, which is divided by the sine of its elevation (USGS, Landsat 8 Data Users Handbook,
section 5.2).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping

from geoseg.scene.containers import files_in, read_text, within
from geoseg.scene.products.told import Told, elements

__all__ = ["told"]

_METADATA = re.compile(r"_MTL\.(txt|xml|json)$", re.I)
#: Groups of the metadata that hold a level's factors; Collection 1 has other names.
_LEVEL_2 = ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",)
_LEVEL_1 = ("LEVEL1_RADIOMETRIC_RESCALING", "RADIOMETRIC_RESCALING")
_CONTENTS = ("PRODUCT_CONTENTS", "PRODUCT_METADATA")
_SUN = ("IMAGE_ATTRIBUTES",)

Groups = Mapping[str, Mapping[str, str]]


def told(path: str, index: int, count: int) -> Told | None:
    """Find what a product's metadata say of a file's band.

    Args:
        path: of the file, beside metadata that name it.
        index: of the band, from 1.
        count: of the file's bands.
    """
    name = os.path.basename(path)
    folder = os.path.dirname(path)
    if count != 1 or not re.search(r"_B\d+\.tiff?$", name, re.I):
        return None
    for beside in files_in(folder):
        if not _METADATA.search(beside):
            continue
        by = within(folder, beside)
        groups = _groups(read_text(by) or "")
        contents = _first(groups, _CONTENTS)
        keys = [k for k, v in contents.items() if v.lower() == name.lower()]
        band = next((m[1] for k in keys if (m := re.fullmatch(r"FILE_NAME_BAND_(\d+)", k))), None)
        if band is not None:
            return _of_band(by, groups, contents, band)
    return None


def _of_band(by: str, groups: Groups, contents: Mapping[str, str], band: str) -> Told:
    product = contents.get("LANDSAT_PRODUCT_ID", "")
    said = Told(by, nodata=0.0, product=product)
    level = contents.get("PROCESSING_LEVEL", contents.get("DATA_TYPE", ""))
    second = level.startswith("L2")
    factors = _first(groups, _LEVEL_2 if second else _LEVEL_1)
    try:
        gain = float(factors[f"REFLECTANCE_MULT_BAND_{band}"])
        bias = float(factors[f"REFLECTANCE_ADD_BAND_{band}"])
        elevation = 90.0 if second else float(_first(groups, _SUN)["SUN_ELEVATION"])
    except (KeyError, ValueError):
        return said
    sine = math.sin(math.radians(elevation))
    if not (math.isfinite(gain) and math.isfinite(bias) and gain > 0 and sine > 0):
        return said
    source = f"{os.path.basename(by)}: REFLECTANCE_MULT and _ADD of level {level[:2]}"
    if not second:
        source += f", sun at {elevation:g} degrees"
    return Told(by, None, gain / sine, bias / sine, source, 0.0, product)


def _first(groups: Groups, names: tuple[str, ...]) -> Mapping[str, str]:
    return next((groups[name] for name in names if name in groups), {})


def _groups(text: str) -> dict[str, dict[str, str]]:
    """Read metadata as text, XML or JSON: group -> key -> value; the first of the same name."""
    begin = text.lstrip()[:1]
    found: dict[str, dict[str, str]] = {}
    if begin == "{":
        try:
            _collect(json.loads(text), "", found)
        except (ValueError, RecursionError):
            return {}
    elif begin == "<":
        for element in elements(text):
            if len(element):
                values = {e.tag: (e.text or "").strip() for e in element if not len(e)}
                found.setdefault(element.tag, values)
    else:
        group = ""
        for key, value in re.findall(r"^\s*(\w+)\s*=\s*\"?(.*?)\"?\s*$", text, re.M):
            if key == "GROUP":
                group = value
            elif key != "END_GROUP":
                found.setdefault(group, {}).setdefault(key, value)
    return found


def _collect(value: object, name: str, found: dict[str, dict[str, str]]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict):
                _collect(inner, str(key), found)
            else:
                found.setdefault(name, {}).setdefault(str(key), str(inner))
