"""BEAM-DIMAP of SNAP: X.dim describes the rasters in the folder X.data, one ENVI file a band."""

from __future__ import annotations

import math
import os

from geoseg.scene.containers import files_in, folders_in, read_text, within
from geoseg.scene.products.told import Layout, Told, elements, stem

__all__ = ["layout", "of_header", "told"]


def of_header(path: str) -> str | None:
    """Give the folder of rasters that a .dim describes; None where the file is no .dim."""
    if not path.lower().endswith(".dim"):
        return None
    folder = f"{path[: -len('.dim')]}.data"
    return folder if files_in(folder) else None


def layout(folder: str) -> Layout | None:
    """Find the bands of a .data folder, or of one that holds it and its .dim; else None."""
    if not folder.rstrip("/").endswith(".data"):
        inner = [n for n in folders_in(folder) if n.endswith(".data")]
        headers = [n for n in files_in(folder) if n.endswith(".dim")]
        others = [n for n in files_in(folder) if not n.startswith(".") and n not in headers]
        if others or len(inner) != 1 or headers != [f"{inner[0][: -len('.data')]}.dim"]:
            return None
        folder = within(folder, inner[0])
    header = f"{folder.rstrip('/')[: -len('.data')]}.dim"
    text = read_text(header)
    if text is None:
        return None
    bands = set(_bands(text))
    rasters = [name for name in files_in(folder) if name.endswith(".img")]
    others = [
        f"{n}: {stem(header)}.dim does not describe it" for n in rasters if stem(n) not in bands
    ]
    return Layout(tuple(within(folder, n) for n in rasters if stem(n) in bands), tuple(others))


def told(path: str, index: int, count: int) -> Told | None:
    """Find what a .dim says of the band in one of its files.

    Args:
        path: of the file.
        index: of the band, from 1.
        count: of the file's bands.
    """
    folder = os.path.dirname(path)
    if count != 1 or not folder.endswith(".data") or not path.endswith(".img"):
        return None
    by = f"{folder[: -len('.data')]}.dim"
    text = read_text(by)
    said = _bands(text).get(stem(path)) if text else None
    if text is None or said is None:
        return None
    product = next((e.text or "" for e in elements(text) if e.tag == "DATASET_NAME"), "")
    try:
        scale, offset = (float(said.get(k, v)) for k, v in _SCALING.items())
        nodata = float(said["NO_DATA_VALUE"]) if _is_true(said, "NO_DATA_VALUE_USED") else None
    except (KeyError, ValueError):
        return Told(by, product=product)
    plain = (scale, offset) == (1.0, 0.0) or _is_true(said, "LOG10_SCALED")
    if plain or not (math.isfinite(scale) and math.isfinite(offset) and scale):
        return Told(by, nodata=nodata, product=product)
    source = f"{os.path.basename(by)}: SCALING_FACTOR and SCALING_OFFSET"
    return Told(by, None, scale, offset, source, nodata, product)


_SCALING = {"SCALING_FACTOR": "1", "SCALING_OFFSET": "0"}


def _is_true(said: dict[str, str], key: str) -> bool:
    return said.get(key, "").strip().lower() == "true"


def _bands(text: str) -> dict[str, dict[str, str]]:
    """What a .dim says of its bands, by their names."""
    found = {}
    for element in elements(text):
        if element.tag == "Spectral_Band_Info":
            said = {e.tag: (e.text or "").strip() for e in element}
            found[said.get("BAND_NAME", "")] = said
    return found
