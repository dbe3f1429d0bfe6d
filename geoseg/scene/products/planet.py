"""PlanetScope: one file of four or eight bands, its metadata, and a mask of usable data (udm2)."""

from __future__ import annotations

import os
import re

from geoseg.scene.containers import files_in, read_text, within
from geoseg.scene.products.told import Layout, Told, elements

__all__ = ["layout", "told"]

#: A file's name: scene, level, kind.
_NAME = re.compile(
    r"(?P<scene>\d{8}_\d{6}_(?:\d{2}_)?[0-9a-f]{4})_(?P<level>[13][AB])_AnalyticMS"
    r"(?P<kind>[A-Za-z0-9_]*)\.tiff?$",
    re.I,
)
_MASK = re.compile(r"_udm2(_clip)?\.tiff?$", re.I)
#: By the number of bands, in the order of the files. green_i and yellow have no names of geoseg's.
_BANDS: dict[int, tuple[str | None, ...]] = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", None, "green", None, "red", "rededge1", "nir"),
}


def layout(folder: str) -> Layout | None:
    """Find the bands of an order's folder; None where it is none, or holds several scenes."""
    names = files_in(folder)
    found = {name: match for name in names if (match := _NAME.match(name))}
    scenes = {match["scene"] for match in found.values()}
    rasters = [name for name in names if name.lower().endswith((".tif", ".tiff"))]
    if len(scenes) != 1 or not all(name.startswith(tuple(scenes)) for name in rasters):
        return None
    surface = [name for name, match in found.items() if "_SR" in match["kind"].upper()]
    best = sorted(surface or found)[0]
    others = [f"{name}: {best} is used" for name in found if name != best]
    layers = [(within(folder, name), "UDM2") for name in names if _MASK.search(name)]
    return Layout((within(folder, best),), tuple(others), tuple(layers))


def told(path: str, index: int, count: int) -> Told | None:
    """Find what a product says of a file's band.

    Args:
        path: of the file.
        index: of the band, from 1.
        count: of the file's bands.
    """
    match = _NAME.match(os.path.basename(path))
    if match is None or count not in _BANDS:
        return None
    band = _BANDS[count][index - 1]
    said = Told(path, band, nodata=0.0, product=match[0])
    if "_SR" in match["kind"].upper():
        return said  # reflectance x 10000, as the table of sensors has it
    folder, begin = os.path.dirname(path), f"{match['scene']}_{match['level']}_AnalyticMS"
    for name in files_in(folder):
        if name.startswith(begin) and re.search(r"_metadata(_clip)?\.xml$", name):
            by = within(folder, name)
            factor = _coefficient(read_text(by) or "", index)
            if factor is not None:
                source = f"{name}: reflectanceCoefficient of each band"
                return Told(by, band, factor, 0.0, source, 0.0, match[0])
    return said


def _coefficient(text: str, index: int) -> float | None:
    """The factor from a band's numbers to reflectance, or None."""
    for element in elements(text):
        if element.tag != "bandSpecificMetadata":
            continue
        said = {e.tag: (e.text or "").strip() for e in element}
        if said.get("bandNumber") == str(index):
            try:
                factor = float(said.get("reflectanceCoefficient", ""))
            except ValueError:
                return None
            return factor if 0 < factor < 1 else None
    return None
