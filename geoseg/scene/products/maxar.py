"""WorldView, QuickBird, GeoEye and Ikonos as Maxar (DigitalGlobe) delivers them.

X.IMD, or X.XML with the same keys, lies beside the rasters and says which bands they hold, in the
order of its groups BAND_B, BAND_G, ..., and which satellite measured them. The numbers are counts
of its sensor, corrected and no reflectance.
"""

from __future__ import annotations

import os
import re

from geoseg.errors import SceneError
from geoseg.scene.containers import files_in, read_text, within
from geoseg.scene.products.told import Layout, Told, elements

__all__ = ["layout", "told"]

#: Groups of bands -> names. Yellow, the red edge (725 nm) and the second near infrared (950 nm) are
#: none of the bands that models know.
_BANDS = {"C": "coastal", "B": "blue", "G": "green", "R": "red", "N": "nir", "P": "pan"}
#: By what bandId says, where the order of the groups is that of the bands in the file.
_IN_ORDER = {"Multi", "MS1", "BGRN", "P"}
#: The others that are known.
_ORDERS = {"RGB": ("R", "G", "B"), "NRG": ("N", "R", "G"), "MS2": ("N2", "RE", "Y", "C")}
#: Bits of what the sensors count, short-wave infrared apart.
_BITS = dict.fromkeys(("QB02", "WV01", "WV02", "WV03", "WV04", "GE01", "IK01", "IK02"), 11)
#: Names of rasters, which may be cut: 16AUG31104614-S3DS_R1C1-056956784010_01_P001.TIF
_TILE = re.compile(r"_R\d+C\d+(?=-|\.|$)", re.I)
_RASTER = re.compile(r"\.(tiff?|ntf)$", re.I)


def layout(folder: str) -> Layout | None:
    """Find the rasters that metadata in a folder describe; None where there are none.

    Raises:
        SceneError: they are several parts of one picture.
    """
    rasters = [n for n in files_in(folder) if _RASTER.search(n)]
    found = [n for n in rasters if _metadata(folder, n) is not None]
    if not found:
        return None
    wholes: dict[str, list[str]] = {}
    for name in found:
        wholes.setdefault(_TILE.sub("", os.path.splitext(name)[0]), []).append(name)
    for parts in wholes.values():
        if len(parts) > 1:
            raise SceneError(
                f"{folder} holds one picture in {len(parts)} parts ({parts[0]}, ...): join them "
                f"(gdalbuildvrt scene.vrt {_TILE.sub('_R*C*', parts[0])}), and give that; its "
                f"bands are {_shown(folder, parts[0])}, which --band-names says"
            )
    others = tuple(f"{n}: no .IMD describes it" for n in rasters if n not in found)
    return Layout(tuple(within(folder, n) for n in found), others)


def told(path: str, index: int, count: int) -> Told | None:
    """Find what an .IMD says of a band.

    Args:
        path: of the raster.
        index: of the band, from 1.
        count: of the file's bands.
    """
    folder, name = os.path.split(path)
    by = _metadata(folder, name) if _RASTER.search(name) else None
    text = read_text(by) if by else None
    if by is None or text is None:
        return None
    said = _read(text)
    satellite = said.get("satid", "")
    order = _order(said)
    letter = order[index - 1] if len(order) == count else ""
    return Told(
        by,
        _BANDS.get(letter),
        nodata=0.0,
        product=f"MAXAR {satellite}",
        bits=_bits(said, satellite, letter),
    )


def _bits(said: dict[str, str], satellite: str, letter: str) -> int | None:
    stored = said.get("bitsperpixel", "")
    if not stored.isdecimal() or said.get("radiometricenhancement", "Off").lower() != "off":
        return None
    if int(stored) != 16 or letter.startswith(("S", "A")) or not letter:
        return int(stored)
    return _BITS.get(satellite, int(stored))


def _order(said: dict[str, str]) -> list[str]:
    """Letters of the bands, as they are in the file; none where that isn't sure."""
    called = said.get("bandid", "")
    if called in _ORDERS:
        return list(_ORDERS[called])
    return said["groups"].split() if called in _IN_ORDER else []


def _shown(folder: str, name: str) -> str:
    text = read_text(_metadata(folder, name) or "") or ""
    return ",".join(_BANDS.get(letter, "-") for letter in _order(_read(text))) or "not named"


def _metadata(folder: str, name: str) -> str | None:
    """The file that describes a raster."""
    stem = _TILE.sub("", os.path.splitext(name)[0])
    names = {n.lower(): n for n in files_in(folder)}
    for end in (".imd", ".xml"):
        found = names.get(f"{stem}{end}".lower())
        if found is not None and _read(read_text(within(folder, found)) or "").get("satid"):
            return within(folder, found)
    return None


def _read(text: str) -> dict[str, str]:
    """The keys of an .IMD or its XML in lower case, the first of each; and the bands' groups."""
    found: dict[str, str] = {}
    if text.lstrip().startswith("<"):
        parsed = elements(text)
        groups = [e.tag[5:] for e in parsed if e.tag.startswith("BAND_") and len(e)]
        for element in parsed:
            found.setdefault(element.tag.lower(), (element.text or "").strip())
    else:
        groups = re.findall(r"^BEGIN_GROUP = BAND_(\w+)", text, re.M)
        for key, value in re.findall(r"^\s*(\w+) = \"?(.*?)\"?;\s*$", text, re.M):
            found.setdefault(key.lower(), value)
    return {**found, "groups": " ".join(groups)}
